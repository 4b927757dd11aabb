//! How long past decisions are kept: 13 months, and of each member the one that held then.
//!
//! A row goes when a newer one of the same member has grown older than that, so the walk is along
//! the rows that pass the line, each looked at once; what holds about somebody is never removed.
//! Several replicas may walk at once: they remove the same rows.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use service_runtime::clock::Clock;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::store::history::{self, Place};
use crate::store::{Store, StoreError, micros};

/// Old decisions that were removed.
pub const PRUNED: &str = "membership_events_decisions_pruned_total";

/// Between walks.
const EVERY: Duration = Duration::from_secs(3600);
/// Between two batches: others want the database too.
const PAUSE: Duration = Duration::from_millis(50);
/// Rows looked at in one batch.
const AT_ONCE: usize = 200;

/// Since when decisions are kept: 13 months before `now`, by the calendar in UTC.
pub fn kept_since(now: Timestamp) -> Timestamp {
    now.to_zoned_datetime(TimeZone::UTC)
        .checked_sub(13.months())
        .map_or(Timestamp::MIN, |then| then.timestamp())
}

/// Removes what is too old, at start and then every hour, until `shutdown`.
pub async fn run(store: Store, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    let walking = async {
        let mut passed = None;
        loop {
            if let Err(error) = prune(&store, kept_since(clock.now()), &mut passed).await {
                error!(
                    "Old decisions could not be removed: {}",
                    service_runtime::lifecycle::chain(&error)
                );
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    shutdown.run_until_cancelled(walking).await;
}

/// Removes what was replaced by `line`. `passed` is how far an earlier walk came.
pub async fn prune(
    store: &Store,
    line: Timestamp,
    passed: &mut Option<Place>,
) -> Result<(), StoreError> {
    loop {
        let db = store.reads();
        let batch = history::list_places(db, passed.as_ref(), micros(line), AT_ONCE).await?;
        let removed = history::remove_replaced(db, &batch).await?;
        metrics::counter!(PRUNED).increment(removed);
        let is_last = batch.len() < AT_ONCE;
        if let Some(last) = batch.into_iter().next_back() {
            *passed = Some(last);
        }
        if is_last {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirteen_months_are_counted_by_the_calendar() {
        for (now, since) in [
            ("2026-03-10T12:00:00Z", "2025-02-10T12:00:00Z"),
            // February has no 30th.
            ("2026-03-30T12:00:00Z", "2025-02-28T12:00:00Z"),
        ] {
            let now = now.parse().expect("an instant");
            assert_eq!(kept_since(now).to_string(), since);
        }
    }
}
