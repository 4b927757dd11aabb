//! GoCardless: what no recorded body shows, and over real HTTP its own answers and bodies of many
//! events.

use axum::http::HeaderMap;
use billing_webhook::provider::{self, Refusal, Translated};
use contracts::billing::v1::BillingEvent;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::fixtures::{endpoint, only, translated};
use crate::harness::{Harness, fixture};

const GC_SECRET: &str = "ED7D658C-D8EB-4941-948B-3973214F2D49";

async fn start() -> Harness {
    Harness::start_with(|config| {
        let endpoints = format!(
            "endpoints:\n- {{ id: gym, provider: gocardless, account: OR00GYM, secrets: [newer, {GC_SECRET}] }}\n"
        );
        std::fs::write(&config.billing_endpoints_file, endpoints).expect("endpoints");
    })
    .await
}

async fn post(harness: &Harness, signature: Option<String>, body: &[u8]) -> reqwest::Response {
    let mut request = harness
        .http
        .post(harness.url("/webhooks/gocardless/gym"))
        .header("content-type", "application/json")
        .header("origin", "https://api.gocardless.com");
    if let Some(signature) = signature {
        request = request.header("Webhook-Signature", signature);
    }
    request.body(body.to_vec()).send().await.expect("an answer")
}

fn sign(body: &[u8]) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(GC_SECRET.as_bytes()).expect("a key");
    mac.update(body);
    Some(hex::encode(mac.finalize().into_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_post_is_answered_204_and_a_bad_signature_498() {
    let harness = start().await;
    let body = fixture("gocardless/f1_partner_two_organisations.json");
    for (what, signature) in [
        ("none", None),
        ("of another body", sign(b"{}")),
        ("no hex", Some("v1=abc".to_owned())),
    ] {
        let answer = post(&harness, signature, &body).await;
        assert_eq!(answer.status(), 498, "{what}");
        let error: Value = answer.json().await.expect("JSON");
        assert_eq!(error["error"]["code"], "signature", "{what}");
    }
    let answer = post(&harness, sign(b"{}"), b"{}").await;
    assert_eq!(answer.status(), 400, "signed, and no GoCardless body");
    let none_for_us = br#"{"events":[{"resource_type":"payouts","action":"paid"}]}"#;
    assert_eq!(
        post(&harness, sign(none_for_us), none_for_us)
            .await
            .status(),
        204
    );
    assert!(harness.billing().await.is_empty());

    for _ in 0..2 {
        let answer = post(&harness, sign(&body), &body).await;
        assert_eq!(answer.status(), 204);
        assert!(answer.bytes().await.expect("a body").is_empty());
    }
    let vector = fixture("gocardless/a0_official_vector.json");
    assert_eq!(post(&harness, sign(&vector), &vector).await.status(), 204);
    let mut subjects: Vec<_> = harness
        .billing()
        .await
        .into_iter()
        .map(|(subject, _)| subject)
        .collect();
    subjects.sort();
    assert_eq!(
        subjects,
        [
            "billing.v1.gocardless.OR00GYM.subscription_changed",
            "billing.v1.gocardless.OR00HARBOUR.payment_succeeded",
            "billing.v1.gocardless.OR00QUAYSIDE.payment_failed",
        ]
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_250_events_of_a_body_are_stored_once_however_often_it_is_sent() {
    let harness = start().await;
    let events: Vec<_> = (0..250)
        .map(|n| {
            json!({ "id": format!("EV00MANY{n}"), "created_at": "2026-10-08T13:30:10.004Z",
                "resource_type": "payments", "action": if n % 2 == 0 { "failed" } else { "confirmed" },
                "links": { "payment": format!("PM00MANY{n}"), "organisation": format!("OR{}", n % 3) },
                "details": { "origin": "bank", "cause": "refer_to_payer",
                    "description": "The bank has refused the payment and advised to refer to the payer.",
                    "scheme": "bacs", "reason_code": "ARUDD-0", "will_attempt_retry": false },
                "metadata": {}, "resource_metadata": { "gymflow_membership_id": format!("ms_{n}") } })
        })
        .collect();
    let body = json!({ "events": events, "meta": { "webhook_id": "WB00MANY" } }).to_string();
    assert!(body.len() > 100_000);
    for _ in 0..2 {
        let answer = post(&harness, sign(body.as_bytes()), body.as_bytes()).await;
        assert_eq!(answer.status(), 204);
    }
    let stored = harness.billing().await;
    assert_eq!(stored.len(), 250);
    let ids: std::collections::BTreeSet<_> = stored
        .iter()
        .map(|(_, event)| event["eventId"].to_string())
        .collect();
    assert_eq!(ids.len(), 250);
    harness.stop().await;
}

fn translate(body: &Value) -> Result<Vec<Translated>, Refusal> {
    translated("gocardless", body)
}

fn one(body: &Value) -> BillingEvent {
    only(translate(body))
}

#[test]
fn a_gocardless_event_belongs_to_its_organisation_and_to_nobody_outside_the_list() {
    let body = fixture("gocardless/f1_partner_two_organisations.json");
    let found = provider::find("gocardless").expect("a provider");
    let mut endpoint = endpoint("gocardless", true);
    let accounts = |endpoint: &_| -> Vec<String> {
        let headers = HeaderMap::new();
        let translated = found.translate(endpoint, &headers, &body).expect("a body");
        let account = |one: Translated| one.event.map_or("none".into(), |event| event.account);
        translated.into_iter().map(account).collect()
    };
    assert_eq!(accounts(&endpoint), ["OR00HARBOUR", "OR00QUAYSIDE"]);
    endpoint.accounts = vec!["OR00QUAYSIDE".into()];
    assert_eq!(accounts(&endpoint), ["none", "OR00QUAYSIDE"]);
}

#[test]
fn a_gocardless_post_that_says_it_is_of_the_other_mode_is_not_for_us() {
    let body = fixture("gocardless/c1_charged_back.json");
    let found = provider::find("gocardless").expect("a provider");
    for (origin, livemode, expected) in [
        ("https://api.gocardless.com", true, true),
        ("https://api-sandbox.gocardless.com", true, false),
        ("https://api-sandbox.gocardless.com", false, true),
        ("https://api.gocardless.com", false, false),
        ("https://proxy.example.com", true, true),
        ("https://proxy.example.com", false, true),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("origin", origin.parse().expect("a header"));
        let endpoint = endpoint("gocardless", livemode);
        let translated = found.translate(&endpoint, &headers, &body).expect("a body");
        assert_eq!(
            translated[0].event.is_some(),
            expected,
            "{origin} {livemode}"
        );
    }
}

#[test]
fn bad_gocardless_bodies_are_refused_by_what_is_wrong_with_them() {
    let good = || {
        json!({ "events": [{ "id": "EV1", "created_at": "2026-10-08T13:30:10.004Z",
            "resource_type": "payments", "action": "failed", "links": { "payment": "PM1" } }] })
    };
    assert_eq!(one(&good()).payment_id.as_deref(), Some("PM1"));
    let changed = |pointer: &str, value: Value| {
        let mut body = good();
        *body.pointer_mut(pointer).expect("a field") = value;
        body
    };
    for (body, expected) in [
        (json!([]), "`events` must be a list"),
        (json!({ "events": {} }), "`events` must be a list"),
        (json!({ "event": [] }), "`events` must be a list"),
        (
            changed("/events/0", json!("x")),
            "a `resource_type` and an `action`",
        ),
        (
            changed("/events/0/action", json!(7)),
            "a `resource_type` and an `action`",
        ),
        (
            changed("/events/0/id", json!(null)),
            "payments.failed must have an `id`",
        ),
        (
            changed("/events/0/id", json!("EV 1")),
            "`event_id` must be 1 to 64",
        ),
        (
            changed("/events/0/created_at", json!("noon")),
            "a time `created_at`",
        ),
        (
            changed("/events/0/created_at", json!(1)),
            "a time `created_at`",
        ),
        (
            changed("/events/0/links", json!({ "mandate": "MD1" })),
            "the id `links.payment`",
        ),
        (
            changed("/events/0/links/payment", json!("PM.1")),
            "`payment_id` must be 1 to 64",
        ),
        (
            changed(
                "/events/0/links",
                json!({ "payment": "PM1", "organisation": "OR>" }),
            ),
            "`account` must be 1 to 64",
        ),
    ] {
        let refusal = translate(&body).expect_err(expected);
        assert!(matches!(refusal, Refusal::Body(_)));
        assert!(
            refusal.to_string().contains(expected),
            "{expected}: {refusal}"
        );
    }
    assert_eq!(translate(&json!({ "events": [] })), Ok(vec![]));
}
