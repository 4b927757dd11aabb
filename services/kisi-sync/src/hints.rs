//! PostgreSQL's NOTIFY as a hint to the gym's owner that another replica stored work for it. Only
//! a hint: a lost one costs the second until the next scan.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;
use crate::worker::Job;

const CHANNEL: &str = "kisi_sync";
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The gym's owner hears when the transaction commits that this member has work.
pub async fn give<C: ConnectionTrait>(txn: &C, gym: &str, member: &str) -> Result<(), DbErr> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let payload = format!("{gym} {member}");
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
        match hint.payload().split_once(' ') {
            Some((gym, member)) => {
                shared.workers.wake(gym, Job::hint(member));
            }
            // Leases were given back.
            None => {
                if let Err(error) = crate::worker::keep_in_step(shared).await {
                    tracing::warn!(error = %error, "Leases cannot be kept up");
                }
            }
        }
    }
}
