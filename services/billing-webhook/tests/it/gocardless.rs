//! GoCardless over real HTTP: its own answers, and bodies of many events.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

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
