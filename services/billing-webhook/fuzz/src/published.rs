//! What comes out of a body: it can be published, and whoever reads it finds what was meant.

use axum::http::HeaderMap;
use billing_webhook::checked;
use billing_webhook::endpoints::Endpoint;
use billing_webhook::provider::{Provider, Refusal, Translated};
use contracts::billing::v1::BillingEvent;
use contracts::message::BusMessage;
use contracts::wire;

use super::said;

/// Every kind that a billing event can have.
const KINDS: [&str; 10] = [
    "payment_failed",
    "payment_succeeded",
    "invoice_forgiven",
    "payment_refunded",
    "payment_reversed",
    "subscription_paused",
    "subscription_resumed",
    "subscription_cancelled",
    "subscription_changed",
    "mandate_failed",
];

/// Well below the largest message that the bus takes.
const LARGEST: usize = 256 * 1024;

/// What the body becomes at the endpoint: twice the same, and each event fit to be published.
pub fn translated(
    (provider, endpoint): (&dyn Provider, &Endpoint),
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Vec<Translated>, Refusal> {
    let outcome = provider.translate(endpoint, headers, body);
    let again = provider.translate(endpoint, headers, body);
    assert_eq!(outcome, again, "the same bytes mean the same");
    match &outcome {
        Ok(all) => {
            for event in all.iter().filter_map(|one| one.event.as_ref()) {
                assert_eq!(event.provider, provider.name());
                assert!(endpoint.takes_account(&event.account), "{event:?}");
                fit(event);
            }
        }
        Err(refusal) => said::of_a_body(refusal, body),
    }
    outcome
}

/// Whether the event can be published and read.
pub fn fit(event: &BillingEvent) {
    assert!(KINDS.contains(&event.kind.as_str()), "{event:?}");
    for id in [&event.provider, &event.account, &event.event_id] {
        assert!(is_id(id), "{event:?}");
    }
    let about = [
        &event.invoice_id,
        &event.payment_id,
        &event.subscription_id,
        &event.mandate_id,
        &event.customer_id,
    ];
    let ids = about.into_iter().chain([&event.new_mandate_id]);
    assert!(ids.flatten().all(|id| is_id(id)), "{event:?}");
    let names_something = about.into_iter().any(Option::is_some)
        || event.metadata.contains_key("gymflow_membership_id");
    assert!(names_something, "{event:?}");
    for amount in [event.amount_minor, event.amount_due_minor] {
        assert!(amount.is_none_or(|amount| amount >= 0), "{event:?}");
    }
    if let Some(currency) = &event.currency {
        let is_code = currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_uppercase());
        assert!(is_code, "{event:?}");
    }
    if let Some(link) = &event.payment_url {
        let scheme = link.get(..8).map(str::to_ascii_lowercase);
        assert_eq!(scheme.as_deref(), Some("https://"), "{event:?}");
        assert!(
            !link.contains(|c: char| c.is_control() || c.is_whitespace()),
            "{event:?}"
        );
    }
    assert!(
        event
            .reason
            .as_ref()
            .is_none_or(|reason| !reason.is_empty()),
        "{event:?}"
    );
    assert!(
        event.metadata.keys().all(|key| key.starts_with("gymflow_")),
        "{event:?}"
    );
    on_the_bus(event);
}

/// Its address, its id and its bytes; and what its reader makes of it.
fn on_the_bus(event: &BillingEvent) {
    let subject = event.subject();
    let tokens: Vec<_> = subject.split('.').collect();
    assert_eq!(tokens.len(), 5, "{subject}");
    assert!(tokens.iter().all(|token| is_id(token)), "{subject}");
    for header in [event.id(), event.about()] {
        assert!(header.split('/').all(is_id), "{header}");
    }
    let bytes = serde_json::to_vec(event).expect("JSON");
    assert!(bytes.len() <= LARGEST, "{} bytes", bytes.len());
    let read: BillingEvent = serde_json::from_slice(&bytes).expect("the event again");
    assert_eq!(read, *event, "another event arrives");
    let fact = wire::fact(event).expect("a fact");
    assert_eq!(fact.kind.as_str(), event.kind);
    checked::event(event).expect("what was checked");
}

fn is_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_plain)
}
