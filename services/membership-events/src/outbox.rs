//! The relay: publishes what was committed, in order per member, many members at once.
//!
//! The task that commits hands its rows to [`Relay::submit`], which starts publishing at once; the
//! row in the outbox is the safety net. Rows of which that task is not the one to publish (an older
//! message of the same member is still on its way, a publish failed, a process died) are claimed
//! from the table: on a wake in this process, on NOTIFY from another, and by a slow poll.
//!
//! A replica that has the database and not the bus keeps nothing to itself: as long as the bus does
//! not answer it leaves its rows to the others, and claims none.
//!
//! A member's messages stay in order because a row is only ever published while it is its
//! member's oldest. What is claimed may have been published before, by a process that died since,
//! and newer rows after it; where the stream holds something newer it is not published again, for
//! the server may have forgotten its id by then, and would put the old state last. Acked rows
//! become history in batches a moment later (see [`crate::store::history`]), and are remembered
//! until then.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contracts::membership::v1::MembershipStatusChanged;
use contracts::message::BusMessage;
use event_bus::{Bus, Envelope, GroupPublisher, PublishError, Publisher};
use serde_json::value::RawValue;
use service_runtime::clock::Clock;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::SERVICE;
use crate::store::entity::outbox::Model;
use crate::store::history::{self, Acked};
use crate::store::{self, Step, Store, StoreError, from_micros, micros};

/// How long one publish may take, repeats included.
const PUBLISH: Duration = Duration::from_secs(3);
/// A claim must outlive [`PUBLISH`]; rows of a process that died wait this long.
const CLAIM: Duration = Duration::from_secs(5);
/// The net under wake and notify.
const POLL: Duration = Duration::from_secs(1);
/// Acked rows become history together.
const REMOVE_AFTER: Duration = Duration::from_millis(25);
/// Messages on their way at once.
const IN_FLIGHT: usize = 512;
/// What stands back behind live events waits while more than these are on their way; a server that
/// syncs each publish is no faster for more.
const FEW: usize = 32;
/// How often it looks.
const LOOK: Duration = Duration::from_millis(5);
/// Wait after a failed publish, and between two questions to a bus that does not answer.
const AFTER_FAILURE: Duration = Duration::from_millis(250);
/// How long such a question waits for its answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Outbox rows that wait.
pub const DEPTH: &str = "membership_events_outbox_depth";
/// Age of the oldest outbox row.
pub const AGE: &str = "membership_events_outbox_age_seconds";

/// Publishes rows of the outbox. Clones share one relay.
#[derive(Debug, Clone)]
pub struct Relay {
    bus: Bus,
    publisher: Publisher,
    /// Messages that wait together share a disk flush of the server; a lone one leaves at once.
    groups: GroupPublisher,
    /// For claims: replicas compare them, so a clock that tests move would be wrong here.
    wall: Arc<dyn Clock>,
    wake: Arc<Notify>,
    /// Acked and not yet removed.
    acked: Arc<Mutex<HashSet<i64>>>,
    in_flight: Arc<AtomicUsize>,
    /// The bus does not answer this process, whatever others hear of it.
    cut_off: Arc<AtomicBool>,
    outcomes: mpsc::UnboundedSender<Outcome>,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Acked(Acked),
    Failed(i64),
}

/// Where a row to publish comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// This task's commit: as long as its claim lasts nobody can have published it before.
    Committed,
    /// The table.
    Claimed,
}

/// The relay's own half: what comes back from publishing.
#[derive(Debug)]
pub struct Outcomes(mpsc::UnboundedReceiver<Outcome>);

impl Relay {
    /// A relay; its [`Relay::run`] wants the second half.
    pub fn new(bus: Bus, wall: Arc<dyn Clock>) -> (Self, Outcomes) {
        let (outcomes, received) = mpsc::unbounded_channel();
        let publisher = bus.publisher().with_time_limit(PUBLISH);
        let relay = Self {
            bus,
            groups: GroupPublisher::new(publisher.clone()),
            publisher,
            wall,
            wake: Arc::default(),
            acked: Arc::default(),
            in_flight: Arc::default(),
            cut_off: Arc::default(),
            outcomes,
        };
        (relay, Outcomes(received))
    }

    /// Until when a row that is being written belongs to its writer; 0 while another replica may
    /// have the bus and this one has not.
    pub fn claim_until(&self) -> i64 {
        if self.is_cut_off() {
            return 0;
        }
        self.claimed_until()
    }

    fn claimed_until(&self) -> i64 {
        micros(self.wall.now()).saturating_add(CLAIM.as_micros() as i64)
    }

    /// True when the row was acked, though it is still in the table.
    pub fn is_acked(&self, seq: i64) -> bool {
        lock(&self.acked).contains(&seq)
    }

    /// Publishes rows that were just committed and are this process's to publish.
    pub fn submit(&self, rows: Vec<Model>) {
        for row in rows {
            if self.in_flight.load(Ordering::Relaxed) >= IN_FLIGHT {
                let _ = self.outcomes.send(Outcome::Failed(row.seq));
                continue;
            }
            self.start(row, Origin::Committed);
        }
    }

    /// Waits until few messages are on their way, so that one committed now goes out among the
    /// next. Where the bus is down that is when publishes have failed: nothing waits for ever.
    pub async fn until_few_in_flight(&self) {
        while self.in_flight.load(Ordering::Relaxed) > FEW {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn is_cut_off(&self) -> bool {
        if !self.bus.is_connected() {
            self.cut_off();
        }
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Claims nothing more until the bus answers.
    fn cut_off(&self) {
        if self.cut_off.swap(true, Ordering::Relaxed) {
            return;
        }
        let relay = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(AFTER_FAILURE).await;
                let answer = tokio::time::timeout(ANSWER, relay.bus.check()).await;
                if matches!(answer, Ok(Ok(()))) {
                    break;
                }
            }
            relay.cut_off.store(false, Ordering::Relaxed);
            relay.wake();
        });
    }

    /// Rows were committed that are nobody's yet.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    fn start(&self, row: Model, origin: Origin) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let relay = self.clone();
        tokio::spawn(async move {
            let seq = row.seq;
            let outcome = match relay.publish(row, origin).await {
                Ok(decided_at) => {
                    lock(&relay.acked).insert(seq);
                    Outcome::Acked(Acked { seq, decided_at })
                }
                Err(error) => {
                    if matches!(error, RelayError::Publish(PublishError::Unavailable(_))) {
                        relay.cut_off();
                    }
                    warn!(outbox.seq = seq, error = %error, "Outbox row {seq} was not published and stays: {error}");
                    Outcome::Failed(seq)
                }
            };
            relay.in_flight.fetch_sub(1, Ordering::Relaxed);
            // The relay's task is gone only at the end of the process; the row stays then.
            let _ = relay.outcomes.send(outcome);
        });
    }

    /// Answers when the decision was made, microseconds.
    async fn publish(&self, row: Model, origin: Origin) -> Result<i64, RelayError> {
        // It goes out as it was committed: reading it would only cost time.
        let message = RawValue::from_string(row.payload).map_err(RelayError::Payload)?;
        let key = MembershipStatusChanged {
            gym_id: row.gym_id.to_string(),
            member_id: row.member_id.to_string(),
            version: row.version,
            ..Default::default()
        };
        let envelope = Envelope {
            ce_id: key.id(),
            ce_type: MembershipStatusChanged::TYPE.to_owned(),
            ce_source: format!("/{SERVICE}"),
            ce_time: from_micros(row.occurred_at),
            ce_subject: key.about(),
            traceparent: row.traceparent,
        };
        let subject = key.subject();
        // A process may have stood still since.
        let is_ours = micros(self.wall.now()) < row.claimed_until;
        let is_new = origin == Origin::Committed && is_ours;
        if is_new || !self.is_superseded(&subject, row.version).await? {
            self.groups
                .publish(&subject, &envelope, &message)
                .await
                .map_err(RelayError::Publish)?;
        }
        Ok(history::decided_at(message.get(), row.version))
    }

    /// Whether the stream's last state of the member is a newer one.
    async fn is_superseded(&self, subject: &str, version: i64) -> Result<bool, RelayError> {
        let last = self.publisher.last_id(subject).await;
        let last = last.map_err(RelayError::Publish)?;
        let last = last.as_deref().and_then(|id| id.rsplit('/').next());
        let last: Option<i64> = last.and_then(|version| version.parse().ok());
        Ok(last.is_some_and(|last| last > version))
    }

    /// Moves what was acked and claims what is nobody's, until `shutdown`; then gives back what
    /// it holds.
    pub async fn run(self, store: Store, mut outcomes: Outcomes, shutdown: CancellationToken) {
        if !store.is_postgres() {
            // Nobody else uses the file: whatever is claimed was claimed by a process that is gone.
            log(store::outbox::release(store.reads(), None).await);
        }
        let mut removable: Vec<Acked> = Vec::new();
        let mut remove_at: Option<Instant> = None;
        let mut failed: Vec<i64> = Vec::new();
        // Rows wait behind others that are on their way: look again at every ack.
        let mut blocked = true;
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut retry_at: Option<Instant> = None;
        loop {
            let due = remove_at.into_iter().chain(retry_at).min();
            tokio::select! {
                () = shutdown.cancelled() => break,
                outcome = outcomes.0.recv() => match outcome {
                    None => break,
                    Some(Outcome::Acked(row)) => {
                        removable.push(row);
                        while let Ok(more) = outcomes.0.try_recv() {
                            match more {
                                Outcome::Acked(row) => removable.push(row),
                                Outcome::Failed(seq) => failed.push(seq),
                            }
                        }
                        remove_at.get_or_insert_with(|| {
                            Instant::now() + if blocked { Duration::ZERO } else { REMOVE_AFTER }
                        });
                        if !failed.is_empty() {
                            retry_at.get_or_insert_with(|| Instant::now() + AFTER_FAILURE);
                        }
                        continue;
                    }
                    Some(Outcome::Failed(seq)) => {
                        failed.push(seq);
                        retry_at.get_or_insert_with(|| Instant::now() + AFTER_FAILURE);
                        continue;
                    }
                },
                () = sleep_until(due) => {
                    if retry_at.is_some_and(|at| at <= Instant::now()) {
                        retry_at = None;
                        blocked = true;
                    }
                }
                () = self.wake.notified() => blocked = true,
                _ = poll.tick() => self.measure(&store, &mut blocked).await,
            }
            remove_at = None;
            self.remove(&store, &mut removable).await;
            if !failed.is_empty() && retry_at.is_none() {
                let seqs = std::mem::take(&mut failed);
                log(self.release(&store, &seqs).await);
            }
            if blocked {
                blocked = self.claim(&store).await;
            }
        }
        self.drain(&store, outcomes, removable).await;
    }

    /// Gives rows back, and tells the others, who may have the bus.
    async fn release(&self, store: &Store, seqs: &[i64]) -> Result<(), StoreError> {
        store::outbox::release(store.reads(), Some(seqs)).await?;
        store::outbox::notify(store.reads()).await
    }

    /// Starts what can be claimed; true when rows are left that could not.
    async fn claim(&self, store: &Store) -> bool {
        let now = micros(self.wall.now());
        let room = IN_FLIGHT.saturating_sub(self.in_flight.load(Ordering::Relaxed));
        if room == 0 || self.is_cut_off() {
            return true;
        }
        let until = self.claimed_until();
        match store::outbox::claim(store.reads(), now, until, room as i64).await {
            Ok(rows) => {
                for row in rows {
                    self.start(row, Origin::Claimed);
                }
            }
            Err(error) => {
                log(Err(error));
                return false;
            }
        }
        match store::outbox::backlog(store.reads(), now).await {
            Ok(backlog) => backlog.unclaimed > 0,
            Err(error) => {
                log(Err(error));
                false
            }
        }
    }

    async fn remove(&self, store: &Store, removable: &mut Vec<Acked>) {
        if removable.is_empty() {
            return;
        }
        match keep(store, removable).await {
            Ok(()) => {
                let mut acked = lock(&self.acked);
                for row in removable.drain(..) {
                    acked.remove(&row.seq);
                }
            }
            // They stay in `removable`, and go with the next ones.
            Err(error) => log(Err(error)),
        }
    }

    async fn measure(&self, store: &Store, blocked: &mut bool) {
        let now = micros(self.wall.now());
        match store::outbox::backlog(store.reads(), now).await {
            Ok(backlog) => {
                metrics::gauge!(DEPTH).set(backlog.depth as f64);
                let age = backlog.oldest.map_or(0, |oldest| (now - oldest).max(0));
                metrics::gauge!(AGE).set(age as f64 / 1e6);
                *blocked |= backlog.unclaimed > 0;
            }
            Err(error) => log(Err(error)),
        }
    }

    /// Lets what is on its way arrive, within the drain time of whoever runs us.
    async fn drain(&self, store: &Store, mut outcomes: Outcomes, mut removable: Vec<Acked>) {
        let mut failed = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(3);
        while self.in_flight.load(Ordering::Relaxed) > 0 {
            match tokio::time::timeout_at(deadline, outcomes.0.recv()).await {
                Ok(Some(Outcome::Acked(row))) => removable.push(row),
                Ok(Some(Outcome::Failed(seq))) => failed.push(seq),
                Ok(None) | Err(_) => break,
            }
        }
        while let Ok(outcome) = outcomes.0.try_recv() {
            match outcome {
                Outcome::Acked(row) => removable.push(row),
                Outcome::Failed(seq) => failed.push(seq),
            }
        }
        self.remove(store, &mut removable).await;
        if !failed.is_empty() {
            log(self.release(store, &failed).await);
        }
    }
}

/// Moves rows from the outbox to the history, all or none.
async fn keep(store: &Store, acked: &[Acked]) -> Result<(), StoreError> {
    let txn = store.begin().await?;
    history::keep(&txn, acked).await?;
    txn.commit().await.step("keeping decisions")
}

/// Wakes the relay when another replica leaves rows to be claimed. PostgreSQL only.
pub async fn listen(store: Store, relay: Relay, shutdown: CancellationToken) {
    if !store.is_postgres() {
        return;
    }
    let listening = async {
        loop {
            match store.listener(store::outbox::CHANNEL).await {
                Ok(mut listener) => {
                    while listener.recv().await.is_ok() {
                        relay.wake();
                    }
                }
                Err(error) => log(Err(error)),
            }
            // The poll goes on meanwhile.
            tokio::time::sleep(POLL).await;
        }
    };
    shutdown.run_until_cancelled(listening).await;
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("its payload is no JSON")]
    Payload(#[source] serde_json::Error),
    #[error(transparent)]
    Publish(event_bus::PublishError),
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn lock(acked: &Mutex<HashSet<i64>>) -> std::sync::MutexGuard<'_, HashSet<i64>> {
    acked
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn log(result: Result<(), StoreError>) {
    if let Err(error) = result {
        error!(
            "The outbox could not be worked on: {}",
            service_runtime::lifecycle::chain(&error)
        );
    }
}
