//! What no recorded body shows: types and shapes that must not matter, headers that must, and the
//! endpoint's word against the body's.

use axum::http::HeaderMap;
use billing_webhook::endpoints::CollectsBy;
use billing_webhook::provider::{self, Refusal, Translated};
use contracts::billing::v1::BillingEvent;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::fixtures::{endpoint, files};
use crate::harness::{fixture, signed};

fn translate(provider: &str, body: &Value) -> Result<Vec<Translated>, Refusal> {
    let found = provider::find(provider).expect("a provider");
    let body = body.to_string();
    found.translate(
        &endpoint(provider, true),
        &HeaderMap::new(),
        body.as_bytes(),
    )
}

fn one(provider: &str, body: &Value) -> BillingEvent {
    let mut translated = translate(provider, body).expect("a body");
    assert_eq!(translated.len(), 1);
    translated.remove(0).event.expect("an event for us")
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
            let translated = translate("stripe", &body).expect(event_type);
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
    let event = one("stripe", &body);
    assert_eq!(event.amount_minor, Some(large));
    assert_eq!(event.currency.as_deref(), Some("JPY"));

    // What cannot be is left out: the debt counts all the same.
    let object = &mut body["data"]["object"];
    object["amount_remaining"] = json!(-1);
    object["currency"] = json!("usdcoin");
    object["next_payment_attempt"] = json!(i64::MAX);
    let event = one("stripe", &body);
    assert_eq!(event.kind, "payment_failed");
    assert_eq!(event.amount_minor, Some(4250), "what is due");
    assert_eq!((event.currency, event.next_attempt_at), (None, None));
}

#[test]
fn a_header_of_the_signature_that_stands_twice_is_refused() {
    let at = 1_791_608_403;
    let now = Timestamp::from_second(at).expect("an instant");
    for (provider, name, value) in [
        ("stripe", "stripe-signature", signed("secret", b"{}", at)),
        (
            "gocardless",
            "webhook-signature",
            "77325902caca812dc259733aacd046b73817372c777b8d95b402647474516e13".to_owned(),
        ),
    ] {
        let found = provider::find(provider).expect("a provider");
        let mut endpoint = endpoint(provider, true);
        endpoint.secrets = vec![SecretString::from("secret")];
        let mut headers = HeaderMap::new();
        let check = |headers: &HeaderMap| found.verify(&endpoint, headers, b"{}", now);
        assert!(matches!(check(&headers), Err(Refusal::Signature(_))));
        headers.append(name, value.parse().expect("a header"));
        assert_eq!(check(&headers), Ok(()), "{provider}");
        headers.append(name, value.parse().expect("a header"));
        assert!(matches!(check(&headers), Err(Refusal::Signature(_))));
    }
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
    assert_eq!(
        one("gocardless", &good()).payment_id.as_deref(),
        Some("PM1")
    );
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
        let refusal = translate("gocardless", &body).expect_err(expected);
        assert!(matches!(refusal, Refusal::Body(_)));
        assert!(
            refusal.to_string().contains(expected),
            "{expected}: {refusal}"
        );
    }
    assert_eq!(
        translate("gocardless", &json!({ "events": [] })),
        Ok(vec![])
    );
}

#[test]
fn what_a_standard_sender_leaves_empty_or_adds_does_not_matter() {
    let event = one(
        "standard",
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
    assert!(translate("standard", &good()).is_ok());
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = good();
        change(&mut body);
        translate("standard", &body)
            .expect_err("too much")
            .to_string()
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
