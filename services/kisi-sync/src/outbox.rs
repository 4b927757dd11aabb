//! The relay: publishes what was committed, in the order it was written, and forgets it.
//!
//! It runs after Kisi's answer and so costs no door a millisecond. A row is removed only after
//! JetStream's ack; a crash between the two publishes it again under the same id. On PostgreSQL
//! one replica at a time relays, so that the last message of a subject is the newest.

use std::sync::Arc;
use std::time::Duration;

use contracts::access::v1::AccessApplied;
use contracts::integration::v1::IntegrationChanged;
use contracts::message::BusMessage;
use contracts::wire;
use event_bus::{Envelope, PublishError, Publisher};
use jiff::Timestamp;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect, TransactionTrait,
};
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;
use crate::store::{instant, outbox};

/// Rows published under one transaction.
const BATCH: u64 = 100;
/// Looks by itself as a net below the wakes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const WAIT_AFTER_FAILURE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("the database failed")]
    Store(#[from] DbErr),
    #[error("the bus did not take a message")]
    Publish(#[from] PublishError),
}

/// Relays until `shutdown`, and once more after it.
pub async fn relay(shared: Arc<Shared>, publisher: Publisher, shutdown: CancellationToken) {
    loop {
        let stopping = shutdown.is_cancelled();
        match relay_batch(&shared, &publisher).await {
            Ok(0) if stopping => return,
            Ok(0) => {
                tokio::select! {
                    () = shared.outbox.notified() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = shutdown.cancelled() => {}
                }
            }
            Ok(_) => {}
            Err(error) if stopping => {
                tracing::warn!(error = %error, "The last outcomes stay in the outbox");
                return;
            }
            Err(error) => {
                tracing::warn!(error = %error, "Outcomes wait in the outbox");
                let pause = tokio::time::sleep(WAIT_AFTER_FAILURE);
                shutdown.run_until_cancelled(pause).await;
            }
        }
    }
}

async fn relay_batch(shared: &Shared, publisher: &Publisher) -> Result<usize, RelayError> {
    let postgres = shared.db.get_database_backend() == DbBackend::Postgres;
    // SQLite has one relay, and no transaction may be held over a wait for the bus.
    let txn = if postgres {
        Some(shared.db.begin().await?)
    } else {
        None
    };
    if let Some(txn) = &txn
        && !is_alone(txn).await?
    {
        return Ok(0);
    }
    let query = outbox::Entity::find()
        .order_by_asc(outbox::Column::Id)
        .limit(BATCH);
    let rows = match &txn {
        Some(txn) => query.all(txn).await?,
        None => query.all(&shared.db).await?,
    };
    if rows.is_empty() {
        return Ok(0);
    }
    // All are under way before the first ack is waited for.
    let mut acks = Vec::new();
    for row in &rows {
        let Some((subject, envelope)) = address(row) else {
            tracing::error!(
                outbox.id = row.id,
                "An outbox row cannot be read and is dropped"
            );
            continue;
        };
        let body: serde_json::Value = serde_json::from_str(&row.body).unwrap_or_default();
        acks.push(publisher.publish_start(&subject, &envelope, &body).await?);
    }
    for ack in acks {
        ack.await?;
    }
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let delete = outbox::Entity::delete_many().filter(outbox::Column::Id.is_in(ids));
    match txn {
        Some(txn) => {
            delete.exec(&txn).await?;
            txn.commit().await?;
        }
        None => {
            delete.exec(&shared.db).await?;
        }
    }
    Ok(rows.len())
}

/// Held until the transaction ends.
async fn is_alone(txn: &DatabaseTransaction) -> Result<bool, DbErr> {
    let statement = sea_orm::Statement::from_string(
        DbBackend::Postgres,
        "SELECT pg_try_advisory_xact_lock(4711080302) AS alone",
    );
    match txn.query_one_raw(statement).await? {
        Some(row) => row.try_get("", "alone"),
        None => Ok(false),
    }
}

fn address(row: &outbox::Model) -> Option<(String, Envelope)> {
    match row.kind.as_str() {
        "access" => {
            let message: AccessApplied = serde_json::from_str(&row.body).ok()?;
            let at = message.timings.as_ref().and_then(|t| t.applied_at.as_ref());
            let at = at.and_then(wire::instant);
            Some(addressed(&message, at, row))
        }
        "integration" => {
            let message: IntegrationChanged = serde_json::from_str(&row.body).ok()?;
            let at = message.changed_at.as_ref().and_then(wire::instant);
            Some(addressed(&message, at, row))
        }
        _ => None,
    }
}

fn addressed<M: BusMessage>(
    message: &M,
    at: Option<Timestamp>,
    row: &outbox::Model,
) -> (String, Envelope) {
    let envelope = Envelope {
        ce_id: message.id(),
        ce_type: M::TYPE.to_owned(),
        ce_source: "/kisi-sync".to_owned(),
        ce_time: at.unwrap_or_else(|| instant(row.created_at)),
        ce_subject: message.about(),
        traceparent: row.traceparent.clone(),
    };
    (message.subject(), envelope)
}
