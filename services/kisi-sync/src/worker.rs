//! One worker per gym that this replica owns: takes members with work, revokes first, and settles
//! each by one task at a time.
//!
//! A wake carries what was just committed, so that the request can leave at once; everything else
//! is found in the table, by a scan that also serves as the net under the wakes. The pacer decides
//! which request goes next; here it is only decided how many wait for it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, TransactionTrait};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::apply::{Engine, Pause};
use crate::brake::Brake;
use crate::error::Trouble;
use crate::integration_state as state;
use crate::ownership::LeaseProof;
use crate::record::Outcome;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::store::{applied_grants, integrations, members};

const SCAN_EVERY: Duration = Duration::from_secs(1);
const SCAN_AT_ONCE: u64 = 2_000;
/// Members waiting for the pacer at once. Revokes are never kept from it.
const REVOKES: usize = 512;
const GRANTS: usize = 16;
const BACKGROUND: usize = 8;
/// How long running requests may take to end when the worker stops.
const LAST_REQUESTS: Duration = Duration::from_secs(6);

/// How urgent a member's work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Urgency {
    Revoke,
    Grant,
    Background,
}

/// What came of one job.
pub type Settled = (String, Option<Outcome>);

/// A member to look at.
#[derive(Debug)]
pub struct Job {
    member: String,
    urgency: Urgency,
    /// As just committed; used only if nothing stands in between.
    seed: Option<Snapshot>,
    reply: Option<mpsc::UnboundedSender<Settled>>,
}

impl Job {
    /// From the intake.
    pub fn event(member: &str, snapshot: Snapshot) -> Self {
        let closes = snapshot.member.plans == "[]"
            || snapshot
                .rows
                .iter()
                .any(|row| row.state == applied_grants::STANDING);
        Self {
            member: member.to_owned(),
            urgency: if closes {
                Urgency::Revoke
            } else {
                Urgency::Grant
            },
            seed: Some(snapshot),
            reply: None,
        }
    }

    /// From a hint or a call.
    pub fn look(member: &str, urgency: Urgency) -> Self {
        Self {
            member: member.to_owned(),
            urgency,
            seed: None,
            reply: None,
        }
    }

    /// From a sync, which wants to know what came of it.
    pub fn of_sync(member: &str, reply: mpsc::UnboundedSender<Settled>) -> Self {
        Self {
            reply: Some(reply),
            ..Self::look(member, Urgency::Background)
        }
    }
}

enum Wake {
    Job(Box<Job>),
    /// The integration's row has changed: key, associations, policies.
    Reload,
}

/// The workers of this replica.
#[derive(Default)]
pub struct Workers {
    /// One start or stop at a time, so that a gym never has two workers.
    changing: tokio::sync::Mutex<()>,
    by_gym: Mutex<HashMap<String, Handle>>,
}

struct Handle {
    wakes: mpsc::UnboundedSender<Wake>,
    stop: CancellationToken,
    epoch: i64,
    task: tokio::task::JoinHandle<()>,
    brake: Arc<Brake>,
}

impl Workers {
    /// Gives a job to the gym's worker; false when it works elsewhere.
    pub fn wake(&self, gym: &str, job: Job) -> bool {
        self.send(gym, Wake::Job(Box::new(job)))
    }

    /// The gym's settings have changed.
    pub fn reload(&self, gym: &str) -> bool {
        self.send(gym, Wake::Reload)
    }

    /// The gym's counts, where it is worked on here.
    pub fn brake(&self, gym: &str) -> Option<Arc<Brake>> {
        self.lock().get(gym).map(|handle| Arc::clone(&handle.brake))
    }

    fn send(&self, gym: &str, wake: Wake) -> bool {
        self.lock()
            .get(gym)
            .is_some_and(|handle| handle.wakes.send(wake).is_ok())
    }

    /// Starts the gym's worker under this lease, unless it runs under it already.
    pub async fn ensure(
        &self,
        shared: &Arc<Shared>,
        gym: &str,
        lease: LeaseProof,
    ) -> Result<(), DbErr> {
        let _alone = self.changing.lock().await;
        let runs = self
            .lock()
            .get(gym)
            .is_some_and(|h| h.epoch == lease.epoch() && !h.task.is_finished());
        if runs {
            return Ok(());
        }
        self.end(gym).await;
        let brake = Brake::load(&shared.db, gym, shared.limits, shared.now()).await?;
        let brake = Arc::new(brake);
        let (wakes, receiver) = mpsc::unbounded_channel();
        let stop = lease.lost().child_token();
        let epoch = lease.epoch();
        let worker = Worker {
            shared: Arc::clone(shared),
            gym: gym.to_owned(),
            lease,
            stop: stop.clone(),
            brake: Arc::clone(&brake),
            pause: Arc::default(),
            engine: None,
            queues: Queues::default(),
            running: HashMap::new(),
            again: HashMap::new(),
            replies: HashMap::new(),
        };
        let task = tokio::spawn(worker.work(receiver));
        let handle = Handle {
            wakes,
            stop,
            epoch,
            task,
            brake,
        };
        self.lock().insert(gym.to_owned(), handle);
        Ok(())
    }

    /// Stops the gym's worker and waits for its last requests.
    pub async fn stop(&self, gym: &str) {
        let _alone = self.changing.lock().await;
        self.end(gym).await;
    }

    async fn end(&self, gym: &str) {
        let handle = self.lock().remove(gym);
        if let Some(handle) = handle {
            handle.stop.cancel();
            let _ = handle.task.await;
        }
    }

    /// The gyms worked on here.
    pub fn gyms(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Handle>> {
        self.by_gym.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Queues {
    waiting: HashMap<String, Job>,
    order: [VecDeque<String>; 3],
}

impl Queues {
    fn push(&mut self, job: Job) {
        match self.waiting.get_mut(&job.member) {
            Some(known) if known.urgency <= job.urgency => {
                known.seed = None;
            }
            _ => {
                self.order[job.urgency as usize].push_back(job.member.clone());
                self.waiting.insert(job.member.clone(), job);
            }
        }
    }

    /// The next of this urgency.
    fn pop(&mut self, urgency: Urgency) -> Option<Job> {
        while let Some(member) = self.order[urgency as usize].pop_front() {
            // It may have moved to a more urgent queue.
            if self
                .waiting
                .get(&member)
                .is_some_and(|job| job.urgency == urgency)
            {
                return self.waiting.remove(&member);
            }
        }
        None
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

struct Worker {
    shared: Arc<Shared>,
    gym: String,
    lease: LeaseProof,
    stop: CancellationToken,
    brake: Arc<Brake>,
    pause: Arc<Pause>,
    /// None while the key does not work.
    engine: Option<Engine>,
    queues: Queues,
    running: HashMap<String, Urgency>,
    /// Woken while they were in work.
    again: HashMap<String, Job>,
    replies: HashMap<String, Vec<mpsc::UnboundedSender<Settled>>>,
}

impl Worker {
    async fn work(mut self, mut wakes: mpsc::UnboundedReceiver<Wake>) {
        let mut tasks: JoinSet<Result<Outcome, Trouble>> = JoinSet::new();
        let mut members: HashMap<Id, String> = HashMap::new();
        let mut scan = tokio::time::interval(SCAN_EVERY);
        scan.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.reload().await;
        while !self.stop.is_cancelled() {
            self.dispatch(&mut tasks, &mut members);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                Some(ended) = tasks.join_next_with_id() => self.ended(ended, &mut members).await,
                Some(wake) = wakes.recv() => match wake {
                    Wake::Job(job) => self.take(*job),
                    Wake::Reload => {
                        self.reload().await;
                        self.scan().await;
                    }
                },
                _ = scan.tick() => self.scan().await,
            }
        }
        let last = async {
            while let Some(ended) = tasks.join_next_with_id().await {
                self.ended(ended, &mut members).await;
            }
        };
        let _ = tokio::time::timeout(LAST_REQUESTS, last).await;
    }

    /// Builds what speaks to Kisi anew, from the row as it is.
    async fn reload(&mut self) {
        let row = match integrations::find(&self.shared.db, &self.gym).await {
            Ok(Some(row)) => row,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(gym.id = %self.gym, error = %error, "The integration cannot be read");
                return;
            }
        };
        self.pause.end();
        self.engine = None;
        if !row.is_live() {
            return;
        }
        match self.shared.kisi_of(&row) {
            Ok(kisi) => {
                self.engine = Some(Engine {
                    shared: Arc::clone(&self.shared),
                    gym: self.gym.clone(),
                    kisi,
                    lease: self.lease.clone(),
                    brake: Arc::clone(&self.brake),
                    pause: Arc::clone(&self.pause),
                    stop: self.stop.clone(),
                });
            }
            Err(error) => {
                tracing::error!(gym.id = %self.gym, error = %error,
                    "The key of gym {} does not open, and its work waits", self.gym);
            }
        }
    }

    async fn scan(&mut self) {
        if self.engine.is_none() || self.pause.is_on() {
            return;
        }
        let now = self.shared.now();
        match members::list_due(&self.shared.db, &self.gym, now, SCAN_AT_ONCE).await {
            Ok(due) => {
                for (member, background, plans) in due {
                    if self.running.contains_key(&member) {
                        continue;
                    }
                    let urgency = if plans == "[]" {
                        Urgency::Revoke
                    } else if background {
                        Urgency::Background
                    } else {
                        Urgency::Grant
                    };
                    self.queues.push(Job::look(&member, urgency));
                }
            }
            Err(error) => {
                tracing::warn!(gym.id = %self.gym, error = %error, "Due members cannot be listed");
            }
        }
    }

    fn take(&mut self, mut job: Job) {
        if let Some(reply) = job.reply.take() {
            self.replies
                .entry(job.member.clone())
                .or_default()
                .push(reply);
        }
        if self.running.contains_key(&job.member) {
            job.seed = None;
            self.again.insert(job.member.clone(), job);
        } else {
            self.queues.push(job);
        }
    }

    fn dispatch(
        &mut self,
        tasks: &mut JoinSet<Result<Outcome, Trouble>>,
        members: &mut HashMap<Id, String>,
    ) {
        let Some(engine) = &self.engine else {
            return;
        };
        if self.pause.is_on() || self.queues.is_empty() {
            return;
        }
        for (urgency, most) in [
            (Urgency::Revoke, REVOKES),
            (Urgency::Grant, GRANTS),
            (Urgency::Background, BACKGROUND),
        ] {
            let mut runs = self.running.values().filter(|u| **u == urgency).count();
            while runs < most {
                let Some(job) = self.queues.pop(urgency) else {
                    break;
                };
                runs += 1;
                self.running.insert(job.member.clone(), urgency);
                let (engine, member) = (engine.clone(), job.member.clone());
                let seed = job.seed;
                let handle = tasks.spawn(async move { engine.settle(&job.member, seed).await });
                members.insert(handle.id(), member);
            }
        }
    }

    async fn ended(
        &mut self,
        ended: Result<(Id, Result<Outcome, Trouble>), tokio::task::JoinError>,
        members: &mut HashMap<Id, String>,
    ) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Some(result)),
            Err(error) => (error.id(), None),
        };
        let Some(member) = members.remove(&id) else {
            return;
        };
        self.running.remove(&member);
        let outcome = match result {
            Some(Ok(outcome)) => {
                self.pause.end();
                Some(outcome)
            }
            Some(Err(trouble)) => self.troubled(&member, trouble).await,
            None => {
                self.distrust(&member).await;
                None
            }
        };
        if let Some(replies) = self.replies.remove(&member) {
            for reply in replies {
                let _ = reply.send((member.clone(), outcome.clone()));
            }
        }
        if let Some(job) = self.again.remove(&member) {
            self.queues.push(job);
        }
    }

    async fn troubled(&mut self, member: &str, trouble: Trouble) -> Option<Outcome> {
        match trouble {
            Trouble::Superseded | Trouble::NotOwner | Trouble::Paused => {}
            Trouble::Unreachable(error) => {
                self.pause.begin();
                tracing::warn!(gym.id = %self.gym, member.id = %member, error = %error,
                    "Kisi does not answer for gym {}; its work waits", self.gym);
            }
            Trouble::KeyDead(error) => {
                self.engine = None;
                tracing::error!(gym.id = %self.gym, error = %error,
                    "Kisi refuses the key of gym {}; its work waits", self.gym);
                let rights = error.status() == Some(403);
                if let Err(error) = key_died(&self.shared, &self.gym, rights).await {
                    tracing::error!(gym.id = %self.gym, error = %error, "The dead key cannot be recorded");
                }
            }
            Trouble::Refused { .. } => {}
            Trouble::Unclear | Trouble::Directory(_) | Trouble::Store(_) => {
                tracing::warn!(gym.id = %self.gym, member.id = %member, error = %trouble,
                    "Member {member} is tried again: {trouble}");
                self.postpone(member).await;
            }
        }
        None
    }

    async fn postpone(&self, member: &str) {
        let set = members::ActiveModel {
            retry_at: sea_orm::ActiveValue::Set(Some(self.shared.now() + 2_000_000)),
            ..Default::default()
        };
        let done = members::Entity::update_many()
            .set(set)
            .filter(members::Column::GymId.eq(&self.gym))
            .filter(members::Column::MemberId.eq(member))
            .exec(&self.shared.db)
            .await;
        if let Err(error) = done {
            tracing::warn!(gym.id = %self.gym, error = %error, "A retry cannot be put off");
        }
    }

    /// A task was lost in the middle: what it had intended may have been sent.
    async fn distrust(&self, member: &str) {
        tracing::error!(gym.id = %self.gym, member.id = %member, "A task was lost");
        let set = applied_grants::ActiveModel {
            state: sea_orm::ActiveValue::Set(applied_grants::UNKNOWN.to_owned()),
            ..Default::default()
        };
        let done = applied_grants::Entity::update_many()
            .set(set)
            .filter(applied_grants::Column::GymId.eq(&self.gym))
            .filter(applied_grants::Column::MemberId.eq(member))
            .filter(applied_grants::Column::State.eq(applied_grants::INTENDED))
            .exec(&self.shared.db)
            .await;
        if let Err(error) = done {
            tracing::error!(gym.id = %self.gym, error = %error, "A lost task's rows cannot be marked");
        }
    }
}

/// The integration needs attention; its work waits for another key.
pub async fn key_died(shared: &Shared, gym: &str, rights: bool) -> Result<(), DbErr> {
    let now = shared.now();
    let (status, what, message) = if rights {
        (
            "insufficient",
            "key_rights",
            "Kisi says that the key may not do this: give its owner administrator rights, or save another key.",
        )
    } else {
        (
            "invalid",
            "key_invalid",
            "Kisi refuses the key: save another one.",
        )
    };
    let txn = shared.db.begin().await?;
    state::change(&txn, gym, now, |row| {
        row.key_status = status.to_owned();
        row.key_checked_at = Some(now);
        Ok(())
    })
    .await?;
    state::attend(&txn, gym, what, "", message, "staff", now).await?;
    txn.commit().await?;
    shared.outbox.notify_one();
    Ok(())
}

/// Keeps leases and workers in step with the gyms there are, until `shutdown`; then stops the
/// workers and gives the leases back.
pub async fn supervise(shared: Arc<Shared>, every: Duration, shutdown: CancellationToken) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !shutdown.is_cancelled() {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = tick.tick() => {}
        }
        if let Err(error) = keep_in_step(&shared).await {
            tracing::warn!(error = %error, "Leases cannot be kept up");
        }
    }
    for gym in shared.workers.gyms() {
        shared.workers.stop(&gym).await;
    }
    if let Err(error) = shared.leases.release().await {
        tracing::warn!(error = %error, "Leases could not be given back");
    }
}

/// One round: renew, take, start, stop.
pub async fn keep_in_step(shared: &Arc<Shared>) -> Result<(), DbErr> {
    let rows = integrations::list_enabled(&shared.db).await?;
    let mut keys: Vec<String> = rows.iter().map(|row| row.lease_key.clone()).collect();
    keys.sort();
    keys.dedup();
    shared.leases.tick(&keys).await?;
    let mut here = HashSet::new();
    for row in rows {
        if let Some(lease) = shared.leases.held(&row.lease_key) {
            shared.workers.ensure(shared, &row.gym_id, lease).await?;
            here.insert(row.gym_id);
        }
    }
    for gym in shared.workers.gyms() {
        if !here.contains(&gym) {
            shared.workers.stop(&gym).await;
        }
    }
    Ok(())
}
