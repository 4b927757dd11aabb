//! Unlocks: who is let in, and the codes of those who are not.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{KEY, Kisi};

async fn unlock(kisi: &Kisi, key: &str, body: Value) -> (u16, Value) {
    let path = format!("/locks/{}/unlock", kisi.front_door);
    let answer = kisi
        .call_as(Some(key), Method::POST, &path, Some(body))
        .await;
    (answer.status, answer.body["code"].clone())
}

#[tokio::test]
async fn doors_decide_in_kisis_order_and_say_why() {
    let kisi = Kisi::start().await;
    let ada = kisi.user("ada@example.com").await;
    let (_, secret) = kisi.login("ada@example.com").await;
    let missing = kisi
        .call_as(Some(&secret), Method::POST, "/locks/99999/unlock", None)
        .await;
    assert_eq!(
        (missing.status, &missing.body["code"]),
        (404, &json!("fad10e"))
    );
    assert_eq!(
        unlock(&kisi, &secret, json!({})).await,
        (403, json!("afc496"))
    );

    let row = kisi.grant(ada).await.id();
    assert_eq!(unlock(&kisi, &secret, json!({})).await.0, 200);
    assert_eq!(
        unlock(&kisi, KEY, json!({})).await.0,
        200,
        "an admin's key opens as the admin"
    );

    let window = |from: Value, until: Value| {
        kisi.hands(json!({ "action": "set_window", "assignment_id": row, "valid_from": from, "valid_until": until }))
    };
    window(json!("2099-01-01T00:00:00Z"), Value::Null).await;
    assert_eq!(
        unlock(&kisi, &secret, json!({})).await,
        (403, json!("f358de"))
    );
    window(Value::Null, json!("2020-01-01T00:00:00Z")).await;
    assert_eq!(
        unlock(&kisi, &secret, json!({})).await,
        (403, json!("f35ade"))
    );
    window(Value::Null, Value::Null).await;

    let lock = kisi.front_door;
    kisi.hands(json!({ "action": "lock_online", "lock_id": lock, "online": false }))
        .await;
    assert_eq!(
        unlock(&kisi, &secret, json!({})).await,
        (503, json!("fac001"))
    );
    kisi.hands(json!({ "action": "suspend_user", "user_id": ada, "suspended": true }))
        .await;
    assert_eq!(
        unlock(&kisi, &secret, json!({})).await,
        (403, json!("fcd8ff")),
        "before the controller"
    );
    kisi.hands(json!({ "action": "lock_down_lock", "lock_id": lock, "locked_down": true }))
        .await;
    assert_eq!(
        unlock(&kisi, &secret, json!({})).await,
        (409, json!("fad001")),
        "before the person"
    );
}

#[tokio::test]
async fn a_groups_rules_bind_members_and_a_kinder_group_lets_them_in() {
    let kisi = Kisi::start().await;
    let ada = kisi.user("ada@example.com").await;
    let (login, secret) = kisi.login("ada@example.com").await;
    kisi.grant(ada).await;
    let path = format!("/groups/{}", kisi.group);
    let rule = async |name: &str, on: bool| {
        assert_eq!(
            kisi.patch(&path, json!({ "group": { name: on } }))
                .await
                .status,
            204,
            "{name}"
        );
    };
    for (name, code) in [
        ("tap_to_access_restriction_enabled", "bbc93f"),
        ("time_restriction_enabled", "34ffaa"),
        ("primary_device_restriction_enabled", "34bd8f"),
        ("geofence_restriction_enabled", "a3799f"),
        ("reader_restriction_enabled", "bb4faa"),
    ] {
        rule(name, true).await;
        assert_eq!(
            unlock(&kisi, &secret, json!({})).await,
            (403, json!(code)),
            "{name}"
        );
        rule(name, false).await;
    }
    rule("login_enabled", false).await;
    assert_eq!(
        unlock(&kisi, &secret, json!({})).await,
        (403, json!("f01337"))
    );

    rule("reader_restriction_enabled", true).await;
    rule("login_enabled", true).await;
    let proof = json!({ "lock": { "proximity_proof": "4711" } });
    assert_eq!(unlock(&kisi, &secret, proof).await.0, 200);
    rule("primary_device_restriction_enabled", true).await;
    kisi.call(Method::POST, &format!("/logins/{login}/promote"), None)
        .await;
    let proof = json!({ "lock": { "proximity_proof": "4711" } });
    assert_eq!(unlock(&kisi, &secret, proof).await.0, 200);

    let mut kinder = kisi.grant_body(ada);
    kinder["role_assignment"]["applies_to_id"] = json!(kisi.place_group);
    kisi.post("/role_assignments", kinder).await;
    assert_eq!(
        unlock(&kisi, &secret, json!({})).await.0,
        200,
        "one of several groups is enough"
    );
}

#[tokio::test]
async fn a_door_may_open_although_503_was_answered() {
    let kisi = Kisi::start().await;
    let ada = kisi.user("ada@example.com").await;
    let (_, secret) = kisi.login("ada@example.com").await;
    kisi.grant(ada).await;
    let fault = json!({ "route": "/locks/{id}/unlock", "kind": "503_after_applying", "count": 1 });
    kisi.control(Method::POST, "/faults", fault).await;
    assert_eq!(unlock(&kisi, &secret, json!({})).await.0, 503);
    // The wrong client tries again, and the door opens twice.
    let events = kisi.control(Method::GET, "/events", json!({})).await;
    let opened = events
        .as_array()
        .expect("events")
        .iter()
        .filter(|e| e["type"] == "lock.unlock");
    assert_eq!(opened.filter(|event| event["success"] == true).count(), 1);
}
