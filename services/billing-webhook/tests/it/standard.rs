//! Standard Webhooks: what senders may leave out, leave empty or add, and what is too much.

use axum::http::HeaderMap;
use billing_webhook::provider::{self, Refusal, Translated};
use contracts::billing::v1::BillingEvent;
use serde_json::{Value, json};

use crate::fixtures::{endpoint, only, translated};

fn translate(body: &Value) -> Result<Vec<Translated>, Refusal> {
    translated("standard", body)
}

fn one(body: &Value) -> BillingEvent {
    only(translate(body))
}

#[test]
fn what_a_standard_sender_leaves_empty_or_adds_does_not_matter() {
    let event = one(
        &json!({ "eventId": "e1", "kind": "payment_failed", "occurredAt": "2026-10-01T07:00:07+02:00",
            "provider": null, "account": "acct_theirs", "invoiceId": "in_1", "payment_id": "",
            "amount_minor": "5900", "amountDueMinor": 5900, "attemptCount": 1, "currency": "eur",
            "nextAttemptAt": null, "reason": "", "paymentUrl": "https://pay.example.com/i/1",
            "metadata": { "gymflow_membership_id": "ms_1", "note": "of no use here" },
            "type": "payment.failed", "timestamp": "2026-10-01T05:00:07Z", "data": { "a": [1] } }),
    );
    let expected = BillingEvent {
        event_id: "e1".into(),
        provider: "standard".into(),
        account: "acct_endpoint".into(),
        kind: "payment_failed".into(),
        occurred_at: Some(contracts::wire::timestamp(
            "2026-10-01T05:00:07Z".parse().expect("a time"),
        )),
        invoice_id: Some("in_1".into()),
        amount_minor: Some(5900),
        amount_due_minor: Some(5900),
        attempt_count: Some(1),
        currency: Some("EUR".into()),
        payment_url: Some("https://pay.example.com/i/1".into()),
        metadata: [("gymflow_membership_id".into(), "ms_1".into())].into(),
        ..Default::default()
    };
    assert_eq!(event, expected);
}

#[test]
fn the_id_of_a_standard_message_names_an_event_that_has_none() {
    let found = provider::find("standard").expect("a provider");
    let endpoint = endpoint("standard", true);
    let id = |message_id: &str, event_id: Value| {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", message_id.parse().expect("a header"));
        let body = json!({ "eventId": event_id, "kind": "payment_failed",
            "occurredAt": "2026-10-01T05:00:07Z", "invoiceId": "in_1" });
        let translated = found.translate(&endpoint, &headers, body.to_string().as_bytes());
        translated.map(|mut one| one.remove(0).event.expect("an event").event_id)
    };
    let odd = "an:odd/one".repeat(10);
    assert_eq!(id("msg_1", json!("e1")), Ok("e1".into()));
    assert_eq!(id("msg_1", json!("")), Ok("msg_1".into()));
    assert_eq!(id("msg_1", json!(null)), Ok("msg_1".into()));
    assert_eq!(id(&odd, json!("e1")), Ok("e1".into()));
    assert!(id(&odd, json!("")).is_err());
}

#[test]
fn a_standard_event_that_the_bus_would_never_take_is_refused() {
    let good = || {
        json!({ "eventId": "e1", "kind": "payment_failed", "occurredAt": "2026-10-01T05:00:07Z",
            "invoiceId": "in_1", "metadata": {} })
    };
    assert!(translate(&good()).is_ok());
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = good();
        change(&mut body);
        translate(&body).expect_err("too much").to_string()
    };
    let many: serde_json::Map<_, _> = (0..51)
        .map(|n| (format!("gymflow_{n}"), json!("x")))
        .collect();
    let refused = [
        with(&|body| body["metadata"] = json!(many)),
        with(&|body| body["metadata"] = json!({ "gymflow_x": "x".repeat(513) })),
        with(&|body| body["metadata"] = json!({ format!("gymflow_{}", "x".repeat(60)): "x" })),
    ];
    assert!(
        refused
            .iter()
            .all(|why| why.contains("`metadata` must have at most")),
        "{refused:?}"
    );
    let long = with(&|body| body["reason"] = json!("x".repeat(257)));
    assert!(long.contains("`reason` must have at most"), "{long}");
}

#[test]
fn an_event_that_says_nothing_of_what_it_is_about_is_told_what_is_missing() {
    let told = |kind: &str, more: Value| {
        let mut body = json!({ "eventId": "e1", "kind": kind, "occurredAt": "2026-10-01T05:00:07Z",
            "metadata": { "gymflow_membership_id": "ms_1" } });
        let fields = body.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        translate(&body).map(|_| ())
    };
    for (kind, more, missing) in [
        (
            "payment_failed",
            json!({ "customerId": "cus_1" }),
            "`invoice_id`",
        ),
        ("payment_succeeded", json!({}), "`payment_id`"),
        (
            "invoice_forgiven",
            json!({ "mandateId": "m_1" }),
            "`subscription_id`",
        ),
        (
            "subscription_paused",
            json!({ "customerId": "cus_1" }),
            "`subscription_id`",
        ),
        (
            "mandate_failed",
            json!({ "invoiceId": "in_1" }),
            "`mandate_id`",
        ),
    ] {
        match told(kind, more) {
            Err(Refusal::Body(message)) => {
                assert!(
                    message.contains(missing) && message.contains(kind),
                    "{message}"
                );
            }
            other => panic!("{kind}: {other:?}"),
        }
    }
    for (kind, more) in [
        ("payment_failed", json!({ "subscriptionId": "sub_1" })),
        ("payment_reversed", json!({ "paymentId": "pay_1" })),
        (
            "subscription_cancelled",
            json!({ "subscriptionId": "sub_1" }),
        ),
        (
            "subscription_changed",
            json!({ "mandateId": "m_1", "newMandateId": "m_2" }),
        ),
        ("mandate_failed", json!({ "customerId": "cus_1" })),
    ] {
        told(kind, more).unwrap_or_else(|refusal| panic!("{kind}: {refusal:?}"));
    }
}
