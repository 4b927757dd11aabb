//! Recorded bodies, bent in every single place: nothing panics, and whatever leaves is understood by
//! its readers.

use axum::http::HeaderMap;
use billing_webhook::endpoints::CollectsBy;
use billing_webhook::provider;
use contracts::message::BusMessage;
use serde_json::{Value, json};

use crate::fixtures::{endpoint, files};

/// The place of every value in `value`, as JSON pointers.
fn places(value: &Value, at: &str, places: &mut Vec<String>) {
    places.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                self::places(value, &format!("{at}/{name}"), places);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                self::places(value, &format!("{at}/{index}"), places);
            }
        }
        _ => {}
    }
}

#[test]
fn a_body_bent_in_any_place_is_refused_or_becomes_what_readers_understand() {
    let bent = [
        json!(null),
        json!(""),
        json!("a b>"),
        json!(-1),
        json!(i64::MAX),
        json!([{}]),
        json!({ "id": "x" }),
    ];
    let (mut published, mut refused, mut not_for_us) = (0, 0, 0);
    for (provider, folder) in [
        ("stripe", "stripe"),
        ("stripe", "stripe_intents"),
        ("gocardless", "gocardless"),
        ("gocardless", "gocardless_more"),
        ("standard", "standard"),
    ] {
        let found = provider::find(provider).expect("a provider");
        let mut endpoint = endpoint(provider, true);
        endpoint.collects_by = CollectsBy::PaymentIntents;
        for file in files(folder) {
            let body = std::fs::read(file).expect("a fixture");
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            let mut all = Vec::new();
            places(&body, "", &mut all);
            for place in all {
                for value in &bent {
                    let mut body = body.clone();
                    *body.pointer_mut(&place).expect("a place") = value.clone();
                    let bytes = body.to_string();
                    let Ok(events) =
                        found.translate(&endpoint, &HeaderMap::new(), bytes.as_bytes())
                    else {
                        refused += 1;
                        continue;
                    };
                    for event in events {
                        let Some(event) = event.event else {
                            not_for_us += 1;
                            continue;
                        };
                        published += 1;
                        let fact = contracts::wire::fact(&event);
                        assert!(fact.is_ok(), "{fact:?}: {place} {value}");
                        assert!(
                            !event.subject().contains(['>', '*', ' ']),
                            "{place} {value}"
                        );
                    }
                }
            }
        }
    }
    // All three happen, and often.
    assert!(
        published.min(refused).min(not_for_us) > 500,
        "{published} {refused} {not_for_us}"
    );
}
