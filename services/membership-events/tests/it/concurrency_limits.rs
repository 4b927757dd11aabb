//! What a service may take of its database: connections, the time of a statement, isolation.

use std::time::{Duration, Instant};

use clap::Parser;
use membership_events::config::Config;
use membership_events::store::{DatabaseSettings, Store};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, Statement};
use testkit::{TestDatabase, eventually};

fn settings(url: &str) -> DatabaseSettings {
    DatabaseSettings {
        database_url: url.to_owned(),
        database_pool_size: 3,
        database_statement_timeout: Duration::from_millis(300),
    }
}

#[test]
fn the_limits_are_settings() {
    let config = Config::try_parse_from([
        "membership-events",
        "--database-url=postgres://someone@localhost/some",
        "--nats-url=nats://localhost",
        "--nats-monitor-urls=http://localhost",
        "--jwt-jwks=/keys",
        "--jwt-issuer=us",
        "--jwt-audience=us",
        "--database-pool-size=7",
        "--database-statement-timeout=1500ms",
    ])
    .expect("settings");
    assert_eq!(config.database.database_pool_size, 7);
    assert_eq!(
        config.database.database_statement_timeout,
        Duration::from_millis(1_500)
    );
}

#[tokio::test]
async fn no_more_connections_are_taken_than_the_pool_has() {
    let database = TestDatabase::create().await.expect("a database");
    let store = Store::open(&settings(database.url()))
        .await
        .expect("opened");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(store.begin().await.expect("one of three"));
    }
    let asked = Instant::now();
    store.begin().await.expect_err("no fourth");
    assert!(
        asked.elapsed() >= Duration::from_millis(300),
        "it waits for one to be free"
    );
    drop(held);
    store.begin().await.expect("free again");
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_cut_off() {
    let database = TestDatabase::create().await.expect("a database");
    let store = Store::open(&settings(database.url()))
        .await
        .expect("opened");
    let asked = Instant::now();
    let slow = store
        .reads()
        .execute_unprepared("select pg_sleep(60)")
        .await;
    let error = slow.expect_err("cut off").to_string();
    assert!(error.contains("statement timeout"), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(30));
    let txn = store.begin().await.expect("a transaction");
    assert_eq!(
        one(&txn, "show transaction_isolation").await,
        "read committed"
    );
    let snapshot = store.snapshot().await.expect("a snapshot");
    assert_eq!(
        one(&snapshot, "show transaction_isolation").await,
        "repeatable read"
    );
    let write = snapshot.execute_unprepared("delete from outbox").await;
    write.expect_err("it only reads");
}

#[tokio::test]
async fn a_transaction_that_stands_still_keeps_its_rows_from_others_for_seconds_only() {
    let database = TestDatabase::create().await.expect("a database");
    let (still, other) = (settings(database.url()), settings(database.url()));
    let still = Store::open(&still).await.expect("opened");
    let other = Store::open(&other).await.expect("opened");
    let gym = "insert into gyms (gym_id, name, time_zone, overdue_grace, overdue_scope,
        source_version) values ('iron', '', 'UTC', 0, '', 1)";
    other.reads().execute_unprepared(gym).await.expect("a gym");
    let write = "update gyms set name = 'Iron' where gym_id = 'iron'";
    let held = still.begin().await.expect("a transaction");
    held.execute_unprepared(write).await.expect("written");
    let waiting = other.reads().execute_unprepared(write).await;
    waiting.expect_err("the row is held");
    let free = async || other.reads().execute_unprepared(write).await.is_ok();
    eventually("the row is free", Duration::from_secs(15), free).await;
    held.commit().await.expect_err("it was ended");
    let again = still.begin().await.expect("another connection");
    again.execute_unprepared(write).await.expect("written");
}

#[tokio::test]
async fn sqlite_has_one_writer_and_waits_for_the_lock_no_longer_than_it_may() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("tables.db").display());
    let store = Store::open(&settings(&url)).await.expect("opened");
    let other = Store::open(&settings(&url)).await.expect("opened");
    let held = store.begin().await.expect("a transaction");
    assert_eq!(
        one(
            &held,
            "select cast(synchronous as text) from pragma_synchronous"
        )
        .await,
        "2"
    );
    let busy = other.begin().await.expect_err("the file is locked");
    assert!(
        busy.is_conflict() || matches!(source(&busy), DbErr::Conn(_)),
        "{busy:?}"
    );
    store.begin().await.expect_err("one connection");
    drop(held);
    other.begin().await.expect("free again");
}

fn source(error: &membership_events::store::StoreError) -> &DbErr {
    match error {
        membership_events::store::StoreError::Database { source, .. } => source,
        other => panic!("{other}"),
    }
}

async fn one(db: &DatabaseTransaction, sql: &str) -> String {
    let row = db
        .query_one_raw(Statement::from_string(db.get_database_backend(), sql))
        .await;
    let row = row.expect("an answer").expect("a row");
    row.try_get_by_index(0).expect("text")
}
