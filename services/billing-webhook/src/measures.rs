//! What this service counts. Labels come from closed sets, or from sets that stop growing.

use std::collections::BTreeSet;
use std::sync::Mutex;

use access_domain::billing::BillingEventKind;
use service_runtime::metrics::{register_counter_by, register_gauge, register_histogram};

use crate::provider::PROVIDERS;

/// Posts answered, by provider and status.
pub const ANSWERS: &str = "billing_webhook_answers_total";
/// Events, by provider and what they became.
pub const EVENTS: &str = "billing_webhook_events_total";
/// Events that are understood as not for us, by provider and type.
pub const NOT_FOR_US: &str = "billing_webhook_events_not_for_us_total";
/// Reads of a changed endpoints file.
pub const RELOADS: &str = "billing_webhook_endpoints_reloads_total";
/// 1 while the endpoints file cannot be used and older endpoints are in force.
pub const STALE: &str = "billing_webhook_endpoints_stale";
/// Posts turned away, by what there was too much of.
pub const OVERLOADS: &str = "billing_webhook_overloads_total";
/// From a post's last byte to the last ack of its events.
pub const PUBLISH_SECONDS: &str = "billing_webhook_publish_seconds";

/// Answers that are told apart.
const STATUSES: [&str; 10] = [
    "200", "204", "400", "404", "405", "408", "413", "415", "498", "503",
];
/// The provider of a post that names none we know.
pub const NO_PROVIDER: &str = "unknown";
/// How many types of one provider are told apart; the rest is `other`. Stripe has some 250.
const MOST_TYPES: usize = 300;

static TYPES: Mutex<BTreeSet<(&'static str, String)>> = Mutex::new(BTreeSet::new());

/// Registers all of it, at zero.
pub fn register() {
    metrics::describe_counter!(ANSWERS, "Posts answered, by provider and HTTP status.");
    metrics::describe_counter!(EVENTS, "Provider events, by what they became.");
    metrics::describe_counter!(
        NOT_FOR_US,
        "Provider events that are not for us, by the provider's type."
    );
    for provider in PROVIDERS.iter().map(|provider| provider.name()) {
        for status in STATUSES {
            answered_as(provider, status, 0);
        }
        for kind in BillingEventKind::ALL {
            became(provider, kind.as_str(), 0);
        }
        became(provider, "not_for_us", 0);
        metrics::counter!(NOT_FOR_US, "provider" => provider, "type" => "other").increment(0);
    }
    answered_as(NO_PROVIDER, "404", 0);
    register_counter_by(
        RELOADS,
        "Reads of a changed endpoints file.",
        "outcome",
        &["read", "refused"],
    );
    register_gauge(
        STALE,
        "1 while the endpoints file cannot be used and older endpoints are in force.",
    );
    register_counter_by(
        OVERLOADS,
        "Posts turned away because too much was under way: posts in flight, or memory of bodies.",
        "of",
        &["posts", "bodies"],
    );
    register_histogram(
        PUBLISH_SECONDS,
        "From a post's last byte to the last ack of its events.",
    );
}

/// Counts an answer.
pub fn answered(provider: &'static str, status: &str) {
    let known = STATUSES.iter().find(|known| **known == status);
    answered_as(provider, known.copied().unwrap_or("other"), 1);
}

fn answered_as(provider: &'static str, status: &'static str, times: u64) {
    metrics::counter!(ANSWERS, "provider" => provider, "status" => status).increment(times);
}

/// Counts an event by what it became: a word of the closed set of kinds.
pub fn event(provider: &'static str, kind: &str) {
    let kind = kind.parse().map_or("other", BillingEventKind::as_str);
    became(provider, kind, 1);
}

fn became(provider: &'static str, kind: &'static str, times: u64) {
    metrics::counter!(EVENTS, "provider" => provider, "kind" => kind).increment(times);
}

/// Counts an event that is not for us.
pub fn not_for_us(provider: &'static str, event_type: &str) {
    became(provider, "not_for_us", 1);
    let label = type_label(provider, event_type);
    metrics::counter!(NOT_FOR_US, "provider" => provider, "type" => label).increment(1);
}

/// The type as a label and as a word in the log: what does not look like a type, and every new one
/// past the bound, is `other`.
pub fn type_label(provider: &'static str, event_type: &str) -> String {
    let looks_right = event_type.len() <= 64
        && event_type.starts_with(|first: char| first.is_ascii_lowercase())
        && event_type.bytes().all(|byte| {
            byte.is_ascii_lowercase()
                || byte.is_ascii_digit()
                || matches!(byte, b'_' | b'.' | b'[' | b']')
        });
    if !looks_right {
        return "other".to_owned();
    }
    let mut types = TYPES.lock().unwrap_or_else(|held| held.into_inner());
    let entry = (provider, event_type.to_owned());
    if !types.contains(&entry) {
        let of_provider = types.iter().filter(|(owner, _)| *owner == provider).count();
        if of_provider >= MOST_TYPES {
            return "other".to_owned();
        }
        types.insert(entry);
    }
    event_type.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_apart_up_to_a_bound_and_what_is_no_type_never_is() {
        assert_eq!(type_label("first", "invoice.upcoming"), "invoice.upcoming");
        for odd in ["", "https://pay.test/x", "Ann Example", &"a".repeat(65)] {
            assert_eq!(type_label("first", odd), "other", "{odd}");
        }
        for n in 0..2 * MOST_TYPES {
            type_label("first", &format!("type_{n}"));
        }
        assert_eq!(type_label("first", "one.more"), "other");
        assert_eq!(type_label("first", "invoice.upcoming"), "invoice.upcoming");
        assert_eq!(type_label("second", "one.more"), "one.more");
    }
}
