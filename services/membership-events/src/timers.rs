//! What time alone changes: a membership starts, a pause ends, a grace runs out.
//!
//! The timers are the column `members.changes_at`, so they are as durable as the decision they
//! belong to. One task sleeps until the earliest one, is woken when an earlier one is stored, and
//! looks once a second in any case (another replica may have stored one). Firing is deciding again
//! under the member's lock: of two replicas the second finds nothing left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use access_domain::ids::{GymId, MemberId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::decide::CauseOf;
use crate::error::Error;
use crate::store::{self, from_micros};
use crate::unit::Decisions;

/// Timers that fired.
pub const FIRED: &str = "membership_events_timers_fired_total";

/// A lone timer fires within this of its instant even if nobody woke the task.
const LOOK: Duration = Duration::from_secs(1);
/// Members per transaction: other writers get their turn in between.
const AT_ONCE: u64 = 50;
/// After a failure, and between rounds that changed nothing.
const PAUSE: Duration = Duration::from_millis(250);

/// Wakes the timers' task. Clones wake the same one.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// A timer was stored that may be the earliest.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// Fires timers until `shutdown`.
pub async fn run(decisions: Decisions, wake: Wake, shutdown: CancellationToken) {
    loop {
        let wait = match fire_due(&decisions).await {
            Ok(wait) => wait,
            Err(error) => {
                error!(
                    "Timers could not fire: {}",
                    service_runtime::lifecycle::chain(&error)
                );
                PAUSE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = wake.0.notified() => {}
        }
    }
}

/// Fires one batch of what is due, and answers how long to wait for the next.
async fn fire_due(decisions: &Decisions) -> Result<Duration, Error> {
    let store = decisions.store();
    let now = decisions.now();
    let due = store::members::list_due(store.reads(), now, AT_ONCE).await?;
    if due.is_empty() {
        let next = store::members::next_change(store.reads()).await?;
        return Ok(next.map_or(LOOK, |at| {
            let left = from_micros(at).duration_since(decisions.now());
            Duration::try_from(left).unwrap_or(Duration::ZERO).min(LOOK)
        }));
    }
    let mut by_gym: BTreeMap<GymId, BTreeSet<MemberId>> = BTreeMap::new();
    for (gym, member) in due {
        let (Ok(gym), Ok(member)) = (GymId::parse(&gym), MemberId::parse(&member)) else {
            return Err(store::StoreError::Nonsense {
                table: "members",
                column: "member_id",
                row: format!("{gym}/{member}"),
            }
            .into());
        };
        by_gym.entry(gym).or_default().insert(member);
    }
    let mut changed = 0;
    for (gym, members) in by_gym {
        changed += fire(decisions, &gym, &members).await?;
    }
    metrics::counter!(FIRED).increment(changed as u64);
    Ok(if changed == 0 { PAUSE } else { Duration::ZERO })
}

/// Decides again about `members`; how many decisions changed.
async fn fire(
    decisions: &Decisions,
    gym: &GymId,
    members: &BTreeSet<MemberId>,
) -> Result<usize, Error> {
    decisions
        .retrying(|| async {
            let mut unit = decisions.begin(CauseOf::Timer).await?;
            unit.decide(gym, members).await?;
            let changed = unit.changed();
            unit.commit().await?;
            Ok(changed)
        })
        .await
}
