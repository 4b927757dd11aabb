//! What a database commits, bare: one row inserted by a durable transaction of its own, over and
//! over, in one loop with the service's own settings (on SQLite WAL and `synchronous=FULL`).
//!
//! SQLite has one writer. PostgreSQL flushes for all who wait at once, so there it is measured once
//! more with as many loops as the service's pool has connections to work with.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, SqlitePool};

use super::membership_servers::MembershipServers;

/// `DATABASE_POOL_SIZE` is 10 by default, and one of them listens.
pub const IN_FLIGHT: u32 = 9;
/// A row is about this large.
const ROW: usize = 800;
/// Each slice lasts this long.
const SLICE: Duration = Duration::from_secs(2);

/// A table of its own, on the very disk and, with PostgreSQL, the very server that is measured.
pub enum CommitFloor {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl CommitFloor {
    /// Makes the table.
    pub async fn new(servers: &MembershipServers) -> anyhow::Result<Self> {
        if let Some(postgres) = &servers.postgres {
            let pool = PgPoolOptions::new().max_connections(IN_FLIGHT);
            let pool = pool.connect(&postgres.url).await?;
            sqlx::query("create table floor (id bigserial primary key, body bytea not null)")
                .execute(&pool)
                .await?;
            return Ok(Self::Postgres(pool));
        }
        let options = SqliteConnectOptions::new()
            .filename(servers.folder.path("floor.sqlite"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(1);
        let pool = pool.connect_with(options).await?;
        sqlx::query("create table floor (id integer primary key, body blob not null)")
            .execute(&pool)
            .await?;
        Ok(Self::Sqlite(pool))
    }

    /// Commits a second of one connection.
    pub async fn of_one(&self) -> anyhow::Result<f64> {
        self.rate(1).await
    }

    /// Commits a second of as many connections as the service has; none where that is one.
    pub async fn of_pool(&self) -> anyhow::Result<Option<f64>> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(_) => self.rate(IN_FLIGHT).await.map(Some),
        }
    }

    async fn rate(&self, in_flight: u32) -> anyhow::Result<f64> {
        let started = Instant::now();
        let loops = (0..in_flight).map(|_| async {
            let mut commits = 0_u32;
            while started.elapsed() < SLICE {
                self.commit().await?;
                commits += 1;
            }
            anyhow::Ok(commits)
        });
        let commits: u32 = try_join_all(loops).await?.into_iter().sum();
        Ok(f64::from(commits) / started.elapsed().as_secs_f64())
    }

    async fn commit(&self) -> anyhow::Result<()> {
        let body = vec![b'x'; ROW];
        match self {
            Self::Sqlite(pool) => {
                let insert = sqlx::query("insert into floor (body) values (?)").bind(body);
                insert.execute(pool).await?;
            }
            Self::Postgres(pool) => {
                let insert = sqlx::query("insert into floor (body) values ($1)").bind(body);
                insert.execute(pool).await?;
            }
        }
        Ok(())
    }
}
