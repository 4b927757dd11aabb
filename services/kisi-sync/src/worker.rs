//! One worker per gym that this replica owns: takes members with work, revokes first, and settles
//! each by one task at a time.
//!
//! A wake carries what was just committed, so that the request can leave at once; everything else
//! is found in the table, by a scan that also serves as the net under the wakes and is asked for by
//! [`crate::schedule`], which sees with one look whose gyms have work. The pacer decides
//! which request goes next; here it is only decided how many wait for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::DbErr;
use tokio::sync::{Notify, mpsc};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::apply::{Bursts, Doubts, Engine, Everybody, Key, Manners, Pause};
use crate::brake::Brake;
use crate::error::Trouble;
use crate::ownership::LeaseProof;
use crate::record::Outcome;
use crate::shared::Shared;
use crate::steps;
use crate::store::{integrations, members};

mod jobs;
mod registry;
mod supervise;
mod trouble;

use jobs::Queues;
pub use jobs::{Job, Settled, Urgency};
pub use registry::Workers;
pub use supervise::{keep_in_step, supervise};
use trouble::Failing;
pub use trouble::{DeadKey, key_died};

/// How often what waits for the end of a pause is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const SCAN_AT_ONCE: u64 = 2_000;
/// Members waiting for the pacer at once. Revokes are never kept from it.
const REVOKES: usize = 512;
const GRANTS: usize = 16;
const BACKGROUND: usize = 8;
/// How long running requests may take to end when the worker stops.
const LAST_REQUESTS: Duration = Duration::from_secs(6);

enum Wake {
    Job(Box<Job>),
    /// Members have work that is due.
    Scan,
    /// The integration's row has changed: key, associations, policies.
    Reload,
}

struct Worker {
    shared: Arc<Shared>,
    gym: String,
    lease: LeaseProof,
    stop: CancellationToken,
    brake: Arc<Brake>,
    pause: Arc<Pause>,
    bursts: Arc<Bursts>,
    everybody: Arc<Everybody>,
    doubts: Arc<Doubts>,
    manners: Arc<Manners>,
    /// None where it is not known: then the next answer takes it back.
    outage_shown: Option<bool>,
    /// None while the key does not work.
    engine: Option<Engine>,
    /// The key that it spoke with last.
    spoken_with: Option<i64>,
    queues: Queues,
    running: HashMap<String, Running>,
    /// When an attempt ended last, or others may have been at work here.
    last_ended: Instant,
    /// At whom Kisi fails.
    failing: HashMap<String, Failing>,
    /// Woken while they were in work.
    again: HashMap<String, Job>,
    replies: HashMap<String, Vec<mpsc::UnboundedSender<Settled>>>,
}

/// A member who is being settled.
struct Running {
    urgency: Urgency,
    /// Rung when something is decided about her.
    newer: Arc<Notify>,
}

impl Worker {
    async fn work(mut self, mut wakes: mpsc::UnboundedReceiver<Wake>) {
        let mut tasks: JoinSet<Result<Outcome, Trouble>> = JoinSet::new();
        let mut members: HashMap<Id, String> = HashMap::new();
        self.reload().await;
        // Whatever was put off: what it waited for may have been of another process or key.
        self.scan(i64::MAX).await;
        while !self.stop.is_cancelled() {
            self.dispatch(&mut tasks, &mut members);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                Some(ended) = tasks.join_next_with_id() => self.ended(ended, &mut members).await,
                Some(wake) = wakes.recv() => match wake {
                    Wake::Job(job) => self.take(*job),
                    Wake::Scan => self.scan(self.shared.now()).await,
                    Wake::Reload => {
                        // What another key failed at need not fail with this one.
                        let due = match self.reload().await {
                            true => i64::MAX,
                            false => self.shared.now(),
                        };
                        self.scan(due).await;
                    }
                },
                () = tokio::time::sleep(LOOK_EVERY), if !self.queues.is_empty() => {}
            }
        }
        let last = async {
            while let Some(ended) = tasks.join_next_with_id().await {
                self.ended(ended, &mut members).await;
            }
        };
        let _ = tokio::time::timeout(LAST_REQUESTS, last).await;
    }

    /// Builds what speaks to Kisi anew, from the row as it is. Answers whether it speaks with another key.
    async fn reload(&mut self) -> bool {
        self.note_dead_key().await;
        let row = match integrations::find(&self.shared.db, &self.gym).await {
            Ok(Some(row)) => row,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(gym.id = %self.gym, error = %error, "The integration cannot be read");
                return false;
            }
        };
        self.pause.end();
        let held = self.engine.take().map(|engine| engine.key);
        let is_same = |key: &Arc<Key>| row.is_live() && key.version == row.key_version;
        if let Some(former) = held.as_ref().filter(|key| !is_same(key)) {
            former.end();
        }
        if !row.is_live() {
            // Nobody is kept waiting until it is.
            self.replies.clear();
            return false;
        }
        let is_new = self.spoken_with.replace(row.key_version) != Some(row.key_version);
        match self.shared.kisi_of(&row) {
            Ok(kisi) => {
                self.engine = Some(Engine {
                    shared: Arc::clone(&self.shared),
                    gym: self.gym.clone(),
                    kisi,
                    key: held
                        .filter(is_same)
                        .unwrap_or_else(|| Arc::new(Key::of(&row))),
                    lease: self.lease.clone(),
                    brake: Arc::clone(&self.brake),
                    pause: Arc::clone(&self.pause),
                    bursts: Arc::clone(&self.bursts),
                    everybody: Arc::clone(&self.everybody),
                    doubts: Arc::clone(&self.doubts),
                    manners: Arc::clone(&self.manners),
                    stop: self.stop.clone(),
                    newer: Arc::default(),
                });
                is_new
            }
            Err(error) => {
                tracing::error!(gym.id = %self.gym, error = %error,
                    "The key of gym {} does not open, and its work waits", self.gym);
                false
            }
        }
    }

    /// Finds the members with work that is due by then.
    async fn scan(&mut self, mut due: i64) {
        // The gym may have been set up, or got another key, through another replica.
        if self.engine.is_none() && self.reload().await {
            due = i64::MAX;
        }
        if self.engine.is_none() || self.pause.is_on() {
            return;
        }
        match self.list_due(due).await {
            Ok(jobs) => jobs.into_iter().for_each(|job| self.queues.push(job)),
            Err(error) => {
                tracing::warn!(gym.id = %self.gym, error = %error, "Due members cannot be listed");
            }
        }
    }

    async fn list_due(&self, due: i64) -> Result<Vec<Job>, DbErr> {
        let (db, now) = (&self.shared.db, self.shared.now());
        let Some(integration) = integrations::find(db, &self.gym).await? else {
            return Ok(Vec::new());
        };
        // What makes no sense is told where she is settled.
        let associations = integration.associations().unwrap_or_default();
        let mut jobs = Vec::new();
        for due in members::list_due(db, &self.gym, due, SCAN_AT_ONCE).await? {
            if self.running.contains_key(&due.member_id) {
                continue;
            }
            let plans = members::plans(&due.plans, &due.member_id).unwrap_or_default();
            let wanted = steps::wanted(&plans, &associations, now);
            let urgency = match due.background {
                _ if plans.is_empty() => Urgency::Revoke,
                true => Urgency::Background,
                false => Urgency::of_change(steps::closes(&wanted, due.rows.into_iter(), now)),
            };
            jobs.push(Job::look(&due.member_id, urgency));
        }
        Ok(jobs)
    }

    fn take(&mut self, mut job: Job) {
        if job.is_change {
            self.bursts.changed(&job.member);
        }
        let reply = job.reply.take();
        if let Some(reply) = reply.filter(|_| self.engine.is_some()) {
            self.replies
                .entry(job.member.clone())
                .or_default()
                .push(reply);
        }
        if self.engine.is_none() || self.pause.is_on() {
            // By the time that it is used it is long stale, and there may be many.
            job.seed = None;
        }
        // The wake comes after its commit: an attempt at this member may have written and ended since
        // the intake read what it brings. At whomever it was, to read again is a few milliseconds.
        job.seed = job.seed.filter(|seed| seed.read_from > self.last_ended);
        if let Some(running) = self.running.get(&job.member) {
            if job.is_change {
                running.newer.notify_one();
            }
            job.seed = None;
            if let Some(known) = self.again.get(&job.member) {
                job.urgency = job.urgency.min(known.urgency);
            }
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
        let Some(engine) = self.engine.as_ref().filter(|it| !it.key.is_over()) else {
            return;
        };
        if self.pause.is_on() || self.queues.is_empty() {
            return;
        }
        let all_are_doubted = self.all_are_doubted();
        for (urgency, most) in [
            (Urgency::Revoke, REVOKES),
            (Urgency::Grant, GRANTS),
            (Urgency::Background, BACKGROUND),
        ] {
            let of = |urgency| move |it: &&Running| it.urgency == urgency;
            let runs = |urgency| self.running.values().filter(of(urgency)).count();
            // Until Kisi answers again it is asked by what closes doors, where there is any.
            if urgency != Urgency::Revoke && self.pause.is_outage() && runs(Urgency::Revoke) > 0 {
                break;
            }
            let mut runs = runs(urgency);
            while runs < most {
                let Some(job) = self.queues.pop(urgency) else {
                    break;
                };
                runs += 1;
                let newer = Arc::new(Notify::new());
                let engine = Engine {
                    newer: Arc::clone(&newer),
                    ..engine.clone()
                };
                let member = job.member.clone();
                self.running
                    .insert(member.clone(), Running { urgency, newer });
                if urgency == Urgency::Revoke {
                    self.doubts.begin(&member);
                }
                let is_doubted = all_are_doubted || self.is_doubted(&member);
                let seed = job.seed.map(|seed| seed.snapshot);
                let handle = tasks.spawn(async move {
                    match is_doubted {
                        true => engine.settle_doubted(&job.member, seed).await,
                        false => engine.settle(&job.member, seed).await,
                    }
                });
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
        let running = self.running.remove(&member);
        self.doubts.end(&member);
        self.last_ended = Instant::now();
        let urgency = running.map_or(Urgency::Grant, |running| running.urgency);
        let outcome = match result {
            Some(Ok(outcome)) => {
                let failed_before = self.failing.remove(&member);
                if outcome.requests > 0 {
                    self.pause.hears();
                    self.answered().await;
                    if failed_before.is_some_and(Failing::is_doubted) {
                        self.try_the_failing();
                    }
                }
                Some(outcome)
            }
            Some(Err(trouble)) => self.troubled(&member, urgency, trouble).await,
            None => {
                // What it had intended may have been sent.
                tracing::error!(gym.id = %self.gym, member.id = %member, "A task was lost");
                self.doubts.note(&member);
                None
            }
        };
        self.note_dead_key().await;
        if let Some(replies) = self.replies.remove(&member) {
            for reply in replies {
                let _ = reply.send((member.clone(), outcome.clone()));
            }
        }
        if let Some(job) = self.again.remove(&member) {
            self.queues.push(job);
        }
    }
}
