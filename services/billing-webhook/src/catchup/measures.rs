//! What catching up counts.

use service_runtime::metrics::install;

use crate::provider::PROVIDERS;

/// Runs over one account of one endpoint, by provider and outcome.
pub const RUNS: &str = "billing_webhook_catchup_runs_total";
/// Runs that failed, by provider and cause.
pub const FAILURES: &str = "billing_webhook_catchup_failures_total";
/// Events that were listed, by provider and what became of them.
pub const EVENTS: &str = "billing_webhook_catchup_events_total";
/// Requests to providers' APIs.
pub const REQUESTS: &str = "billing_webhook_catchup_requests_total";
/// 1 for an endpoint that has been silent for longer than is usual for it.
pub const SILENT: &str = "billing_webhook_endpoint_silent";
/// For how long an endpoint has heard nothing.
pub const SILENCE: &str = "billing_webhook_endpoint_silence_seconds";

/// What can become of a listed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Became {
    /// It had been missing and is on disk now.
    Published,
    /// It was on `BILLING` already.
    Known,
    NotForUs,
    /// It is not what the provider sends.
    Refused,
}

impl Became {
    const ALL: [Self; 4] = [Self::Published, Self::Known, Self::NotForUs, Self::Refused];

    /// The word in the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Known => "known",
            Self::NotForUs => "not_for_us",
            Self::Refused => "refused",
        }
    }
}

const CAUSES: [&str; 7] = [
    "unauthorized",
    "rate_limited",
    "unavailable",
    "refused",
    "unreachable",
    "unreadable",
    "bus",
];

/// Registers all of it, at zero.
pub fn register() {
    install();
    metrics::describe_counter!(
        RUNS,
        "Runs of the catch-up over one account of one endpoint, by provider and outcome."
    );
    metrics::describe_counter!(
        FAILURES,
        "Runs of the catch-up that failed, by provider and cause; the next run begins where the last completed one did."
    );
    metrics::describe_counter!(
        EVENTS,
        "Events that a provider's API listed, by what became of them; published ones had been missing."
    );
    metrics::describe_counter!(REQUESTS, "Requests to providers' APIs, by provider.");
    metrics::describe_gauge!(
        SILENT,
        "1 for an endpoint that has been silent for longer than is usual for it."
    );
    metrics::describe_gauge!(
        SILENCE,
        "For how long no genuine post has come to an endpoint, at the last look."
    );
    let listed = PROVIDERS
        .iter()
        .filter(|provider| provider.listing().is_some());
    for provider in listed.map(|provider| provider.name()) {
        for outcome in ["completed", "failed"] {
            metrics::counter!(RUNS, "provider" => provider, "outcome" => outcome).increment(0);
        }
        for cause in CAUSES {
            metrics::counter!(FAILURES, "provider" => provider, "cause" => cause).increment(0);
        }
        for became in Became::ALL {
            count(provider, became, 0);
        }
        metrics::counter!(REQUESTS, "provider" => provider).increment(0);
    }
}

/// Counts listed events.
pub fn count(provider: &'static str, became: Became, events: usize) {
    let outcome = became.as_str();
    metrics::counter!(EVENTS, "provider" => provider, "outcome" => outcome)
        .increment(u64::try_from(events).unwrap_or(u64::MAX));
}

/// Counts a request.
pub fn asked(provider: &'static str) {
    metrics::counter!(REQUESTS, "provider" => provider).increment(1);
}

/// Counts a run that reached its end.
pub fn completed(provider: &'static str) {
    metrics::counter!(RUNS, "provider" => provider, "outcome" => "completed").increment(1);
}

/// Counts a run that did not.
pub fn failed(provider: &'static str, cause: &'static str) {
    metrics::counter!(RUNS, "provider" => provider, "outcome" => "failed").increment(1);
    metrics::counter!(FAILURES, "provider" => provider, "cause" => cause).increment(1);
}
