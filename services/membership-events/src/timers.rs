//! What time alone changes: a membership starts, a pause ends, a grace runs out.
//!
//! The timers are the column `members.changes_at`, so they are as durable as the decision they
//! belong to. One task sleeps until the earliest one, is woken when an earlier one is stored, and
//! looks once a second in any case (another replica may have stored one). Firing is deciding again
//! under the member's lock: of two replicas the second finds nothing left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::cause::CauseOf;
use crate::error::Error;
use crate::store::keys::{GymKey, MemberKey};
use crate::store::{self, StoreError, from_micros, micros};
use crate::unit::Decisions;

/// Timers that fired.
pub const FIRED: &str = "membership_events_timers_fired_total";

/// A lone timer fires within this of its instant even if nobody woke the task.
const LOOK: Duration = Duration::from_secs(1);
/// Members per transaction: other writers get their turn in between.
const AT_ONCE: u64 = 50;
/// After a failure, and between rounds that changed nothing.
const PAUSE: Duration = Duration::from_millis(250);
/// How long others go before one whose rows make no sense.
const PASS_OVER: Duration = Duration::from_secs(30);

/// Wakes the timers' task. Clones wake the same one.
#[derive(Debug, Clone)]
pub struct Wake {
    notify: Arc<Notify>,
    /// What the task sleeps for, microseconds.
    next: Arc<AtomicI64>,
}

impl Default for Wake {
    fn default() -> Self {
        Self {
            notify: Arc::default(),
            next: Arc::new(AtomicI64::new(i64::MAX)),
        }
    }
}

impl Wake {
    /// A timer was stored; the task is woken if it is earlier than what it sleeps for.
    pub fn stored(&self, at: Timestamp) {
        if micros(at) < self.next.load(Ordering::Relaxed) {
            self.notify.notify_one();
        }
    }
}

/// Fires timers until `shutdown`.
pub async fn run(decisions: Decisions, wake: Wake, shutdown: CancellationToken) {
    let mut passed_over = PassedOver::new();
    loop {
        let wait = match fire_due(&decisions, &wake, &mut passed_over).await {
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
            () = wake.notify.notified() => {}
        }
    }
}

/// Members whose timer cannot fire, because a row of theirs makes no sense: until when others go
/// first.
type PassedOver = BTreeMap<(GymKey, MemberKey), Timestamp>;

/// Fires one batch of what is due, and answers how long to wait for the next.
async fn fire_due(
    decisions: &Decisions,
    wake: &Wake,
    passed_over: &mut PassedOver,
) -> Result<Duration, Error> {
    let store = decisions.store();
    // Whatever is stored from here on is looked for again, or wakes us.
    wake.next.store(i64::MAX, Ordering::Relaxed);
    let now = decisions.now();
    passed_over.retain(|_, until| *until > now);
    let limit = AT_ONCE + passed_over.len() as u64;
    let mut due = store::members::list_due(store.reads(), now, limit).await?;
    due.retain(|key| !passed_over.contains_key(key));
    if due.is_empty() {
        let next = store::members::next_change_after(store.reads(), now).await?;
        let Some(next) = next else {
            return Ok(LOOK);
        };
        wake.next.store(next, Ordering::Relaxed);
        let left = from_micros(next).duration_since(decisions.now());
        return Ok(Duration::try_from(left).unwrap_or(Duration::ZERO).min(LOOK));
    }
    let mut by_gym: BTreeMap<GymKey, BTreeSet<MemberKey>> = BTreeMap::new();
    for (gym, member) in due {
        by_gym.entry(gym).or_default().insert(member);
    }
    let mut changed = 0;
    for (gym, members) in by_gym {
        match fire(decisions, &gym, members.clone()).await {
            Ok(fired) => changed += fired,
            // Down for all: try again soon.
            Err(error @ Error::Store(StoreError::Database { .. })) => return Err(error),
            Err(error) if members.len() == 1 => {
                pass_over(passed_over, now, gym, members, &error);
            }
            // One of them spoils it for the others: each alone.
            Err(_) => {
                for member in members {
                    match fire(decisions, &gym, [member.clone()].into()).await {
                        Ok(fired) => changed += fired,
                        Err(error) => {
                            pass_over(passed_over, now, gym.clone(), [member].into(), &error);
                        }
                    }
                }
            }
        }
    }
    metrics::counter!(FIRED).increment(changed as u64);
    Ok(if changed == 0 { PAUSE } else { Duration::ZERO })
}

fn pass_over(
    passed_over: &mut PassedOver,
    now: Timestamp,
    gym: GymKey,
    members: BTreeSet<MemberKey>,
    error: &Error,
) {
    error!(
        gym.id = %gym, members = members.len(),
        "{} timers of gym {gym} could not fire: {}", members.len(),
        service_runtime::lifecycle::chain(error)
    );
    let until = now.saturating_add(PASS_OVER).unwrap_or(Timestamp::MAX);
    for member in members {
        passed_over.insert((gym.clone(), member), until);
    }
}

/// Decides again about `members`; how many decisions changed.
async fn fire(
    decisions: &Decisions,
    gym: &GymKey,
    members: BTreeSet<MemberKey>,
) -> Result<usize, Error> {
    let members = &members.into_iter().map(|key| key.0).collect();
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
