//! Leases and workers in step with the gyms there are.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, DbErr};
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;
use crate::store::integrations;

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
        if let Err(error) = balance(&shared).await {
            tracing::warn!(error = %error, "Leases cannot be shared with other replicas");
        }
    }
    for gym in shared.workers.gyms() {
        shared.workers.stop(&gym).await;
    }
    let_kisi_forget(&shared).await;
    if let Err(error) = shared.leases.release().await {
        tracing::warn!(error = %error, "Leases could not be given back");
    }
}

/// One round: renew, take, start, stop.
pub async fn keep_in_step(shared: &Arc<Shared>) -> Result<(), DbErr> {
    let rows = integrations::list_enabled(&shared.db).await?;
    let keys: BTreeSet<String> = rows.iter().map(|(_, key)| key.clone()).collect();
    shared.leases.tick(&keys).await?;
    let mut here = HashSet::new();
    for (gym, key) in rows {
        if let Some(lease) = shared.leases.held(&key) {
            shared.workers.ensure(shared, &gym, lease).await?;
            here.insert(gym);
        }
    }
    for gym in shared.workers.gyms() {
        if !here.contains(&gym) {
            shared.workers.stop(&gym).await;
        }
    }
    Ok(())
}

/// Gives what lies above this replica's share to the others: its workers stop first, so that nothing
/// is on its way when another replica begins. A gym in the middle of a pass stays.
async fn balance(shared: &Arc<Shared>) -> Result<(), DbErr> {
    if shared.db.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let mut gyms: HashMap<String, Vec<String>> = HashMap::new();
    for (gym, key) in integrations::list_enabled(&shared.db).await? {
        gyms.entry(key).or_default().push(gym);
    }
    let none = Vec::new();
    let of_key = |key: &str| gyms.get(key).unwrap_or(&none);
    let is_quiet = |key: &str| {
        !of_key(key)
            .iter()
            .any(|gym| shared.passes.is_under_way(gym))
    };
    let surplus = shared.leases.surplus(gyms.len(), is_quiet).await?;
    if surplus.is_empty() {
        return Ok(());
    }
    for lease in &surplus {
        for gym in of_key(lease.key()) {
            shared.workers.stop(gym).await;
        }
    }
    let_kisi_forget(shared).await;
    for lease in &surplus {
        shared.leases.give_back(lease).await?;
    }
    // The others need not wait for their next round.
    let sql = "SELECT pg_notify('kisi_sync', 'leases')";
    shared.db.execute_unprepared(sql).await.map(drop)
}

/// Whoever takes over does not know when we last sent.
async fn let_kisi_forget(shared: &Shared) {
    tokio::time::sleep(Duration::from_secs_f64(1.1 / shared.pacers.rate())).await;
}
