//! What this service counts.

use service_runtime::metrics::{register_counter, register_counter_by, register_histogram};

/// Posts answered, by status.
pub const ANSWERS: &str = "billing_webhook_answers_total";
/// Events by what they became.
pub const EVENTS: &str = "billing_webhook_events_total";
/// Reads of a changed endpoints file.
pub const RELOADS: &str = "billing_webhook_endpoints_reloads_total";
/// Posts turned away because too many were under way.
pub const OVERLOADS: &str = "billing_webhook_overloads_total";
/// From a post's last byte to the last ack of its events.
pub const PUBLISH_SECONDS: &str = "billing_webhook_publish_seconds";

/// Answers that are told apart.
pub const STATUSES: &[&str] = &["200", "400", "404", "405", "408", "413", "415", "503"];

/// Registers all of it, at zero.
pub fn register() {
    register_counter_by(
        ANSWERS,
        "Posts answered, by HTTP status.",
        "status",
        STATUSES,
    );
    let kinds: Vec<&'static str> = access_domain::billing::BillingEventKind::ALL
        .iter()
        .map(|kind| kind.as_str())
        .chain(["not_for_us"])
        .collect();
    register_counter_by(
        EVENTS,
        "Provider events, by what they became.",
        "kind",
        &kinds,
    );
    register_counter_by(
        RELOADS,
        "Reads of a changed endpoints file.",
        "outcome",
        &["read", "refused"],
    );
    register_counter(
        OVERLOADS,
        "Posts turned away because too many were under way.",
    );
    register_histogram(
        PUBLISH_SECONDS,
        "From a post's last byte to the last ack of its events.",
    );
}
