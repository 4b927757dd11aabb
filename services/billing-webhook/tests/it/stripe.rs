//! Stripe over real HTTP: what must be accepted even while nothing can be kept, and whose events
//! end where.

use std::time::Duration;

use billing_webhook::stripe::signature::HEADER;
use serde_json::{Value, json};

use crate::harness::{Harness, SECRET, fixture, now, signed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invoice_that_was_made_is_accepted_even_while_nothing_can_be_kept() {
    let mut harness = Harness::start_with(|config| {
        config.publish_timeout = Duration::from_millis(500);
    })
    .await;
    harness.nats.stop().await.expect("stopped");
    let mut body: Value =
        serde_json::from_slice(&fixture("stripe/a4_old_invoice.paid.json")).expect("JSON");
    let paid = body.to_string();
    body["type"] = json!("invoice.created");
    let created = body.to_string();
    // Without a 2xx Stripe would hold back every invoice of the gym, for up to three days.
    let answer = harness.post_signed(SECRET, created.as_bytes()).await;
    assert_eq!(answer.status(), 200);
    let answer = harness.post_signed(SECRET, paid.as_bytes()).await;
    assert_eq!(answer.status(), 503);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_endpoint_takes_its_own_mode_accounts_and_way_of_collecting() {
    let harness = Harness::start_with(|config| {
        let endpoints = "endpoints:\n\
            - { id: live, provider: stripe, account: acct_platform, accounts: [acct_1QgymRiverside0A], secrets: [whsec_live] }\n\
            - { id: test, provider: stripe, account: acct_platform, livemode: false, secrets: [whsec_test] }\n\
            - { id: other, provider: stripe, account: acct_other, accounts: [acct_a], secrets: [whsec_other] }\n\
            - { id: intents, provider: stripe, account: acct_intents, collects_by: payment_intents, secrets: [whsec_older, whsec_intents] }\n";
        std::fs::write(&config.billing_endpoints_file, endpoints).expect("endpoints");
    })
    .await;
    for (endpoint, name) in [
        // Of a connected account.
        ("live", "stripe/d1_new_invoice.payment_failed.json"),
        ("other", "stripe/d1_new_invoice.payment_failed.json"),
        // Of the platform itself.
        ("live", "stripe/e1_new_charge.dispute.created.json"),
        // Of test mode.
        ("live", "stripe/j4_livemode_false.json"),
        ("test", "stripe/j4_livemode_false.json"),
        ("test", "stripe/a4_old_invoice.paid.json"),
        ("live", "stripe_intents/succeeded.json"),
        ("intents", "stripe_intents/succeeded.json"),
        ("live", "stripe/j2_thin_v2_event.json"),
    ] {
        let body = fixture(name);
        let answer = harness
            .http
            .post(harness.url(&format!("/webhooks/stripe/{endpoint}")))
            .header(HEADER, signed(&format!("whsec_{endpoint}"), &body, now()))
            .body(body)
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 200, "{endpoint} {name}");
    }
    let subjects: Vec<_> = harness
        .billing()
        .await
        .into_iter()
        .map(|(subject, _)| subject)
        .collect();
    assert_eq!(
        subjects,
        [
            "billing.v1.stripe.acct_1QgymRiverside0A.payment_failed",
            "billing.v1.stripe.acct_platform.payment_reversed",
            "billing.v1.stripe.acct_platform.payment_succeeded",
            "billing.v1.stripe.acct_intents.payment_succeeded",
        ]
    );
    harness.stop().await;
}
