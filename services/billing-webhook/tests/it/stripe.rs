//! Stripe: what no recorded body shows, and over real HTTP what must be accepted even while nothing
//! can be kept, and whose events end where.

use std::time::Duration;

use axum::http::HeaderMap;
use billing_webhook::endpoints::CollectsBy;
use billing_webhook::provider::{self, Refusal, Translated};
use billing_webhook::stripe::signature::HEADER;
use contracts::billing::v1::BillingEvent;
use serde_json::{Value, json};

use crate::fixtures::{endpoint, files, only, translated};
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

fn translate(body: &Value) -> Result<Vec<Translated>, Refusal> {
    translated("stripe", body)
}

fn one(body: &Value) -> BillingEvent {
    only(translate(body))
}

#[test]
fn stripe_types_that_are_not_read_are_not_for_us_whatever_else_they_hold() {
    let types = "invoice.created invoice.finalized invoice.updated invoice.sent invoice.upcoming \
        invoice.deleted invoice.overdue invoice.will_be_due invoice.overpaid \
        invoice.payment_attempt_required invoice.finalization_failed credit_note.created \
        credit_note.updated credit_note.voided refund.created refund.updated charge.refund.updated \
        charge.succeeded charge.failed charge.updated charge.dispute.updated \
        customer.subscription.trial_will_end customer.subscription.pending_update_applied \
        customer.subscription.pending_update_expired customer.created customer.updated \
        checkout.session.completed payout.paid payment_intent.succeeded \
        payment_intent.payment_failed payment_intent.created something.new";
    for event_type in types.split_whitespace() {
        for body in [
            json!({ "id": "evt_1", "type": event_type, "created": 1, "livemode": true,
                    "data": { "object": { "id": "x", "refunded": true, "status": "inactive",
                                          "metadata": { "gymflow_invoice_id": "inv_1" } } } }),
            // Neither id, nor time, nor object: still nothing to send again.
            json!({ "type": event_type, "livemode": true }),
            json!({ "type": event_type, "livemode": true, "id": 7, "created": "noon", "data": [] }),
        ] {
            let translated = translate(&body).expect(event_type);
            assert_eq!(translated, [Translated::not_for_us(event_type)], "{body}");
        }
    }
}

/// Every recorded Stripe body.
fn stripe_bodies() -> Vec<Value> {
    ["stripe", "more", "stripe_intents"]
        .into_iter()
        .flat_map(files)
        .map(|file| std::fs::read(file).expect("a fixture"))
        .map(|body| serde_json::from_slice(&body).expect("JSON"))
        .collect()
}

/// What Stripe sends as an id, and as the object itself where somebody asked for that.
fn expand(value: &mut Value, expanded: &mut usize) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let is_expandable = matches!(
                    name.as_str(),
                    "customer" | "subscription" | "charge" | "payment_intent" | "invoice"
                );
                match value {
                    Value::String(id) if is_expandable => {
                        *value = json!({ "id": id, "object": name });
                        *expanded += 1;
                    }
                    value => expand(value, expanded),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| expand(value, expanded)),
        _ => {}
    }
}

#[test]
fn expanded_objects_are_read_as_their_ids_and_the_api_version_is_not_looked_at() {
    let mut endpoint = endpoint("stripe", true);
    endpoint.collects_by = CollectsBy::PaymentIntents;
    let found = provider::find("stripe").expect("a provider");
    let translate = |body: &Value| {
        let body = body.to_string();
        found.translate(&endpoint, &HeaderMap::new(), body.as_bytes())
    };
    let mut expanded = 0;
    for mut body in stripe_bodies() {
        let as_recorded = translate(&body);
        assert!(as_recorded.is_ok());
        if let Some(version) = body.get_mut("api_version") {
            *version = Value::Null;
        }
        assert_eq!(translate(&body), as_recorded);
        body["api_version"] = json!("2099-01-01.zinnia");
        if let Some(object) = body.pointer_mut("/data/object") {
            expand(object, &mut expanded);
        }
        assert_eq!(translate(&body), as_recorded, "{body}");
    }
    assert!(expanded > 100, "{expanded}");
}

#[test]
fn amounts_of_any_size_pass_as_they_are_and_unknown_words_do_not_fail() {
    let mut body: Value =
        serde_json::from_slice(&fixture("stripe/d1_new_invoice.payment_failed.json"))
            .expect("JSON");
    let large = 9_007_199_254_740_993_i64;
    let object = &mut body["data"]["object"];
    object["amount_remaining"] = json!(large);
    object["currency"] = json!("jpy");
    object["status"] = json!("something_new");
    object["billing_reason"] = json!({ "something": "new" });
    let event = one(&body);
    assert_eq!(event.amount_minor, Some(large));
    assert_eq!(event.currency.as_deref(), Some("JPY"));

    // What cannot be is left out: the debt counts all the same.
    let object = &mut body["data"]["object"];
    object["amount_remaining"] = json!(-1);
    object["currency"] = json!("usdcoin");
    object["next_payment_attempt"] = json!(i64::MAX);
    let event = one(&body);
    assert_eq!(event.kind, "payment_failed");
    assert_eq!(event.amount_minor, Some(4250), "what is due");
    assert_eq!((event.currency, event.next_attempt_at), (None, None));
}
