//! The tables: one schema for SQLite and PostgreSQL. Only how a row is claimed differs.
//!
//! Instants are microseconds since 1970 (`*_at`), lists are JSON text. No name and no e-mail is
//! in any of them.

pub mod applied_grants;
pub mod audit;
pub mod devices;
pub mod event_webhooks;
pub mod held_plans;
pub mod integrations;
pub mod key_checks;
pub mod kisi_events;
pub mod leases;
pub mod losses;
pub mod member_logins;
pub mod members;
mod migrations;
pub mod other_rights;
pub mod outbox;
mod places;
pub mod previews;
pub mod syncs;

use std::time::Duration;

use jiff::Timestamp;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, EntityTrait,
    IdenStatic, Iterable,
};
use sea_orm_migration::MigratorTrait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;

/// A replica that stands still in the middle of a transaction keeps its rows from whoever takes over.
/// PostgreSQL ends such a transaction before the lease has run out; a live one is never so slow.
const IDLE: (&str, &str) = ("idle_in_transaction_session_timeout", "5s");

/// The columns of a table, by name. A prepared `select *` fails on PostgreSQL in a replica that
/// still runs when a later migration adds a column.
fn columns<E: EntityTrait>() -> String {
    let names: Vec<&str> = E::Column::iter().map(|column| column.as_str()).collect();
    names.join(", ")
}

/// Opens the database and brings its schema up to date.
pub async fn open(url: &SecretString) -> Result<DatabaseConnection, DbErr> {
    let db = connect(url).await?;
    if db.get_database_backend() == DbBackend::Postgres {
        // Replicas start together: one migrates, the others find it done.
        migrate_alone(&db).await?;
    } else {
        migrations::Migrator::up(&db, None).await?;
    }
    Ok(db)
}

/// Opens the database as it is.
pub async fn connect(url: &SecretString) -> Result<DatabaseConnection, DbErr> {
    let mut url = url.expose_secret().to_owned();
    let sqlite = url.starts_with("sqlite:");
    if sqlite && !url.contains("mode=") && !url.contains(":memory:") {
        url.push_str(if url.contains('?') {
            "&mode=rwc"
        } else {
            "?mode=rwc"
        });
    }
    let mut options = ConnectOptions::new(url);
    options
        .sqlx_logging(false)
        .connect_timeout(Duration::from_secs(10))
        .acquire_timeout(Duration::from_secs(30))
        .idle_timeout(Duration::from_secs(3_600));
    if sqlite {
        // One writer: never wait for the pool while holding a transaction.
        // A file does not go away: asking before each use would only cost time.
        options
            .max_connections(1)
            .min_connections(1)
            .test_before_acquire(false);
        options.map_sqlx_sqlite_opts(|sqlite| {
            sqlite
                .pragma("journal_mode", "WAL")
                .pragma("synchronous", "FULL")
                .pragma("busy_timeout", "5000")
        });
    } else {
        options
            .max_connections(24)
            .min_connections(2)
            .map_sqlx_postgres_opts(|options: PgConnectOptions| options.options([IDLE]));
    }
    Database::connect(options).await
}

async fn migrate_alone(db: &DatabaseConnection) -> Result<(), DbErr> {
    use sea_orm::TransactionTrait;
    let guard = db.begin().await?;
    // It only waits.
    let wait = format!("SET LOCAL {} = 0", IDLE.0);
    guard.execute_unprepared(&wait).await?;
    guard
        .execute_unprepared("SELECT pg_advisory_xact_lock(4711080301)")
        .await?;
    let migrated = migrations::Migrator::up(db, None).await;
    guard.commit().await?;
    migrated
}

/// An instant as it is stored.
pub fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// A stored instant; the first of 1970 for a value outside the calendar.
pub fn instant(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A stored row that makes no sense.
pub fn senseless(table: &str, column: &str, row: &str) -> DbErr {
    DbErr::Custom(format!("{table}.{column} of row {row} makes no sense"))
}
