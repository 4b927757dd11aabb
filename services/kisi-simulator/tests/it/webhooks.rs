//! Events on their way out.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::Kisi;

type Seen = Arc<Mutex<Vec<(Option<String>, Bytes)>>>;

#[derive(Clone)]
struct Catcher {
    seen: Seen,
    status: Arc<Mutex<StatusCode>>,
}

/// A server that keeps what it is sent.
async fn catcher() -> (String, Catcher) {
    let catcher = Catcher {
        seen: Seen::default(),
        status: Arc::new(Mutex::new(StatusCode::OK)),
    };
    let router = Router::new()
        .route(
            "/hook",
            post(
                async |State(catcher): State<Catcher>, headers: HeaderMap, body: Bytes| {
                    let signature = headers
                        .get("x-signature")
                        .and_then(|v| v.to_str().ok())
                        .map(str::to_owned);
                    catcher.seen.lock().expect("seen").push((signature, body));
                    *catcher.status.lock().expect("status")
                },
            ),
        )
        .with_state(catcher.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, catcher)
}

impl Catcher {
    async fn until(&self, count: usize) -> Vec<(Option<String>, Bytes)> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let seen = self.seen.lock().expect("seen").clone();
            if seen.len() >= count {
                return seen;
            }
            assert!(Instant::now() < deadline, "{} of {count} came", seen.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn registered(kisi: &Kisi, url: &str) -> i64 {
    let body = json!({ "integration": {
        "name": "Gymflow", "type": "event_webhook", "url": url, "enabled": true,
        "enabled_events": ["role_assignment.create", "role_assignment.destroy"], "signature_key": "k",
    }});
    let made = kisi.post("/integrations", body).await;
    assert_eq!(made.status, 200, "{made:?}");
    made.id()
}

fn ids(seen: &[(Option<String>, Bytes)]) -> Vec<Value> {
    seen.iter()
        .map(|(_, body)| serde_json::from_slice::<Value>(body).expect("JSON")["object_id"].clone())
        .collect()
}

#[tokio::test]
async fn deliveries_are_signed_over_the_exact_bytes_and_only_what_was_asked_for_comes() {
    let kisi = Kisi::start().await;
    let (url, catcher) = catcher().await;
    registered(&kisi, &url).await;
    let user = kisi.user("ada@example.com").await;
    let row = kisi.grant(user).await.id();
    let (signature, body) = catcher.until(1).await.remove(0);
    let mut mac = Hmac::<Sha256>::new_from_slice(b"k").expect("a key");
    mac.update(&body);
    assert_eq!(
        signature,
        Some(format!(
            "sha256={}",
            hex::encode(mac.finalize().into_bytes())
        ))
    );
    let event: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(
        (&event["type"], &event["object_id"]),
        (&json!("role_assignment.create"), &json!(row))
    );
}

#[tokio::test]
async fn events_repeat_reorder_and_get_lost_as_it_is_set() {
    let kisi = Kisi::with(json!({ "webhooks": { "repeat": 1 } })).await;
    let (url, catcher) = catcher().await;
    registered(&kisi, &url).await;
    let user = kisi.user("ada@example.com").await;
    let first = kisi.grant(user).await.id();
    // The wrong client counts a repeat as another change.
    assert_eq!(ids(&catcher.until(2).await), [json!(first), json!(first)]);

    kisi.set(json!({ "webhooks": { "reorder": true } })).await;
    catcher.seen.lock().expect("seen").clear();
    kisi.delete(&format!("/role_assignments/{first}")).await;
    let second = kisi.grant(user).await.id();
    // The wrong client believes the last event, and takes the right for gone.
    assert_eq!(ids(&catcher.until(2).await), [json!(second), json!(first)]);

    kisi.set(json!({ "webhooks": { "drop_every": 1 } })).await;
    let before = catcher.seen.lock().expect("seen").len();
    kisi.delete(&format!("/role_assignments/{second}")).await;
    kisi.set(json!({ "webhooks": { "drop_every": 0 } })).await;
    let third = kisi.grant(user).await.id();
    let seen = catcher.until(before + 1).await;
    // The wrong client relies on events, and never hears of the removal.
    let removals = seen.iter().filter(|(_, body)| {
        let event: Value = serde_json::from_slice(body).expect("JSON");
        event["type"] == "role_assignment.destroy" && event["object_id"] == second
    });
    assert!(third > second);
    assert_eq!(removals.count(), 0);
}

#[tokio::test]
async fn a_refused_unlock_is_told_and_without_a_key_nothing_is_signed() {
    let kisi = Kisi::start().await;
    let (url, catcher) = catcher().await;
    let body = json!({ "integration": {
        "name": "Gymflow", "type": "event_webhook", "url": url, "enabled": true,
        "enabled_events": ["lock.unlock"],
    }});
    let made = kisi.post("/integrations", body).await;
    assert_eq!(made.status, 200, "{made:?}");
    let user = kisi.user("ada@example.com").await;
    let (_, secret) = kisi.login("ada@example.com").await;
    let door = format!("/locks/{}/unlock", kisi.front_door);
    let open = || kisi.call_as(Some(&secret), Method::POST, &door, None);
    assert_eq!(open().await.status, 403);
    kisi.grant(user).await;
    assert_eq!(open().await.status, 200);
    let seen = catcher.until(2).await;
    assert!(seen.iter().all(|(signature, _)| signature.is_none()));
    let told: Vec<Value> = seen
        .iter()
        .map(|(_, body)| serde_json::from_slice(body).expect("JSON"))
        .collect();
    for (event, success, code) in [
        (&told[0], false, json!("afc496")),
        (&told[1], true, Value::Null),
    ] {
        assert_eq!(event["type"], "lock.unlock");
        assert_eq!(
            (&event["actor_id"], &event["object_id"]),
            (&json!(user), &json!(kisi.front_door))
        );
        assert_eq!(
            (&event["success"], &event["error_code"]),
            (&json!(success), &code)
        );
    }
    assert_ne!(told[0]["uuid"], told[1]["uuid"]);
}

#[tokio::test]
async fn an_endpoint_that_fails_is_switched_off_and_comes_back_by_a_patch() {
    let kisi = Kisi::with(json!({ "webhooks": { "disable_after_failures": 2 } })).await;
    let (url, catcher) = catcher().await;
    let id = registered(&kisi, &url).await;
    *catcher.status.lock().expect("status") = StatusCode::INTERNAL_SERVER_ERROR;
    let user = kisi.user("ada@example.com").await;
    let row = kisi.grant(user).await.id();
    kisi.delete(&format!("/role_assignments/{row}")).await;
    let path = format!("/integrations/{id}");
    let deadline = Instant::now() + Duration::from_secs(20);
    while kisi.get(&path).await.body["disabled_due_to_error"] != true {
        assert!(Instant::now() < deadline, "not switched off");
    }
    assert_eq!(kisi.get(&path).await.body["enabled"], false);
    // Switched off is silent, as another endpoint that hears of the same shows.
    *catcher.status.lock().expect("status") = StatusCode::OK;
    let (other_url, other) = self::catcher().await;
    registered(&kisi, &other_url).await;
    let silent = kisi.grant(user).await.id();
    other.until(1).await;
    let enable = json!({ "integration": { "enabled": true } });
    assert_eq!(kisi.patch(&path, enable).await.status, 204);
    assert_eq!(kisi.get(&path).await.body["disabled_due_to_error"], false);
    kisi.delete(&format!("/role_assignments/{silent}")).await;
    let seen = catcher.until(3).await;
    let types: Vec<Value> = seen
        .iter()
        .map(|(_, body)| serde_json::from_slice::<Value>(body).expect("JSON")["type"].clone())
        .collect();
    let (made, gone) = ("role_assignment.create", "role_assignment.destroy");
    assert_eq!(types, [made, gone, gone], "two failures, then the last one");
}

#[tokio::test]
async fn past_events_come_as_sets_after_a_while_and_in_pages() {
    let kisi = Kisi::with(json!({ "event_set_polls": 2 })).await;
    let user = kisi.user("ada@example.com").await;
    for _ in 0..3 {
        let row = kisi.grant(user).await.id();
        kisi.delete(&format!("/role_assignments/{row}")).await;
    }
    let now = kisi.control(Method::GET, "/clock", json!({})).await["now"]
        .as_str()
        .expect("now")
        .to_owned();
    let now: jiff::Timestamp = now.parse().expect("a time");
    let hour = jiff::SignedDuration::from_hours(1);
    let interval = format!("{}/{}", now - hour, now + hour);
    let set =
        json!({ "event_set": { "interval": interval, "event_type": "role_assignment.create" } });
    let made = kisi.post("/event_sets", set).await;
    let path = format!("/event_sets/{}?limit=2", made.id());
    // The wrong client takes the first answer for the whole.
    let mut answer = kisi.get(&path).await;
    while answer.body["status"] == "in_progress" {
        answer = kisi.get(&path).await;
    }
    let mut events = answer.body["events"].as_array().expect("events").len();
    while let Some(cursor) = answer.body["cursor"].as_str().map(str::to_owned) {
        answer = kisi.get(&format!("{path}&cursor={cursor}")).await;
        events += answer.body["events"].as_array().expect("events").len();
    }
    assert_eq!(events, 3);
    let long = json!({ "event_set": { "interval": "2026-01-01T00:00:00Z/2026-12-01T00:00:00Z" } });
    assert_eq!(kisi.post("/event_sets", long).await.status, 422);
}
