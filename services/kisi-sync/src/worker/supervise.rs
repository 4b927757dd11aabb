//! Leases and workers in step with the gyms there are.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sea_orm::{DbBackend, DbErr};
use tokio_util::sync::CancellationToken;

use crate::ownership::LeaseProof;
use crate::shared::Shared;
use crate::store::integrations;

/// Keeps leases and workers in step with the gyms there are, until `shutdown`; then stops the
/// workers and gives the leases back. However long a worker takes to start or to stop, the leases of
/// all others are renewed meanwhile.
pub async fn supervise(shared: Arc<Shared>, every: Duration, shutdown: CancellationToken) {
    let renewing = tokio::spawn(renew(Arc::clone(&shared), every));
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
        if let Err(error) = balance(&shared).await {
            tracing::warn!(error = %error, "Leases cannot be shared with other replicas");
        }
    }
    if let Err(error) = leave(&shared).await {
        tracing::warn!(error = %error, "Leases could not be given back");
    }
    renewing.abort();
}

/// Renews what is held, when the rounds do not come to it.
async fn renew(shared: Arc<Shared>, every: Duration) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = shared.leases.renew_after(every / 2).await {
            tracing::warn!(error = %error, "Leases cannot be renewed");
        }
    }
}

/// Nothing is taken any more, and everything is given back.
async fn leave(shared: &Shared) -> Result<(), DbErr> {
    let leases = shared.leases.leave();
    let given = give_back(shared, &leases, &shared.workers.gyms_by_lease()).await;
    // Of those whose lease is gone already.
    shared.workers.stop(&shared.workers.gyms()).await;
    given.and(shared.leases.release().await)
}

/// One round: renew, take, start, stop.
pub async fn keep_in_step(shared: &Arc<Shared>) -> Result<(), DbErr> {
    // Not those that another round starts meanwhile.
    let mut others = shared.workers.gyms();
    let rows = integrations::list_enabled(&shared.db);
    let rows = shared.leases.in_time(rows).await?;
    let keys: BTreeSet<String> = rows.iter().map(|(_, key)| key.clone()).collect();
    shared.leases.tick(&keys).await?;
    let mut here = HashSet::new();
    for (gym, key) in rows {
        if let Some(lease) = shared.leases.held(&key) {
            shared.workers.ensure(shared, &gym, lease).await?;
            here.insert(gym);
        }
    }
    others.retain(|gym| !here.contains(gym));
    shared.workers.stop(&others).await;
    Ok(())
}

/// Gives what lies above this replica's share to the others: its workers stop first, so that nothing
/// is on its way when another replica begins. A gym in the middle of a pass stays.
async fn balance(shared: &Arc<Shared>) -> Result<(), DbErr> {
    if shared.db.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let mut gyms: HashMap<String, Vec<String>> = HashMap::new();
    let rows = integrations::list_enabled(&shared.db);
    for (gym, key) in shared.leases.in_time(rows).await? {
        gyms.entry(key).or_default().push(gym);
    }
    let is_quiet = |key: &str| {
        let mut gyms = gyms.get(key).into_iter().flatten();
        !gyms.any(|gym| shared.passes.is_under_way(gym))
    };
    let surplus = shared.leases.surplus(gyms.len(), is_quiet).await?;
    give_back(shared, &surplus, &gyms).await
}

/// Stops the workers of these leases, all at once, and gives each lease back as soon as its own have
/// ended.
async fn give_back(
    shared: &Shared,
    leases: &[LeaseProof],
    gyms: &HashMap<String, Vec<String>>,
) -> Result<(), DbErr> {
    let given: FuturesUnordered<_> = leases
        .iter()
        .map(async |lease| {
            let gyms = gyms.get(lease.key()).map_or(&[][..], Vec::as_slice);
            shared.workers.stop(gyms).await;
            let_kisi_forget(shared).await;
            shared.leases.give_back(lease).await
        })
        .collect();
    let mut given = given.ready_chunks(leases.len().max(1));
    let mut all = Ok(());
    while let Some(given) = given.next().await {
        // The others need not wait for their next round.
        all = all.and(given.into_iter().collect());
        all = all.and(shared.leases.tell_others().await);
    }
    all
}

/// Whoever takes over does not know when we last sent.
async fn let_kisi_forget(shared: &Shared) {
    tokio::time::sleep(Duration::from_secs_f64(1.1 / shared.pacers.rate())).await;
}
