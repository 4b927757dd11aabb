//! Every migration over a database that the version before it had filled; then the service starts,
//! answers, and goes on with what it finds.

use std::time::Duration;

use contracts::membership::v1 as wire;
use membership_events::store::migrations::Migrator;
use membership_events::store::{DatabaseSettings, Store};
use sea_orm::{ConnectionTrait, Database, Statement, TransactionTrait};
use sea_orm_migration::MigratorTrait;
use testkit::{TestDatabase, eventually};

use crate::world::{GYM, World, invoice};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_migration_keeps_what_the_version_before_held_on_sqlite() {
    for version in versions() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tables.db");
        fill(&format!("sqlite://{}?mode=rwc", file.display()), version).await;
        goes_on(World::on_sqlite_in(folder).await, version).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_migration_keeps_what_the_version_before_held_on_postgres() {
    for version in versions() {
        let database = TestDatabase::create().await.expect("a database");
        fill(database.url(), version).await;
        goes_on(World::on_database(database).await, version).await;
    }
}

/// PostgreSQL only: on SQLite no statement has a limit. Another replica migrates longer than a
/// statement may take, and so does each statement of what is left to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_migrates_for_as_long_as_it_takes() {
    const LIMIT: Duration = Duration::from_millis(300);
    let database = TestDatabase::create().await.expect("a database");
    fill(database.url(), versions().end - 1).await;
    let other = Database::connect(database.url()).await.expect("connected");
    for statement in [
        "create function be_slow() returns event_trigger language plpgsql as
             $$ begin perform pg_sleep(0.5); end $$",
        "create event trigger slow on ddl_command_start execute function be_slow()",
    ] {
        other.execute_unprepared(statement).await.expect("made");
    }
    let holder = other.begin().await.expect("a transaction");
    let lock = "select pg_advisory_xact_lock(7301145)";
    holder.execute_unprepared(lock).await.expect("locked");
    let settings = DatabaseSettings {
        database_url: database.url().to_owned(),
        database_pool_size: 3,
        database_statement_timeout: LIMIT,
    };
    let opened = tokio::spawn(async move { Store::open(&settings).await });
    tokio::time::sleep(3 * LIMIT).await;
    assert!(!opened.is_finished(), "it waits for the other one");
    holder.rollback().await.expect("released");
    let store = opened.await.expect("no panic").expect("migrated");
    let limit = "select current_setting('statement_timeout')";
    let limit = Statement::from_string(store.reads().get_database_backend(), limit);
    let row = store.reads().query_one_raw(limit).await.expect("an answer");
    let limit: String = row.expect("a row").try_get_by_index(0).expect("a text");
    assert_eq!(limit, "300ms", "of all that comes after it");
    let left = Migrator::get_pending_migrations(&other).await;
    assert!(left.expect("an answer").is_empty());
}

/// How many migrations the database has seen: all but one or more of the last.
fn versions() -> std::ops::Range<usize> {
    1..Migrator::migrations().len()
}

fn has(version: usize, migration: &str) -> bool {
    let migrations = Migrator::migrations();
    let at = migrations
        .iter()
        .position(|known| known.name() == migration);
    at.expect("a migration") < version
}

/// Ann holds a membership and owes an invoice; bob's starts tomorrow; cat is erased; a message about
/// ann waits, and an event that nothing claims yet.
async fn fill(url: &str, version: usize) {
    let database = Database::connect(url).await.expect("connected");
    let up = Migrator::up(&database, Some(version as u32)).await;
    up.expect("migrated");
    let event = |id: &str, subscription: &str, invoice: &str| {
        format!(
            r#"{{"eventId":"{id}","provider":"stripe","account":"acct_iron","kind":"payment_failed",
                 "occurredAt":"2026-03-10T05:00:00Z","invoiceId":"{invoice}",
                 "subscriptionId":"{subscription}","amountMinor":"4000","amountDueMinor":"4000",
                 "currency":"GBP"}}"#
        )
    };
    let state = r#"{"gymId":"iron","memberId":"ann","version":"1773140000000000","allowed":false,
                    "decidedAt":"2026-03-10T10:53:20Z"}"#;
    let mut statements = vec![
        "insert into gyms values ('iron', 'Iron', 'Europe/London', 0, 'member', 1)".to_owned(),
        "insert into gym_accounts values ('stripe', 'acct_iron', 'iron')".to_owned(),
        format!(
            "insert into members (gym_id, member_id, email, name, source_version, version, state,
                                  changes_at, overrides, erased)
             values ('iron', 'ann', 'ann@example.org', 'Ann', 1, 1773140000000000, '{state}', null,
                     '[]', false),
                    ('iron', 'bob', 'bob@example.org', 'Bob', 2, 0, null, 1773187200000000, '[]',
                     false),
                    ('iron', 'cat', '', '', 3, 1773140000000003, null, null, '[]', true)"
        ),
        "insert into memberships (gym_id, membership_id, plan_id, holders, starts_on, pauses,
                                  billing_provider, billing_account, billing_subscription,
                                  source_version)
         values ('iron', 'anns', 'gold', '[\"ann\"]', '2026-01-01', '[]', 'stripe', 'acct_iron',
                 'sub_ann', 4),
                ('iron', 'bobs', 'gold', '[\"bob\"]', '2026-03-11', '[]', null, null, null, 5)"
            .to_owned(),
        "insert into membership_people (gym_id, member_id, membership_id)
         values ('iron', 'ann', 'anns'), ('iron', 'bob', 'bobs')"
            .to_owned(),
        "insert into billing_references (provider, account, kind, reference, gym_id, membership_id,
                                         is_current)
         values ('stripe', 'acct_iron', 'subscription', 'sub_ann', 'iron', 'anns', true)"
            .to_owned(),
        format!(
            "insert into billing_events (provider, account, event_id, event, invoice_id,
                                         subscription_id, received_at, parked_at, parked_why)
             values ('stripe', 'acct_iron', 'evt_old', '{}', 'in_old', 'sub_ann', 1, null, null),
                    ('stripe', 'acct_iron', 'evt_parked', '{}', 'in_bob', 'sub_bob', 1, 1,
                     'unknown_subscription')",
            event("evt_old", "sub_ann", "in_old"),
            event("evt_parked", "sub_bob", "in_bob"),
        ),
        "insert into billing_links (gym_id, membership_id, provider, account, event_id)
         values ('iron', 'anns', 'stripe', 'acct_iron', 'evt_old')"
            .to_owned(),
        "insert into outbox (gym_id, member_id, version, payload, occurred_at, created_at,
                             claimed_until)
         select gym_id, member_id, version, state, 0, 0, 0 from members where member_id = 'ann'"
            .to_owned(),
    ];
    if has(version, "m0006_erasures") {
        statements.push(
            "insert into erasures (gym_id, member_id, version, requested_at, requested_by)
             values ('iron', 'cat', 1773140000000003, 1773140000000003, '')"
                .to_owned(),
        );
    }
    if has(version, "m0007_resume_requests") {
        statements.push(
            "insert into resume_requests (gym_id, member_id, requested_at, membership_id,
                                          requested_by, notified_at, closed_at)
             values ('iron', 'ann', 1, 'anns', 'member:ann', 1, 2)"
                .to_owned(),
        );
    }
    for statement in statements {
        let done = database.execute_unprepared(&statement).await;
        done.unwrap_or_else(|error| panic!("{error} at version {version}: {statement}"));
    }
    database.close().await.expect("closed");
}

async fn goes_on(mut world: World, version: usize) {
    println!("from version {version}");
    // What waited goes out, and what was said of her still counts.
    world
        .until("the old message", "ann", |state| {
            state.version >= 1_773_140_000_000_000
        })
        .await;
    let mut client = world.client();
    let paid = invoice(
        "evt_paid",
        "payment_succeeded",
        "in_old",
        "2026-03-10T06:00:00Z",
    );
    let mut paid = contracts::billing::v1::BillingEvent {
        payment_id: Some("pi_old".into()),
        ..paid
    };
    paid.subscription_id = Some("sub_ann".into());
    world.publish(&paid).await;
    world.until_allowed("ann", true).await;

    // What was linked is linked for good, whoever else comes with the same customer.
    let weakly = count(&world, "billing_events where is_weakly_linked").await;
    assert_eq!(weakly, 0);

    // What was parked is applied when its link comes, and time goes on.
    world
        .put_membership("bobs", "bob", |put| {
            put.source_version += 1_000;
            put.starts_on = "2026-03-11".into();
            let billing = put.billing.as_mut().expect("a reference");
            billing.subscription_id = Some("sub_bob".into());
        })
        .await;
    let bob = world
        .until("a debt", "bob", |state| state.reasons.len() == 2)
        .await;
    assert_eq!(bob.reasons, ["missed_payment", "membership_not_started"]);
    world
        .clock
        .set("2026-03-11T00:00:00Z".parse().expect("an instant"));
    world
        .until("started", "bob", |state| {
            state.reasons == ["missed_payment"]
        })
        .await;

    // Who was erased is being forgotten.
    assert_eq!(count(&world, "erasures where member_id = 'cat'").await, 1);
    let put = wire::PutMemberRequest {
        gym_id: GYM.into(),
        member_id: "cat".into(),
        email: "cat@example.org".into(),
        name: "Cat".into(),
        source_version: 9_000,
    };
    let refused = client.put_member(put).await;
    assert!(refused.is_err() || !refused.expect("an answer").into_inner().applied);

    // One open request each, and another after it was closed.
    let mut pause = wire::PauseMembershipRequest {
        gym_id: GYM.into(),
        membership_id: "anns".into(),
        pause_id: "p".into(),
        from: "2026-03-01".into(),
        until: None,
        source_version: world.next(),
    };
    client
        .pause_membership(pause.clone())
        .await
        .expect("paused");
    world.until_allowed("ann", false).await;
    let ask = wire::RequestResumeRequest {
        gym_id: GYM.into(),
        membership_id: "anns".into(),
        member_id: "ann".into(),
    };
    for _ in 0..2 {
        client.request_resume(ask.clone()).await.expect("kept");
    }
    assert_eq!(
        count(&world, "resume_requests where closed_at is null").await,
        1
    );
    pause.until = Some("2026-03-02".into());
    pause.source_version = world.next();
    client.pause_membership(pause).await.expect("ended");
    world.until_allowed("ann", true).await;

    // The past is told from before the migration on.
    eventually("what she was before is kept", DEADLINE, async || {
        count(&world, "decision_history where version = 1773140000000000").await == 1
    })
    .await;
    let explained = client.explain_member(wire::ExplainMemberRequest {
        gym_id: GYM.into(),
        member_id: "ann".into(),
        at: None,
    });
    let explained = explained.await.expect("explained").into_inner();
    assert!(explained.state.expect("a state").allowed);
    world.finish().await;
}

async fn count(world: &World, of: &str) -> i64 {
    let store = world.store().await;
    let db = store.reads();
    let sql = format!("select count(*) from {of}");
    let row = db
        .query_one_raw(Statement::from_string(db.get_database_backend(), sql))
        .await;
    row.expect("an answer")
        .expect("a row")
        .try_get_by_index(0)
        .expect("a count")
}
