//! Leases and workers in step with the gyms there are.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::DbErr;
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
    }
    for gym in shared.workers.gyms() {
        shared.workers.stop(&gym).await;
    }
    // Whoever takes over does not know when we last sent.
    tokio::time::sleep(Duration::from_secs_f64(1.1 / shared.pacers.rate())).await;
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
