//! Every exchange fits openapi.yaml, by an independent validator.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use kisi_simulator::spec::SPEC;
use reqwest::Method;
use serde_json::json;

use crate::harness::Kisi;

/// Runs the validator over exchanges; its verdict and its words.
fn validate(exchanges: &str) -> (bool, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(exchanges.as_bytes()).expect("written");
    let python = std::env::var("GYMFLOW_PYTHON").unwrap_or_else(|_| "python3".into());
    let tools = std::env::var_os("GYMFLOW_PYTHONPATH")
        .map_or_else(|| root.join("../../.tools/py"), PathBuf::from);
    let output = Command::new(python)
        .env("PYTHONPATH", tools)
        .arg(root.join("tests/validate_exchanges.py"))
        .arg(root.join("openapi.yaml"))
        .arg(file.path())
        .output()
        .expect("python3");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        !text.contains("ModuleNotFoundError"),
        "run `make tools`: {text}"
    );
    (output.status.success(), text)
}

#[tokio::test]
async fn every_route_answers_as_the_document_says() {
    let kisi = Kisi::start().await;
    let (group, place, lock) = (kisi.group, kisi.place, kisi.front_door);
    let user = kisi.user("ada@example.com").await;
    kisi.patch(
        &format!("/users/{user}"),
        json!({ "user": { "name": "Ada", "metadata": { "gymflow_member_id": "m_1" } } }),
    )
    .await;
    let row = kisi.grant(user).await.id();
    let (login, secret) = kisi.login("ada@example.com").await;
    kisi.call(Method::POST, &format!("/logins/{login}/promote"), None)
        .await;
    let unlock = Some(
        json!({ "context": { "location": { "latitude": 51.5, "longitude": -0.1 } }, "lock": { "proximity_proof": null } }),
    );
    kisi.call_as(
        Some(&secret),
        Method::POST,
        &format!("/locks/{lock}/unlock"),
        unlock,
    )
    .await;
    let member = kisi
        .get(&format!("/members?user_id={user}&limit=100"))
        .await
        .rows()[0]["id"]
        .clone();
    kisi.patch(
        &format!("/members/{member}"),
        json!({ "member": { "name": "Ada M." } }),
    )
    .await;
    let new_group = kisi
        .post("/groups", json!({ "group": { "name": "New" } }))
        .await
        .id();
    kisi.patch(
        &format!("/groups/{new_group}"),
        json!({ "group": { "description": "x" } }),
    )
    .await;
    let link = kisi
        .post(
            "/group_locks",
            json!({ "group_lock": { "group_id": new_group, "lock_id": lock } }),
        )
        .await
        .id();
    let hook = kisi.post("/integrations", json!({ "integration": { "name": "G", "type": "event_webhook", "url": "https://example.com/h", "enabled": true, "enabled_events": ["lock.unlock"], "signature_key": "k" } })).await.id();
    kisi.patch(
        &format!("/integrations/{hook}"),
        json!({ "integration": { "enabled": false } }),
    )
    .await;
    let other = kisi
        .post(
            "/members",
            json!({ "member": { "email": "bob@example.com", "send_emails": false } }),
        )
        .await
        .id();
    kisi.patch(
        &format!("/role_assignments/{row}"),
        json!({ "role_assignment": { "valid_until": "2099-01-01T00:00:00Z" } }),
    )
    .await;
    let set = kisi
        .post(
            "/event_sets",
            json!({ "event_set": { "interval": "2026-01-01T00:00:00Z/2026-03-01T00:00:00Z" } }),
        )
        .await
        .id();
    for path in [
        "/organizations".into(),
        "/organization".into(),
        "/user".into(),
        "/login".into(),
        "/roles".into(),
        "/roles/group_basic".into(),
        "/places?limit=250".into(),
        format!("/places/{place}"),
        "/groups?scope=organization&limit=250".into(),
        format!("/groups/{group}"),
        format!("/group_locks?group_id={group}&limit=250"),
        format!("/group_locks/{link}"),
        format!("/locks?place_id={place}&limit=250"),
        format!("/locks/{lock}"),
        "/users?limit=100".into(),
        format!("/users/{user}"),
        "/members?limit=100".into(),
        format!("/members/{member}"),
        format!("/role_assignments?applies_to_type=Group&applies_to_id={group}&limit=250"),
        format!("/role_assignments/{row}"),
        "/role_assignments?scope=organization&limit=250".into(),
        "/logins?scope=all&limit=250".into(),
        "/integrations?limit=250".into(),
        format!("/integrations/{hook}"),
        format!("/event_sets/{set}"),
        format!("/event_sets/{set}?limit=50"),
        format!("/group_links?group_id={group}&limit=250"),
        "/users/999999".into(),
        "/users?limit=1000".into(),
    ] {
        kisi.get(&path).await;
    }
    kisi.post("/users", json!({ "user": { "email": "ADA@example.com" } }))
        .await;
    kisi.post("/users", json!({ "user": { "email": "no" } }))
        .await;
    for path in [
        format!("/role_assignments/{row}"),
        format!("/logins/{login}"),
        format!("/group_locks/{link}"),
        format!("/groups/{new_group}"),
        format!("/integrations/{hook}"),
        format!("/members/{other}"),
        format!("/users/{user}"),
    ] {
        assert_eq!(kisi.delete(&path).await.status, 204, "{path}");
    }

    // None of the document's routes is missing here.
    let answered: std::collections::BTreeSet<_> = {
        let state = kisi.simulator.shared().lock();
        let entries = state.log.since(0);
        entries
            .filter(|e| e.status.is_some_and(|s| s < 300))
            .map(|e| (e.method.clone(), e.route.clone()))
            .collect()
    };
    let missing: Vec<_> = SPEC
        .operations()
        .iter()
        .filter(|operation| {
            !answered.contains(&(operation.method.clone(), operation.template.clone()))
        })
        .map(|operation| operation.id.as_str())
        .collect();
    assert!(missing.is_empty(), "not answered: {missing:?}");

    let exchanges = kisi.simulator.exchanges_jsonl();
    let (fits, words) = validate(&exchanges);
    assert!(fits, "{words}");
}

#[test]
fn the_validator_finds_what_does_not_fit() {
    let exchange = |status: u16, body: serde_json::Value| {
        json!({
            "request": { "method": "GET", "url": "https://api.kisi.io/user",
                "headers": [["authorization", "KISI-LOGIN x"], ["x-kisi-integration-identifier", "g"],
                            ["x-kisi-integration-contact", "g@example.com"]], "body": null },
            "response": { "status": status, "headers": [["content-type", "application/json"]], "body": body },
        })
        .to_string()
    };
    assert!(!validate("").0, "nothing validated is nothing shown");
    assert!(!validate(&exchange(200, json!({ "id": "seventeen" }))).0);
    assert!(!validate(&exchange(418, json!({}))).0);
    assert!(
        validate(&exchange(
            401,
            json!({ "code": "000401", "error": "Sign in." })
        ))
        .0
    );
}
