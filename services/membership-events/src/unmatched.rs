//! Billing events that no membership claims: how many, how old, and who has to be told.
//!
//! One that waits for a moment is ordinary: its membership is on its way. One that waits for long
//! is a payment, or a failed one, that nobody counts. `ListUnmatchedBilling` names them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::store::{self, StoreError};
use crate::unit::Decisions;

/// How many wait.
pub const COUNT: &str = "membership_events_unmatched_billing_events";
/// How long the oldest has waited.
pub const AGE: &str = "membership_events_unmatched_billing_age_seconds";

/// Between two looks.
const EVERY: Duration = Duration::from_secs(30);
/// Between two log lines that say the same.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unmatched {
    /// How many.
    pub count: u64,
    /// Age of the oldest; zero when none waits.
    pub age: SignedDuration,
}

/// Looks until `shutdown`, and says so when the oldest is older than `after`.
pub async fn run(decisions: Decisions, after: Duration, shutdown: CancellationToken) {
    let after = SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX);
    let mut told: Option<Timestamp> = None;
    loop {
        let now = decisions.now();
        match look(decisions.store(), now).await {
            Ok(unmatched) => {
                let recently = told.is_some_and(|told| now.duration_since(told) < AGAIN_AFTER);
                match sentence(unmatched, after) {
                    Some(sentence) if !recently => {
                        warn!(unmatched.count = unmatched.count, "{sentence}");
                        told = Some(now);
                    }
                    Some(_) => {}
                    None => told = None,
                }
            }
            Err(error) => error!(
                "Unmatched billing events could not be counted: {}",
                service_runtime::lifecycle::chain(&error)
            ),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Counts what waits, for the gauges too.
pub async fn look(store: &store::Store, now: Timestamp) -> Result<Unmatched, StoreError> {
    let (count, oldest) = store::billing::count_parked(store.reads()).await?;
    let age = oldest.map_or(SignedDuration::ZERO, |oldest| now.duration_since(oldest));
    metrics::gauge!(COUNT).set(count as f64);
    metrics::gauge!(AGE).set(age.as_secs_f64());
    Ok(Unmatched { count, age })
}

/// What a person should read of it, if anything.
pub fn sentence(unmatched: Unmatched, after: SignedDuration) -> Option<String> {
    (unmatched.count > 0 && unmatched.age > after).then(|| {
        format!(
            "{} billing events wait for a membership, the oldest for {} minutes: \
             ListUnmatchedBilling names them, PutMembership or LinkBilling gives them one",
            unmatched.count,
            unmatched.age.as_mins()
        )
    })
}
