//! Opening the database: pools, durability, isolation.
//!
//! SQLite gets one connection, WAL and `synchronous=FULL`, so that a commit survives a power cut
//! and writers are serial by themselves. PostgreSQL gets a pool and READ COMMITTED, which with the
//! lock order of [`super`] is enough. Deliberately not here: any query.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    AccessMode, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction,
    DbBackend, IsolationLevel, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use sea_orm_migration::MigratorTrait;
use service_runtime::settings;

use super::migrations::Migrator;
use super::{Step, StoreError};

/// After this long without use a PostgreSQL connection is asked whether it still lives.
const IDLE: Duration = Duration::from_secs(30);
/// A replica that stands still in the middle of a transaction keeps its rows from all others.
/// PostgreSQL ends such a transaction; a live one never waits so long for its next statement.
const STANDS_STILL: (&str, &str) = ("idle_in_transaction_session_timeout", "5s");

/// What waits together comes in some hundred texts, lengths and all. A connection that kept fewer than
/// these prepared would prepare them again and again.
const PREPARED: usize = 256;

/// Where the tables are.
#[derive(Clone, Args)]
pub struct DatabaseSettings {
    /// The database: postgres://user@host/name or sqlite:///path/to/file.db.
    #[arg(long, env = "DATABASE_URL", value_parser = database_url)]
    pub database_url: String,
    /// PostgreSQL connections at most, one of which listens; SQLite always has one.
    #[arg(long, env = "DATABASE_POOL_SIZE", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(3..=1000))]
    pub database_pool_size: u32,
    /// How long one statement may take (PostgreSQL), or wait for the file's lock (SQLite).
    #[arg(long, env = "DATABASE_STATEMENT_TIMEOUT", default_value = "5s",
        value_parser = settings::positive_duration)]
    pub database_statement_timeout: Duration,
}

impl std::fmt::Debug for DatabaseSettings {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseSettings")
            .field("database_pool_size", &self.database_pool_size)
            .field(
                "database_statement_timeout",
                &self.database_statement_timeout,
            )
            .finish_non_exhaustive()
    }
}

fn database_url(text: &str) -> Result<String, String> {
    if text.starts_with("sqlite:")
        || text.starts_with("postgres://")
        || text.starts_with("postgresql://")
    {
        Ok(text.to_owned())
    } else {
        Err("an address that begins with sqlite: or postgres:// is expected".to_owned())
    }
}

/// The open database. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    database: DatabaseConnection,
}

impl Store {
    /// Opens the database and brings its schema up to date.
    ///
    /// # Errors
    /// When it cannot be reached or a migration fails.
    pub async fn open(settings: &DatabaseSettings) -> Result<Self, StoreError> {
        let mut options = ConnectOptions::new(settings.database_url.clone());
        let timeout = settings.database_statement_timeout;
        options
            .sqlx_logging(false)
            .record_stmt_in_spans(false)
            .test_before_acquire(false)
            .acquire_timeout(timeout);
        if settings.database_url.starts_with("sqlite:") {
            options
                .max_connections(1)
                .min_connections(1)
                .idle_timeout(None)
                .max_lifetime(None)
                .map_sqlx_sqlite_opts(move |options: SqliteConnectOptions| {
                    options
                        .create_if_missing(true)
                        .journal_mode(SqliteJournalMode::Wal)
                        .synchronous(SqliteSynchronous::Full)
                        .busy_timeout(timeout)
                        .statement_cache_capacity(PREPARED)
                });
        } else {
            options
                .max_connections(settings.database_pool_size)
                .min_connections(2)
                // One that a restart or a firewall cut off is noticed before it is used.
                .test_before_acquire_if_idle_for(IDLE)
                .statement_timeout(timeout)
                // Once per connection rather than once per transaction: no round trip of its own.
                .map_sqlx_postgres_opts(|options: PgConnectOptions| {
                    options
                        .options([
                            ("default_transaction_isolation", "read committed"),
                            STANDS_STILL,
                        ])
                        .statement_cache_capacity(PREPARED)
                })
                .set_application_name("membership-events");
        }
        let database = Database::connect(options).await.step("connecting")?;
        let store = Self { database };
        store.migrate(timeout).await?;
        Ok(store)
    }

    /// Brings the schema up to date; several replicas may start at once. It takes what it takes:
    /// only for a table that others work on it waits no longer than `timeout`, since they wait
    /// behind it.
    async fn migrate(&self, timeout: Duration) -> Result<(), StoreError> {
        if !self.is_postgres() {
            return Migrator::up(&self.database, None).await.step("migrating");
        }
        let txn = self.database.begin().await.step("migrating")?;
        let tables = format!("set local lock_timeout = {}", timeout.as_millis());
        for statement in [
            "set local statement_timeout = 0",
            // Held to the end of the transaction, so that only one replica migrates at a time.
            "select pg_advisory_xact_lock(7301145)",
            tables.as_str(),
        ] {
            txn.execute_unprepared(statement).await.step("migrating")?;
        }
        Migrator::up(&txn, None).await.step("migrating")?;
        txn.commit().await.step("migrating")
    }

    /// Ends when the database answers: for readiness.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.database.ping().await.step("asking the database")
    }

    /// For reads outside a transaction. Never to be used while one is held.
    pub fn reads(&self) -> &DatabaseConnection {
        &self.database
    }

    /// Begins a transaction that writes. Dropping it rolls it back.
    pub async fn begin(&self) -> Result<DatabaseTransaction, StoreError> {
        let mut options = TransactionOptions::default();
        if !self.is_postgres() {
            options.sqlite_transaction_mode = Some(SqliteTransactionMode::Immediate);
        }
        self.database
            .begin_with_options(options)
            .await
            .step("beginning a transaction")
    }

    /// Begins a transaction that only reads, and sees one moment throughout.
    pub async fn snapshot(&self) -> Result<DatabaseTransaction, StoreError> {
        let mut options = TransactionOptions::default();
        if self.is_postgres() {
            options.isolation_level = Some(IsolationLevel::RepeatableRead);
            options.access_mode = Some(AccessMode::ReadOnly);
        }
        self.database
            .begin_with_options(options)
            .await
            .step("beginning a snapshot")
    }

    /// Listens to a channel. PostgreSQL only.
    pub async fn listener(
        &self,
        channel: &str,
    ) -> Result<sea_orm::sqlx::postgres::PgListener, StoreError> {
        use sea_orm::sqlx::postgres::PgListener;
        let connect = async {
            let pool = self.database.get_postgres_connection_pool();
            let mut listener = PgListener::connect_with(pool).await?;
            listener.listen(channel).await?;
            Ok(listener)
        };
        connect
            .await
            .map_err(|error| sea_orm::DbErr::Conn(sea_orm::RuntimeErr::SqlxError(Arc::new(error))))
            .step("listening")
    }

    /// How many groups of the same kind are worth doing at once: PostgreSQL flushes for all who
    /// commit meanwhile, SQLite has one writer.
    pub fn lanes(&self) -> usize {
        if self.is_postgres() { 2 } else { 1 }
    }

    /// PostgreSQL, where several replicas may work on the same tables.
    pub fn is_postgres(&self) -> bool {
        self.database.get_database_backend() == DbBackend::Postgres
    }
}
