//! What is not in openapi.yaml is refused, and noted.

use reqwest::Method;
use serde_json::json;

use crate::harness::{KEY, Kisi};

#[tokio::test]
async fn requests_outside_the_document_are_refused_and_noted() {
    let kisi = Kisi::start().await;
    let unknown = kisi.get("/sharez").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(
        unknown.body["error"],
        "The endpoint does not exist, please check your request."
    );
    assert_eq!(kisi.call(Method::PUT, "/users", None).await.status, 404);
    kisi.set(json!({ "wrong_method": 405 })).await;
    assert_eq!(kisi.call(Method::PUT, "/users", None).await.status, 405);

    for (what, body, status) in [
        ("no wrapper", json!({ "email": "ada@example.com" }), 422),
        (
            "a wrong type",
            json!({ "user": { "email": "ada@example.com", "confirm": "yes" } }),
            422,
        ),
        (
            "an unknown field",
            json!({ "user": { "email": "ada@example.com", "shoe": 42 } }),
            422,
        ),
        ("no e-mail", json!({ "user": { "name": "Ada" } }), 422),
    ] {
        let answer = kisi.post("/users", body).await;
        assert_eq!(answer.status, status, "{what}");
        assert!(
            answer.body["errors"].is_object() && answer.body.get("code").is_none(),
            "{what}"
        );
    }
    for path in [
        "/users?shoe=42",
        "/group_locks",
        "/users?limit=0",
        "/role_assignments?assignee_id=1",
    ] {
        let answer = kisi.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.body["code"].is_string(), "{path}");
    }
    let url = format!("{}/users", kisi.simulator.base_url());
    let answer = kisi
        .http
        .post(url)
        .header("authorization", format!("KISI-LOGIN {KEY}"))
        .body("{");
    assert_eq!(answer.send().await.expect("an answer").status(), 400);

    let state = kisi.simulator.shared().lock();
    let unnoted: Vec<_> = state
        .log
        .since(0)
        .filter(|entry| entry.status.is_some_and(|s| s >= 400) && entry.note.is_none())
        .map(|entry| entry.path.clone())
        .collect();
    assert!(unnoted.is_empty(), "{unnoted:?}");
}

#[tokio::test]
async fn lenient_kisi_ignores_unknown_fields_and_nothing_else() {
    let kisi = Kisi::with(json!({ "strict": false })).await;
    let body = json!({ "user": { "email": "ada@example.com", "send_emails": false, "shoe": 42 } });
    assert_eq!(kisi.post("/users", body).await.status, 200);
    let body = json!({ "user": { "email": 7 } });
    assert_eq!(kisi.post("/users", body).await.status, 422);
}

#[tokio::test]
async fn what_was_deleted_is_gone_and_writes_answer_as_kisi_does() {
    let kisi = Kisi::start().await;
    let user = kisi.user("ada@example.com").await;
    let row = kisi.grant(user).await;
    assert_eq!(row.status, 200, "POST answers the object, not 201");
    let path = format!("/role_assignments/{}", row.id());
    let patched = kisi
        .patch(
            &format!("/users/{user}"),
            json!({ "user": { "name": "Ada E." } }),
        )
        .await;
    assert_eq!((patched.status, patched.text.as_str()), (204, ""));
    assert_eq!(
        kisi.get(&format!("/users/{user}")).await.body["name"],
        "Ada E."
    );
    let deleted = kisi.delete(&path).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    assert_eq!(kisi.delete(&path).await.status, 404);
}

#[tokio::test]
async fn the_world_survives_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = || kisi_simulator::SimulatorConfig {
        state_file: Some(folder.path().join("kisi.json")),
        settings: kisi_simulator::settings::Settings {
            limiter: kisi_simulator::settings::LimiterModel::Off,
            ..Default::default()
        },
        ..Default::default()
    };
    let started = kisi_simulator::Simulator::start(config())
        .await
        .expect("a simulator");
    let kisi = Kisi::of(started).await;
    let user = kisi.user("ada@example.com").await;
    let row = kisi.grant(user).await.id();
    let gone = kisi.user("bob@example.com").await;
    kisi.delete(&format!("/users/{gone}")).await;
    kisi.hands(json!({ "action": "suspend_user", "user_id": user, "suspended": true }))
        .await;
    let before = kisi.control(Method::GET, "/clock", json!({})).await["now"].clone();
    kisi.advance(3 * 86_400).await;
    kisi.simulator.shutdown().await;

    let again = kisi_simulator::Simulator::start(config())
        .await
        .expect("again");
    // The same key opens the same world: what was there is, what was deleted is not.
    let kisi = Kisi {
        simulator: again,
        ..kisi
    };
    let held = kisi.get(&format!("/role_assignments/{row}")).await;
    assert_eq!(
        (held.status, &held.body["assignee_id"]),
        (200, &json!(user))
    );
    let ada = kisi.get(&format!("/users/{user}")).await;
    assert_eq!(ada.body["access_enabled"], false);
    assert_eq!(kisi.get(&format!("/users/{gone}")).await.status, 404);
    let reborn = kisi.user("bob@example.com").await;
    assert!(reborn > gone, "ids are never used again");
    let clock = kisi.control(Method::GET, "/clock", json!({})).await["now"].clone();
    let now = |text: &serde_json::Value| -> jiff::Timestamp {
        text.as_str().expect("a time").parse().expect("a time")
    };
    let passed = now(&clock).duration_since(now(&before));
    assert!(
        passed.as_hours() >= 72,
        "the clock went back: {before} {clock}"
    );
}

#[tokio::test]
async fn a_file_that_is_no_state_stops_the_start_and_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("kisi.json");
    std::fs::write(&file, "not ours").expect("written");
    let config = kisi_simulator::SimulatorConfig {
        state_file: Some(file.clone()),
        ..Default::default()
    };
    assert!(kisi_simulator::Simulator::start(config).await.is_err());
    assert_eq!(std::fs::read_to_string(file).expect("read"), "not ours");
}
