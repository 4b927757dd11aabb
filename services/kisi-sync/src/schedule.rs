//! When passes run: every RECONCILE_EVERY, aligned to UTC, and on demand; one at a time per gym.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;
use crate::store::{integrations, losses, members, syncs};
use crate::{audit, held, kisi_events, reconcile, rights, store};

const DAY: i64 = 24 * 3_600 * 1_000_000;

/// The next instant at which gyms are reconciled: a whole multiple of the interval since the
/// beginning of the UTC day count.
pub fn next(now: i64, every: Duration) -> i64 {
    let every = i64::try_from(every.as_micros()).unwrap_or(i64::MAX).max(1);
    (now.div_euclid(every) + 1) * every
}

/// Gyms with a pass under way in this process; replicas are kept apart by the lease.
pub struct Passes {
    running: Mutex<HashSet<String>>,
}

impl Passes {
    pub fn new() -> Self {
        Self {
            running: Mutex::default(),
        }
    }

    /// Whether a pass of the gym runs in this process.
    pub fn is_under_way(&self, gym: &str) -> bool {
        self.lock().contains(gym)
    }

    /// None while one of the gym is under way.
    pub(crate) fn begin(&self, gym: &str) -> Option<UnderWay<'_>> {
        let gym = gym.to_owned();
        let is_first = self.lock().insert(gym.clone());
        // Made only then: what is dropped ends it.
        is_first.then(|| UnderWay { passes: self, gym })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Passes {
    fn default() -> Self {
        Self::new()
    }
}

/// A pass that is over when this is dropped, whatever it ended by.
pub(crate) struct UnderWay<'a> {
    passes: &'a Passes,
    gym: String,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.passes.lock().remove(&self.gym);
    }
}

/// Runs the gym's queued passes in the background, if this replica owns it.
pub fn start(shared: &Arc<Shared>, gym: &str) {
    let (shared, gym) = (Arc::clone(shared), gym.to_owned());
    tokio::spawn(async move {
        let Some(_under_way) = shared.passes.begin(&gym) else {
            return;
        };
        if let Err(error) = run_queued(&shared, &gym).await {
            tracing::warn!(gym.id = %gym, error = %error, "Queued reconciles wait");
        }
    });
}

async fn run_queued(shared: &Arc<Shared>, gym: &str) -> Result<(), DbErr> {
    loop {
        let Some(sync) = reconcile::unfinished(shared, gym).await?.into_iter().next() else {
            return Ok(());
        };
        let Some(row) = integrations::find(&shared.db, gym).await? else {
            return Ok(());
        };
        let Some(lease) = shared.leases.held(&row.lease_key) else {
            return Ok(());
        };
        let before = sync.sync_id.clone();
        let ended = reconcile::run(shared, &lease, sync).await;
        if ended.sync_id == before && matches!(ended.state.as_str(), "queued" | "running") {
            // Not ours any more, or not to be finished now: the next look takes it up.
            return Ok(());
        }
    }
}

/// Queues a pass of every gym whose first sync was started at each aligned instant, and takes up what a dead replica
/// left, until `shutdown`.
pub async fn keep(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut due = next(shared.now(), shared.reconcile_every);
    let mut tidying = None;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        let now = shared.now();
        let is_due = now >= due;
        let gyms: HashSet<String> = shared.workers.gyms().into_iter().collect();
        if let Err(error) = wake_the_waiting(&shared, &gyms, now).await {
            tracing::warn!(error = %error, "It cannot be seen whose work waits");
        }
        match look(&shared, &gyms, is_due, now).await {
            Ok(()) if is_due => {
                due = next(now, shared.reconcile_every);
                if tidying.as_ref().is_none_or(JoinHandle::is_finished) {
                    tidying = Some(tokio::spawn(tidy(Arc::clone(&shared), gyms, now)));
                }
            }
            Ok(()) => {}
            // What is due stays due.
            Err(error) => tracing::warn!(error = %error, "Reconciles cannot be scheduled"),
        }
    }
}

async fn look(
    shared: &Arc<Shared>,
    gyms: &HashSet<String>,
    is_due: bool,
    now: i64,
) -> Result<(), DbErr> {
    let mut unfinished = reconcile::gyms_unfinished(shared).await?;
    unfinished.retain(|gym| gyms.contains(gym));
    if is_due {
        // Before the passes, which plan anew what is not held any more.
        held::remind(&shared.db, now).await?;
        held::expire(&shared.db, now).await?;
        shared.outbox.notify_one();
        let live = integrations::list_live(&shared.db).await?;
        let due = live.iter().filter(|gym| gyms.contains(*gym));
        let due: Vec<&String> = due.filter(|gym| !unfinished.contains(*gym)).collect();
        reconcile::queue_scheduled(shared, &due).await?;
        for gym in due {
            start(shared, gym);
        }
    }
    for gym in &unfinished {
        start(shared, gym);
    }
    Ok(())
}

/// What nobody waits for: passes are neither late nor left out by it.
async fn tidy(shared: Arc<Shared>, gyms: HashSet<String>, now: i64) {
    if let Err(error) = rights::begin_due(&shared, &gyms, now).await {
        tracing::warn!(error = %error, "What others gave is read later");
    }
    if let Err(error) = forget(&shared, now).await {
        tracing::warn!(error = %error, "What is old stays for now");
    }
    for gym in &gyms {
        if let Err(error) = audit::prune::prune(&shared.db, gym, now).await {
            tracing::warn!(gym.id = %gym, error = %error, "What is old stays in the log for now");
        }
    }
}

/// Members with work that nobody woke: a hint was lost, or the time to try again has come.
async fn wake_the_waiting(shared: &Shared, gyms: &HashSet<String>, now: i64) -> Result<(), DbErr> {
    let mut waiting = members::waiting(&shared.db).await?;
    waiting.retain(|gym| gyms.contains(&gym.gym_id));
    let members: i64 = waiting.iter().map(|gym| gym.members).sum();
    let oldest = waiting.iter().map(|gym| gym.since).min();
    let oldest = oldest.map_or(0.0, |since| (now - since).max(0) as f64 / 1e6);
    crate::measures::waiting(u64::try_from(members).unwrap_or(0), oldest);
    for gym in waiting.iter().filter(|gym| gym.due_at <= now) {
        shared.workers.scan(&gym.gym_id);
    }
    Ok(())
}

/// What nobody asks for any more.
async fn forget(shared: &Shared, now: i64) -> Result<(), DbErr> {
    losses::Entity::delete_many()
        .filter(losses::Column::LostAt.lt(now - 2 * DAY))
        .exec(&shared.db)
        .await?;
    store::kisi_events::forget(&shared.db, now - kisi_events::KEPT).await?;
    store::previews::forget(&shared.db, now - 2 * DAY).await?;
    syncs::Entity::delete_many()
        .filter(syncs::Column::CreatedAt.lt(now - 30 * DAY))
        .exec(&shared.db)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_of_a_gym_at_a_time_however_it_ends() {
        let passes = Passes::new();
        let first = passes.begin("iron");
        assert!(first.is_some());
        assert!(passes.begin("iron").is_none() && passes.is_under_way("iron"));
        assert!(passes.begin("steel").is_some());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _under_way = first;
            panic!("as a pass may");
        }));
        assert!(panicked.is_err() && passes.begin("iron").is_some());
    }

    #[test]
    fn passes_are_aligned_to_utc() {
        let at = |text: &str| crate::store::micros(text.parse().unwrap());
        let quarter = Duration::from_secs(900);
        let cases = [
            ("2026-03-01T10:00:00Z", "2026-03-01T10:15:00Z"),
            ("2026-03-01T10:14:59.9Z", "2026-03-01T10:15:00Z"),
            ("2026-03-01T23:50:00Z", "2026-03-02T00:00:00Z"),
        ];
        for (now, due) in cases {
            assert_eq!(next(at(now), quarter), at(due), "{now}");
        }
    }
}
