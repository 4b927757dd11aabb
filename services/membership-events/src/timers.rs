//! What time alone changes: a membership starts, a pause ends, a grace runs out.
//!
//! The timers are the column `members.changes_at`, so they are as durable as the decision they
//! belong to. One task sleeps until the earliest one, is woken when an earlier one is stored, and
//! looks once a second in any case (another replica may have stored one, the clock may have been
//! set). Firing is deciding again under the member's lock: of two replicas the second finds nothing
//! left to do.
//!
//! What many memberships do at one midnight stands back behind live events: it is done in small
//! transactions, each gym one in its turn, and the next one only when few messages are on their
//! way.
//!
//! A clock that is put back leaves decisions that were made too early. They are made again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::cause::CauseOf;
use crate::error::Error;
use crate::store::keys::{GymKey, MemberKey};
use crate::store::timers::{self, Person};
use crate::store::{StoreError, from_micros, micros};
use crate::unit::Decisions;

/// Timers that fired.
pub const FIRED: &str = "membership_events_timers_fired_total";

/// A lone timer fires within this of its instant even if nobody woke the task.
const LOOK: Duration = Duration::from_secs(1);
/// Members per transaction: other writers get their turn in between.
const AT_ONCE: usize = 50;
/// After a failure, and between rounds that changed nothing.
const PAUSE: Duration = Duration::from_millis(250);
/// How long others go before one whose rows make no sense.
const PASS_OVER: Duration = Duration::from_secs(30);
/// What was under way when the clock was put back is committed after this at the latest.
const UNDER_WAY: Duration = Duration::from_secs(5);

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
    let mut timers = Timers {
        decisions,
        wake: wake.clone(),
        shutdown: shutdown.clone(),
        passed_over: PassedOver::new(),
        looked_at: None,
        doubt_until: None,
    };
    while !shutdown.is_cancelled() {
        let wait = match timers.round().await {
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
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
            () = wake.notify.notified() => {}
        }
    }
}

/// Members whose timer cannot fire, because a row of theirs makes no sense: until when others go
/// first.
type PassedOver = BTreeMap<(GymKey, MemberKey), Timestamp>;

struct Timers {
    decisions: Decisions,
    wake: Wake,
    shutdown: CancellationToken,
    passed_over: PassedOver,
    /// When it last looked, by the clock that may be set.
    looked_at: Option<Timestamp>,
    /// Until when something that was begun before the clock was put back may still be committed.
    doubt_until: Option<Instant>,
}

impl Timers {
    /// One round: of each gym with something due, one batch. Answers how long to wait for the next.
    async fn round(&mut self) -> Result<Duration, Error> {
        // Whatever is stored from here on is looked for again, or wakes us.
        self.wake.next.store(i64::MAX, Ordering::Relaxed);
        let now = self.decisions.now();
        self.undo_what_came_too_early(now).await?;
        self.passed_over.retain(|_, until| *until > now);
        let store = self.decisions.store().clone();
        let earliest = timers::next_after(store.reads(), Timestamp::MIN).await?;
        let gyms = match earliest {
            Some(at) if from_micros(at) <= now => timers::list_gyms(store.reads(), now).await?,
            _ => Vec::new(),
        };
        let (mut changed, mut due) = (0, false);
        for gym in gyms {
            if !self.stand_back().await {
                break;
            }
            let fired = self.fire_batch(&gym).await?;
            due |= fired.is_some();
            changed += fired.unwrap_or(0);
        }
        metrics::counter!(FIRED).increment(changed as u64);
        if due {
            return Ok(if changed == 0 { PAUSE } else { Duration::ZERO });
        }
        let Some(next) = timers::next_after(store.reads(), now).await? else {
            return Ok(LOOK);
        };
        self.wake.next.store(next, Ordering::Relaxed);
        let left = from_micros(next).duration_since(self.decisions.now());
        Ok(Duration::try_from(left).unwrap_or(Duration::ZERO).min(LOOK))
    }

    /// Waits until few messages are on their way; false when the process is to end.
    async fn stand_back(&self) -> bool {
        let wait = self.decisions.stand_back();
        self.shutdown.run_until_cancelled(wait).await.is_some()
    }

    /// Fires up to [`AT_ONCE`] of a gym's due timers: how many decisions changed, none where somebody
    /// else has them locked and may not fire them; `None` where all that are due are passed over.
    async fn fire_batch(&mut self, gym: &GymKey) -> Result<Option<usize>, Error> {
        let passed: BTreeSet<MemberKey> = self
            .passed_over
            .keys()
            .filter(|(of, _)| of == gym)
            .map(|(_, member)| member.clone())
            .collect();
        match claim_and_fire(&self.decisions, gym, &passed).await {
            Err(error) if spoils_one(&error) => {}
            Ok(None) if passed.is_empty() => return Ok(Some(0)),
            done => return done,
        }
        let now = self.decisions.now();
        let db = self.decisions.store().reads();
        let mut due = timers::list_due(db, gym, now, AT_ONCE + passed.len()).await?;
        due.retain(|member| !passed.contains(member));
        self.decide_each(gym, due).await.map(Some)
    }

    /// Decides again about each alone, and passes over whom it fails for; how many changed.
    async fn decide_each(&mut self, gym: &GymKey, members: Vec<MemberKey>) -> Result<usize, Error> {
        let until = self.decisions.now().saturating_add(PASS_OVER);
        let until = until.unwrap_or(Timestamp::MAX);
        let mut changed = 0;
        for member in members {
            match decide(&self.decisions, gym, [member.clone()].into()).await {
                Ok(fired) => changed += fired,
                Err(error) if spoils_one(&error) => {
                    error!(
                        gym.id = %gym, member.id = %member,
                        "The timer of member {member} of gym {gym} could not fire: {}",
                        service_runtime::lifecycle::chain(&error)
                    );
                    self.passed_over.insert((gym.clone(), member), until);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(changed)
    }

    /// Where the clock was put back, by more than a timer may be late, decides again about everybody
    /// about whom what holds was decided later than `now`. So also at start: it may have been put
    /// back while nobody looked.
    async fn undo_what_came_too_early(&mut self, now: Timestamp) -> Result<(), Error> {
        let soon = now.saturating_add(LOOK).unwrap_or(Timestamp::MAX);
        let is_put_back = self.looked_at.is_some_and(|was| soon < was);
        if is_put_back {
            warn!("The clock was put back to {now}");
            self.doubt_until = Some(Instant::now() + UNDER_WAY);
        }
        if self.looked_at.is_none() || self.doubt_until.is_some() {
            self.decide_again(now).await?;
        }
        self.doubt_until = self.doubt_until.filter(|until| *until > Instant::now());
        self.looked_at = Some(now);
        Ok(())
    }

    async fn decide_again(&mut self, now: Timestamp) -> Result<(), Error> {
        let mut last: Option<Person> = None;
        loop {
            let db = self.decisions.store().reads();
            let people = timers::list_decided_later(db, now, last.as_ref(), AT_ONCE).await?;
            let Some(end) = people.last() else {
                return Ok(());
            };
            last = Some(end.clone());
            let mut by_gym: BTreeMap<GymKey, Vec<MemberKey>> = BTreeMap::new();
            for person in people {
                let members = by_gym.entry(person.gym_id).or_default();
                members.push(person.member_id);
            }
            for (gym, members) in by_gym {
                if !self.stand_back().await {
                    return Ok(());
                }
                match decide(&self.decisions, &gym, members.iter().cloned().collect()).await {
                    Ok(_) => {}
                    Err(error) if spoils_one(&error) => {
                        self.decide_each(&gym, members).await?;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

/// Whether others may do better; where the database is down nobody does.
fn spoils_one(error: &Error) -> bool {
    !matches!(error, Error::Store(StoreError::Database { .. }))
}

/// Claims some of a gym's due timers and decides about their members: how many decisions changed;
/// `None` where there was none to claim.
async fn claim_and_fire(
    decisions: &Decisions,
    gym: &GymKey,
    passed: &BTreeSet<MemberKey>,
) -> Result<Option<usize>, Error> {
    decisions
        .retrying(|| async {
            let mut unit = decisions.begin(CauseOf::Timer).await?;
            let limit = AT_ONCE + passed.len();
            let due = timers::claim(unit.db(), gym, unit.now(), limit).await?;
            let members: BTreeSet<_> = due
                .into_iter()
                .filter(|member| !passed.contains(member))
                .map(|member| member.0)
                .collect();
            unit.decide(gym, &members).await?;
            let changed = unit.changed();
            unit.commit().await?;
            Ok((!members.is_empty()).then_some(changed))
        })
        .await
}

/// Decides again about `members`; how many decisions changed.
async fn decide(
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
