//! The workers of this replica: one per gym, started and stopped with the gym's lease.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::future::join_all;
use sea_orm::DbErr;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Job, Queues, Wake, Worker};
use crate::apply::{Bursts, Doubts, Everybody};
use crate::brake::Brake;
use crate::ownership::LeaseProof;
use crate::shared::Shared;
use crate::store::members;

/// The workers of this replica.
#[derive(Default)]
pub struct Workers {
    /// One start or stop of a gym at a time, so that it never has two workers.
    changing: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    by_gym: Mutex<HashMap<String, Handle>>,
}

struct Handle {
    wakes: mpsc::UnboundedSender<Wake>,
    stop: CancellationToken,
    /// Cancelled when its last request is answered, or it broke off.
    ended: CancellationToken,
    /// Key and epoch of the lease it works under.
    lease: (String, i64),
    brake: Arc<Brake>,
    everybody: Arc<Everybody>,
}

impl Handle {
    /// It takes work, and is not stopping.
    fn works(&self) -> bool {
        !self.stop.is_cancelled() && !self.ended.is_cancelled()
    }
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

    /// Members of the gym have work that is due.
    pub fn scan(&self, gym: &str) -> bool {
        self.send(gym, Wake::Scan)
    }

    /// Who is at the gym's Kisi, as far as a pass has read it; where it is worked on here.
    pub fn everybody(&self, gym: &str) -> Option<Arc<Everybody>> {
        self.working(gym, |handle| Arc::clone(&handle.everybody))
    }

    /// The gym's counts, where it is worked on here.
    pub fn brake(&self, gym: &str) -> Option<Arc<Brake>> {
        self.working(gym, |handle| Arc::clone(&handle.brake))
    }

    fn send(&self, gym: &str, wake: Wake) -> bool {
        let sent = self.working(gym, |handle| handle.wakes.send(wake).is_ok());
        sent.unwrap_or(false)
    }

    fn working<T>(&self, gym: &str, pick: impl FnOnce(&Handle) -> T) -> Option<T> {
        let all = self.lock();
        all.get(gym).filter(|handle| handle.works()).map(pick)
    }

    /// Starts the gym's worker under this lease, unless it runs under it already.
    pub async fn ensure(
        &self,
        shared: &Arc<Shared>,
        gym: &str,
        lease: LeaseProof,
    ) -> Result<(), DbErr> {
        // Each call for the gym asks.
        if self.runs(gym, &lease) {
            return Ok(());
        }
        let changing = self.changing(gym);
        let _alone = changing.lock().await;
        if self.runs(gym, &lease) || lease.is_going() || shared.leases.is_leaving() {
            return Ok(());
        }
        self.end(gym).await;
        let brake = Brake::load(&shared.db, gym, shared.limits, shared.now()).await?;
        let brake = Arc::new(brake);
        // Whoever owned it before may have died in the middle of what waits.
        let doubts = Doubts::of(members::list_pending(&shared.db, gym).await?);
        let everybody = Arc::new(Everybody::default());
        let (wakes, receiver) = mpsc::unbounded_channel();
        let stop = lease.lost().child_token();
        let held = (lease.key().to_owned(), lease.epoch());
        let worker = Worker {
            shared: Arc::clone(shared),
            gym: gym.to_owned(),
            lease,
            stop: stop.clone(),
            brake: Arc::clone(&brake),
            pause: Arc::default(),
            bursts: Arc::new(Bursts::default()),
            everybody: Arc::clone(&everybody),
            doubts: Arc::new(doubts),
            manners: Arc::default(),
            // A worker before may have shown one.
            outage_shown: None,
            engine: None,
            spoken_with: None,
            queues: Queues::default(),
            running: HashMap::new(),
            last_ended: Instant::now(),
            failing: HashMap::new(),
            again: HashMap::new(),
            replies: HashMap::new(),
        };
        let ended = CancellationToken::new();
        let until_ended = ended.clone().drop_guard();
        tokio::spawn(async move {
            let _until_ended = until_ended;
            worker.work(receiver).await;
        });
        let handle = Handle {
            wakes,
            stop,
            ended,
            lease: held,
            brake,
            everybody,
        };
        self.lock().insert(gym.to_owned(), handle);
        Ok(())
    }

    fn runs(&self, gym: &str, lease: &LeaseProof) -> bool {
        self.lock().get(gym).is_some_and(|handle| {
            (handle.lease.0.as_str(), handle.lease.1) == (lease.key(), lease.epoch())
                && handle.works()
        })
    }

    /// Stops the workers of these gyms, all at once, and waits for their last requests.
    pub async fn stop(&self, gyms: &[String]) {
        join_all(gyms.iter().map(|gym| self.stop_one(gym))).await;
    }

    async fn stop_one(&self, gym: &str) {
        let changing = self.changing(gym);
        let _alone = changing.lock().await;
        self.end(gym).await;
    }

    fn changing(&self, gym: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(changing.entry(gym.to_owned()).or_default())
    }

    /// It is known until it has ended: whoever waits here may be given up, and others wait for it too.
    async fn end(&self, gym: &str) {
        let ended = self.lock().get(gym).map(|handle| {
            handle.stop.cancel();
            handle.ended.clone()
        });
        if let Some(ended) = ended {
            ended.cancelled().await;
            self.lock().remove(gym);
        }
    }

    /// The gyms worked on here, by the lease that each is worked on under.
    pub(super) fn gyms_by_lease(&self) -> HashMap<String, Vec<String>> {
        let mut gyms: HashMap<String, Vec<String>> = HashMap::new();
        for (gym, handle) in self.lock().iter() {
            let lease = handle.lease.0.clone();
            gyms.entry(lease).or_default().push(gym.clone());
        }
        gyms
    }

    /// The gyms worked on here.
    pub fn gyms(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Handle>> {
        self.by_gym.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
