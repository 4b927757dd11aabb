//! Role assignments, and what nobody knows for sure about them.

use serde_json::{Value, json};

use crate::harness::Kisi;

async fn rows_of(kisi: &Kisi, user: i64) -> Vec<Value> {
    let path = format!("/role_assignments?assignee_type=User&assignee_id={user}&limit=250");
    kisi.get(&path).await.rows().clone()
}

fn with_until(kisi: &Kisi, user: i64, until: &str) -> Value {
    let mut body = kisi.grant_body(user);
    body["role_assignment"]["valid_until"] = json!(until);
    body
}

#[tokio::test]
async fn granting_twice_is_answered_as_it_is_set_and_looking_first_avoids_it() {
    // (mode, the second grant's status, rows after it, status with another window)
    for (mode, status, rows, windowed) in [
        ("409", 409, 1, 409),
        ("422", 422, 1, 422),
        ("new_row", 200, 2, 200),
        ("new_row_if_window_differs", 409, 1, 200),
    ] {
        let kisi = Kisi::with(json!({ "duplicate_assignments": mode })).await;
        let user = kisi.user("ada@example.com").await;
        kisi.grant(user).await;
        // The wrong client does not look, and depending on Kisi takes a refusal for a failure or
        // leaves a second row that a revoke will miss.
        assert_eq!(kisi.grant(user).await.status, status, "{mode}");
        assert_eq!(rows_of(&kisi, user).await.len(), rows, "{mode}");
        let other = kisi.post(
            "/role_assignments",
            with_until(&kisi, user, "2099-01-01T00:00:00Z"),
        );
        assert_eq!(other.await.status, windowed, "{mode}");
    }
}

#[tokio::test]
async fn a_changed_window_is_believed_only_when_it_is_read_back() {
    for (mode, status, moved) in [
        ("apply", 204, true),
        ("ignore", 204, false),
        ("422", 422, false),
    ] {
        let kisi = Kisi::with(json!({ "patch_window": mode })).await;
        let user = kisi.user("ada@example.com").await;
        let row = kisi.grant(user).await.id();
        let path = format!("/role_assignments/{row}");
        let change = json!({ "role_assignment": { "valid_until": "2099-01-01T00:00:00Z" } });
        assert_eq!(kisi.patch(&path, change).await.status, status, "{mode}");
        // The wrong client takes the 204 for a yes.
        let until = kisi.get(&path).await.body["valid_until"].clone();
        assert_eq!(!until.is_null(), moved, "{mode}");
    }
}

#[tokio::test]
async fn an_expired_row_opens_nothing_and_is_listed_as_it_is_set() {
    for (mode, listed) in [("stays", 1), ("hidden", 0), ("deleted", 0)] {
        let kisi = Kisi::with(json!({ "expired_listing": mode })).await;
        let user = kisi.user("ada@example.com").await;
        let until = jiff::Timestamp::from_second(4_102_444_800)
            .expect("2100")
            .to_string();
        let body = with_until(&kisi, user, &until);
        let row = kisi.post("/role_assignments", body).await.id();
        assert_eq!(rows_of(&kisi, user).await.len(), 1, "{mode}");
        kisi.advance(100 * 366 * 86_400).await;
        // The wrong client takes its absence for drift and grants again, for ever.
        assert_eq!(rows_of(&kisi, user).await.len(), listed, "{mode}");
        let gone = kisi
            .delete(&format!("/role_assignments/{row}"))
            .await
            .status;
        assert_eq!(gone, if mode == "deleted" { 404 } else { 204 }, "{mode}");
    }
}

#[tokio::test]
async fn windows_and_targets_that_make_no_sense_are_refused() {
    let kisi = Kisi::start().await;
    let user = kisi.user("ada@example.com").await;
    for until in ["2020-01-01T00:00:00Z", "not a time"] {
        let answer = kisi
            .post("/role_assignments", with_until(&kisi, user, until))
            .await;
        assert_eq!(answer.status, 422, "{until}");
    }
    let nobody = kisi.grant(999_999).await;
    assert_eq!(
        (nobody.status, &nobody.body["code"]),
        (404, &json!("000404"))
    );
    let mut place = kisi.grant_body(user);
    place["role_assignment"]["applies_to_type"] = json!("Place");
    place["role_assignment"]["applies_to_id"] = json!(kisi.place);
    place["role_assignment"]["role_id"] = json!("place_administrator");
    place["role_assignment"]["valid_until"] = json!("2099-01-01T00:00:00Z");
    assert_eq!(kisi.post("/role_assignments", place).await.status, 422);
}

#[tokio::test]
async fn the_old_form_makes_the_same_row_and_mirror_fields_are_filled() {
    let kisi = Kisi::start().await;
    let user = kisi.user("ada@example.com").await;
    let old = json!({ "role_assignment": { "user_id": user, "group_id": kisi.group, "role_id": "group_basic" } });
    let row = kisi.post("/role_assignments", old).await;
    assert_eq!(row.status, 200, "{row:?}");
    assert_eq!(row.body["assignee_id"], user);
    assert_eq!(row.body["user_id"], user);
    assert_eq!(row.body["group_id"], kisi.group);
    assert_eq!(row.body["created_by_id"], kisi.owner);
    assert_eq!(row.body["issued_by_id"], kisi.owner);
}

#[tokio::test]
async fn what_the_owner_gives_by_hand_looks_like_what_the_key_gave() {
    let kisi = Kisi::start().await;
    let ada = kisi.user("ada@example.com").await;
    let bob = kisi.user("bob@example.com").await;
    let ours = kisi.grant(ada).await.body["created_by_id"].clone();
    kisi.hands(json!({ "action": "add_assignment", "user_id": bob, "group_id": kisi.group }))
        .await;
    // The wrong client tells its own by `created_by_id`, and revokes what staff gave.
    assert_eq!(rows_of(&kisi, bob).await[0]["created_by_id"], ours);
}

#[tokio::test]
async fn a_lost_answer_is_settled_by_a_look() {
    let kisi = Kisi::with(json!({ "duplicate_assignments": "new_row" })).await;
    let user = kisi.user("ada@example.com").await;
    let fault = json!({ "method": "POST", "route": "/role_assignments", "kind": "reset_after_applying", "count": 1 });
    kisi.control(reqwest::Method::POST, "/faults", fault).await;
    let key = Some(crate::harness::KEY);
    let body = || Some(kisi.grant_body(user));
    let lost = kisi
        .try_call(key, reqwest::Method::POST, "/role_assignments", body())
        .await;
    assert!(lost.is_err(), "no answer came: {lost:?}");
    // The wrong client sends it again and makes a second row; a look finds the first.
    assert_eq!(rows_of(&kisi, user).await.len(), 1);
    kisi.grant(user).await;
    assert_eq!(rows_of(&kisi, user).await.len(), 2);
}

#[tokio::test]
async fn what_is_lost_on_the_way_there_was_not_applied() {
    let kisi = Kisi::start().await;
    let user = kisi.user("ada@example.com").await;
    let wait = std::time::Duration::from_millis(300);
    for (kind, rows) in [("reset", 0), ("hang", 0), ("hang_after_applying", 1)] {
        let fault =
            json!({ "method": "post", "route": "/role_assignments", "kind": kind, "count": 1 });
        kisi.control(reqwest::Method::POST, "/faults", fault).await;
        let body = Some(kisi.grant_body(user));
        let key = Some(crate::harness::KEY);
        let call = kisi.try_call(key, reqwest::Method::POST, "/role_assignments", body);
        let answer = tokio::time::timeout(wait, call).await;
        assert!(!matches!(answer, Ok(Ok(_))), "{kind}: {answer:?}");
        assert_eq!(rows_of(&kisi, user).await.len(), rows, "{kind}");
    }
    let state = kisi.simulator.shared().lock();
    let lost = state.log.since(0).filter(|entry| entry.status.is_none());
    assert_eq!(lost.count(), 3, "the log says that no answer was sent");
}

#[tokio::test]
async fn faults_are_met_by_route_and_counted_down() {
    let kisi = Kisi::start().await;
    for (kind, status) in [
        ("500", 500),
        ("502", 502),
        ("503", 503),
        ("404", 404),
        ("409", 409),
        ("429", 429),
        ("empty_body", 500),
    ] {
        let fault = json!({ "route": "/user", "kind": kind, "count": 2 });
        kisi.control(reqwest::Method::POST, "/faults", fault).await;
        let statuses = [
            kisi.get("/user").await.status,
            kisi.get("/user").await.status,
        ];
        assert_eq!(statuses, [status, status], "{kind}");
        assert_eq!(kisi.get("/login").await.status, 200);
        assert_eq!(kisi.get("/user").await.status, 200, "{kind}");
    }
    let fault = json!({ "route": "/user", "kind": "hang", "count": 1 });
    kisi.control(reqwest::Method::POST, "/faults", fault).await;
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(300), kisi.get("/user"));
    assert!(waiting.await.is_err(), "it hangs");
}

#[tokio::test]
async fn teams_and_guests_hold_rights_without_a_user() {
    let kisi = Kisi::start().await;
    let seed = json!({ "organizations": [{
        "name": "Other House", "owner": { "email": "o@other.example.com", "api_key": "other" },
        "groups": [{ "name": "All" }], "teams": [{ "name": "Staff", "groups": ["All"] }],
        "guests": [{ "name": "Visitor", "groups": ["All"] }],
    }]});
    kisi.control(reqwest::Method::POST, "/seed", seed).await;
    let rows = kisi
        .call_as(
            Some("other"),
            reqwest::Method::GET,
            "/role_assignments?scope=group&limit=250",
            None,
        )
        .await;
    let kinds: Vec<_> = rows
        .rows()
        .iter()
        .map(|row| (&row["assignee_type"], &row["user_id"]))
        .collect();
    assert_eq!(
        kinds,
        [
            (&json!("Team"), &Value::Null),
            (&json!("Guest"), &Value::Null)
        ]
    );
    assert!(
        kisi.get("/role_assignments?scope=group&limit=250")
            .await
            .rows()
            .is_empty(),
        "another's"
    );
}
