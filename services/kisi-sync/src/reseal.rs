//! Sealing keys can be rotated while everything runs: whatever an older key sealed is sealed anew
//! under the newest, in the background, until the older one can be taken out of `SEALING_KEYS`.
//!
//! Any replica may do it. A row is replaced only as long as it is the one that was read, so a key
//! that is saved meanwhile stays.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};
use tokio_util::sync::CancellationToken;

use crate::sealing::{Purpose, Sealed};
use crate::shared::Shared;

/// Rows at a time; others want the database too.
const AT_ONCE: u64 = 50;
const PAUSE: Duration = Duration::from_millis(50);

/// A table with sealed secrets: its name, the column of the secret, what tells its rows apart
/// besides the gym, and what the secrets are for.
struct Table {
    name: &'static str,
    secret: &'static str,
    row: &'static str,
    purpose: Purpose,
}

const TABLES: [Table; 3] = [
    Table {
        name: "integrations",
        secret: "sealed_key",
        row: "gym_id",
        purpose: Purpose::ApiKey,
    },
    Table {
        name: "event_webhooks",
        secret: "sealed_key",
        row: "gym_id",
        purpose: Purpose::EventSignature,
    },
    Table {
        name: "member_logins",
        secret: "sealed_secret",
        row: "member_id",
        purpose: Purpose::MemberLogin,
    },
];

#[derive(FromQueryResult)]
struct Row {
    gym_id: String,
    row_id: String,
    secret: Vec<u8>,
    sealing_key_id: String,
}

/// Looks at start, and then as often as gyms are reconciled, until `shutdown`.
pub async fn keep(shared: Arc<Shared>, shutdown: CancellationToken) {
    let looking = async {
        loop {
            for table in &TABLES {
                match reseal(&shared, table).await {
                    Ok(0) => {}
                    Ok(sealed) => tracing::info!(
                        sealing.table = table.name,
                        sealing.rows = sealed,
                        "Sealed {sealed} rows of {} under the newest key",
                        table.name
                    ),
                    Err(error) => {
                        tracing::warn!(error = %error, "Secrets cannot be sealed anew");
                    }
                }
            }
            tokio::time::sleep(shared.reconcile_every).await;
        }
    };
    shutdown.run_until_cancelled(looking).await;
}

/// All rows of a table that an older key sealed; answers how many were sealed anew.
async fn reseal(shared: &Shared, table: &Table) -> Result<u64, DbErr> {
    let Table {
        name, secret, row, ..
    } = table;
    let newest = shared.sealer.newest();
    let mut sealed = 0;
    let mut after = (String::new(), String::new());
    loop {
        let sql = format!(
            "select gym_id, {row} as row_id, {secret} as secret, sealing_key_id from {name}
             where sealing_key_id <> $1 and sealing_key_id <> ''
               and (gym_id > $2 or (gym_id = $2 and {row} > $3))
             order by gym_id, {row} limit {AT_ONCE}"
        );
        let values: [Value; 3] = [
            newest.into(),
            after.0.clone().into(),
            after.1.clone().into(),
        ];
        let backend = shared.db.get_database_backend();
        let statement = Statement::from_sql_and_values(backend, sql, values);
        let rows = Row::find_by_statement(statement).all(&shared.db).await?;
        let Some(last) = rows.last() else {
            return Ok(sealed);
        };
        after = (last.gym_id.clone(), last.row_id.clone());
        for row in rows {
            sealed += u64::from(replace(shared, table, row).await?);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn replace(shared: &Shared, table: &Table, row: Row) -> Result<bool, DbErr> {
    if row.secret.is_empty() {
        return Ok(false);
    }
    let held = Sealed {
        key_id: row.sealing_key_id.clone(),
        bytes: row.secret.clone(),
    };
    let (gym, id) = (row.gym_id.as_str(), row.row_id.as_str());
    let sealer = &shared.sealer;
    let anew = sealer
        .open(table.purpose, gym, id, &held)
        .and_then(|secret| sealer.seal(table.purpose, gym, id, &secret, rand::random()));
    let anew = match anew {
        Ok(anew) => anew,
        Err(error) => {
            tracing::error!(gym.id = %gym, sealing.table = table.name, error = %error,
                "A secret of gym {gym} in {} does not open", table.name);
            return Ok(false);
        }
    };
    let sql = format!(
        "update {} set {secret} = $1, sealing_key_id = $2
         where gym_id = $3 and {} = $4 and sealing_key_id = $5 and {secret} = $6",
        table.name,
        table.row,
        secret = table.secret
    );
    let values: [Value; 6] = [
        anew.bytes.into(),
        anew.key_id.into(),
        row.gym_id.into(),
        row.row_id.into(),
        row.sealing_key_id.into(),
        row.secret.into(),
    ];
    let backend = shared.db.get_database_backend();
    let done = shared
        .db
        .execute_raw(Statement::from_sql_and_values(backend, sql, values))
        .await?;
    Ok(done.rows_affected() > 0)
}
