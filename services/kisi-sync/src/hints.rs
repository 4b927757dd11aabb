//! PostgreSQL's NOTIFY as a hint to the gym's owner that another replica stored work for it. Only
//! a hint: a lost one costs the second until the next scan.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;
use crate::worker::{Job, Urgency};

const CHANNEL: &str = "kisi_sync";
/// No door is to be closed.
const CAN_WAIT: &str = "can_wait";
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The gym's owner hears when the transaction commits that this member has work, and how urgent it is.
pub async fn give<C: ConnectionTrait>(
    txn: &C,
    gym: &str,
    member: &str,
    urgency: Urgency,
) -> Result<(), DbErr> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let payload = match urgency {
        Urgency::Revoke => format!("{gym} {member}"),
        _ => format!("{gym} {member} {CAN_WAIT}"),
    };
    let sql = "SELECT pg_notify($1, $2)";
    let values = [CHANNEL.into(), payload.into()];
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
    txn.execute_raw(statement).await.map(drop)
}

/// Listens until `shutdown`; at once done on SQLite.
pub async fn listen(shared: Arc<Shared>, url: SecretString, shutdown: CancellationToken) {
    if !url.expose_secret().starts_with("postgres") {
        return;
    }
    let heard = async {
        loop {
            if let Err(error) = hear(&shared, &url).await {
                tracing::warn!(error = %error, "Hints of other replicas are not heard");
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    };
    shutdown.run_until_cancelled(heard).await;
}

async fn hear(shared: &Arc<Shared>, url: &SecretString) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect(url.expose_secret()).await?;
    listener.listen(CHANNEL).await?;
    loop {
        let hint = listener.recv().await?;
        let mut words = hint.payload().split(' ');
        let (gym, member, word) = (words.next(), words.next(), words.next());
        match (gym, member) {
            (Some(gym), Some(member)) => {
                let urgency = Urgency::of_change(word != Some(CAN_WAIT));
                shared.workers.wake(gym, Job::hint(member, urgency));
            }
            // Leases were given back.
            _ => {
                if let Err(error) = crate::worker::keep_in_step(shared).await {
                    tracing::warn!(error = %error, "Leases cannot be kept up");
                }
            }
        }
    }
}
