//! The inbox and the outbox of membership-events, read from outside on either database.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::post::FactId;

/// What is in the tables.
pub struct Tables {
    pub facts: BTreeSet<FactId>,
    /// Those that no membership claims.
    pub parked: BTreeSet<FactId>,
    /// Messages that wait to be published.
    pub outbox: i64,
}

/// Provider, account, event, whether it is parked.
type Row = (String, String, String, bool);

const INBOX: &str = "select provider, account, event_id, parked_at is not null from billing_events";
const OUTBOX: &str = "select count(*) from outbox";

/// Looks into the tables; `None` while they cannot be read.
pub async fn read(database_url: &str) -> Option<Tables> {
    let (rows, outbox) = if database_url.starts_with("postgres:") {
        of_postgresql(database_url).await
    } else {
        of_sqlite(database_url).await
    }
    .ok()?;
    // One row each, or the key of the table is not what it says.
    let count = rows.len();
    let mut tables = Tables {
        facts: BTreeSet::new(),
        parked: BTreeSet::new(),
        outbox,
    };
    for (provider, account, event, is_parked) in rows {
        let id = (provider, account, event);
        if is_parked {
            tables.parked.insert(id.clone());
        }
        tables.facts.insert(id);
    }
    assert_eq!(tables.facts.len(), count, "an event is held twice");
    Some(tables)
}

async fn of_sqlite(database_url: &str) -> sqlx::Result<(Vec<Row>, i64)> {
    let options = SqliteConnectOptions::from_str(database_url)?
        .read_only(true)
        .busy_timeout(Duration::from_secs(5));
    let mut tables = options.connect().await?;
    let rows = sqlx::query_as(INBOX).fetch_all(&mut tables).await?;
    let outbox = sqlx::query_scalar(OUTBOX).fetch_one(&mut tables).await?;
    tables.close().await?;
    Ok((rows, outbox))
}

async fn of_postgresql(database_url: &str) -> sqlx::Result<(Vec<Row>, i64)> {
    let mut tables = PgConnection::connect(database_url).await?;
    let rows = sqlx::query_as(INBOX).fetch_all(&mut tables).await?;
    let outbox = sqlx::query_scalar(OUTBOX).fetch_one(&mut tables).await?;
    tables.close().await?;
    Ok((rows, outbox))
}
