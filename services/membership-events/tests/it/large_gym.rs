//! What a write and an event read is no more where a gym has become large, and PostgreSQL has not
//! counted its rows since: as after a roster was taken in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use contracts::billing::v1::BillingEvent;
use membership_events::store::Store;
use sea_orm::{ConnectionTrait, Statement};
use testkit::eventually;

use crate::together::number;
use crate::together_writes::Hands;
use crate::world::{ACCOUNT, GYM, World, invoice};

/// More than a second of a connection's work is told at once, and that of an idle one after ten.
const DEADLINE: Duration = Duration::from_secs(30);

const TABLES: [&str; 8] = [
    "members",
    "memberships",
    "membership_people",
    "billing_references",
    "billing_events",
    "billing_links",
    "outbox",
    "decision_history",
];

const FEW: usize = 400;
const MANY: usize = 20_000;
/// More often than a statement is planned anew.
const GROUPS: usize = 16;
const OF: usize = 25;
const ALL: i64 = (GROUPS * OF) as i64;

/// Each with a membership, an invoice that failed, and a message that another replica has claimed.
fn people(first: usize, end: usize) -> Vec<String> {
    let each = format!("from generate_series({first}, {}) as n", end - 1);
    let (gym, account) = (GYM, ACCOUNT);
    let mut statements: Vec<String> = TABLES
        .iter()
        .map(|table| format!("alter table {table} set (autovacuum_enabled = false)"))
        .collect();
    statements.extend([
        format!(
            "insert into members (gym_id, member_id, email, name, source_version, version,
                 overrides, erased)
             select '{gym}', 'm_' || n, '', '', 1, 0, '[]', false {each}"
        ),
        format!(
            "insert into memberships (gym_id, membership_id, plan_id, holders, starts_on, pauses,
                 billing_provider, billing_account, billing_subscription, source_version)
             select '{gym}', 'ms_' || n, 'gold', '[\"m_' || n || '\"]', '2026-01-01', '[]',
                 'stripe', '{account}', 'sub_ms_' || n, 1 {each}"
        ),
        format!(
            "insert into membership_people (gym_id, member_id, membership_id)
             select '{gym}', 'm_' || n, 'ms_' || n {each}"
        ),
        format!(
            "insert into billing_references (provider, account, kind, reference, gym_id,
                 membership_id, is_current)
             select 'stripe', '{account}', 'subscription', 'sub_ms_' || n, '{gym}', 'ms_' || n,
                 true {each}"
        ),
        format!(
            "insert into billing_events (provider, account, event_id, event, invoice_id,
                 subscription_id, received_at)
             select 'stripe', '{account}', 'old_' || n, '{}', 'old_in_' || n, 'sub_ms_' || n,
                 0 {each}",
            serde_json::to_string(&failed("old", 0)).expect("JSON")
        ),
        format!(
            "insert into billing_links (gym_id, membership_id, provider, account, event_id)
             select '{gym}', 'ms_' || n, 'stripe', '{account}', 'old_' || n {each}"
        ),
        format!(
            "insert into outbox (gym_id, member_id, version, payload, occurred_at, created_at,
                 claimed_until)
             select 'other', 'm_' || n, 1, '{{}}', 0, 0, {} {each}",
            i64::MAX
        ),
    ]);
    // So that it is told before anything else.
    statements.push("select pg_stat_force_next_flush()".to_owned());
    statements
}

/// An invoice of `ms_{n}` that was not paid.
fn failed(what: &str, n: usize) -> BillingEvent {
    BillingEvent {
        subscription_id: Some(format!("sub_ms_{n}")),
        payment_id: Some(format!("pi_{what}_{n}")),
        ..invoice(
            &format!("evt_{what}_{n}"),
            "payment_failed",
            &format!("in_{what}_{n}"),
            "2026-03-10T05:00:00Z",
        )
    }
}

/// Rows and pages of each table that were read since the start.
async fn read(store: &Store) -> BTreeMap<String, i64> {
    let sql = "select t.relname, t.seq_tup_read + coalesce(t.idx_tup_fetch, 0)
            + coalesce(io.idx_blks_read + io.idx_blks_hit, 0) as read
        from pg_stat_user_tables t join pg_statio_user_tables io on io.relid = t.relid";
    let db = store.reads();
    let rows = db
        .query_all_raw(Statement::from_string(db.get_database_backend(), sql))
        .await
        .expect("the statistics");
    rows.iter()
        .map(|row| {
            let table: String = row.try_get_by_index(0).expect("a table");
            (table, row.try_get_by_index(1).expect("a number"))
        })
        .collect()
}

async fn add(store: &Store, statements: Vec<String>) {
    let txn = store.begin().await.expect("a transaction");
    for statement in statements {
        let done = txn.execute_unprepared(&statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    txn.commit().await.expect("committed");
}

/// Puts another membership of the first people, a group at a time.
async fn write(world: &mut World, hands: &Hands, name: &str) {
    for group in 0..GROUPS {
        let calls: Vec<_> = (group * OF..(group + 1) * OF)
            .map(|n| hands.put(world.membership(&format!("{name}_{n}"), &format!("m_{n}"))))
            .collect();
        for taken in hands.together(&calls).await {
            assert!(matches!(taken, Some(Ok(outcome)) if outcome.applied));
        }
    }
}

/// Waits until the statistics tell of so many decisions that were kept and moved.
async fn until_told(store: &Store, decisions: i64) {
    let told = "select least(
            (select n_tup_upd from pg_stat_user_tables where relname = 'members'),
            (select n_tup_ins from pg_stat_user_tables where relname = 'decision_history'))";
    eventually("the statistics are told", DEADLINE, async || {
        number(store, told).await >= decisions
    })
    .await;
}

/// Of each table no more was read for one than an index takes to find a few rows. Once a second the
/// outbox is counted, and once what is parked.
fn assert_few(
    what: &str,
    before: &BTreeMap<String, i64>,
    after: &BTreeMap<String, i64>,
    began: Instant,
) {
    let each = TABLES.map(|table| {
        let counted = match table {
            "outbox" => (began.elapsed().as_secs() + 2) as usize * MANY,
            "billing_events" => MANY,
            _ => 0,
        };
        (table, (after[table] - before[table] - counted as i64) / ALL)
    });
    assert!(
        each.iter().all(|(_, each)| *each <= 60),
        "rows and pages for each {what}: {each:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_together_reads_a_few_rows_of_many() {
    let mut world = World::on_postgres().await;
    world.put_gym(|_| {}).await;
    let hands = Hands::instead_of_the_service(&mut world).await;
    let store = world.store().await;
    add(&store, people(0, FEW)).await;
    write(&mut world, &hands, "first").await;
    until_told(&store, ALL).await;
    add(&store, people(FEW, MANY)).await;

    let (before, began) = (read(&store).await, Instant::now());
    write(&mut world, &hands, "second").await;
    until_told(&store, 2 * ALL).await;
    let between = read(&store).await;
    assert_few("write", &before, &between, began);
    hands.stop().await;

    for n in 0..GROUPS * OF {
        world.publish(&failed("new", MANY - 1 - n)).await;
    }
    world.start_replica().await;
    until_told(&store, 3 * ALL).await;
    assert_few("event", &between, &read(&store).await, began);
    world.stop_all().await;
}
