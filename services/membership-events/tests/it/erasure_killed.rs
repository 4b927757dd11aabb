//! The program is killed at each step of forgetting a person, and another one goes on.
//!
//! Where it is, PostgreSQL tells: it waits for a row that the test has locked. On SQLite only what
//! is before the doors' answer is played.

use jiff::Timestamp;
use membership_events::store::{self, Store};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Statement};
use testkit::eventually;

use crate::erasure::{answer, delete, get, messages, proof, traces, with_canary};
use crate::world::{DEADLINE, GYM, World, on_both};

on_both! {
    async fn it_is_killed_before_the_tombstone_is_out(world: World) {
        with_program(world).await;
        world.nats.stop().await.expect("stopped");
        delete(world, "ann").await;
        world.kill_process().await;
        world.nats.restart().await.expect("restarted");
        world.until("nothing new", "ann", |state| !state.erased).await;
        world.start_process().await;
        doors_answer(world).await;
        is_forgotten(world).await;
    }

    async fn it_is_killed_before_the_doors_have_answered(world: World) {
        with_program(world).await;
        delete(world, "ann").await;
        world.until("a tombstone", "ann", |state| state.erased).await;
        world.kill_process().await;
        doors_answer(world).await;
        world.start_process().await;
        is_forgotten(world).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_killed_before_anything_is_taken_from_the_tables() {
    let (mut world, store) = asked().await;
    let held = lock(&store).await;
    doors_answer(&world).await;
    // What moves the outbox may wait for her row too, and before.
    eventually("the answer is written down", DEADLINE, async || {
        proof(&world, "ann").await.answered_at.is_some()
    })
    .await;
    until_it_waits(&store).await;
    world.kill_process().await;
    held.rollback().await.expect("released");
    assert!(traces(&world).await.contains(&"members".to_owned()));
    finished_by_another(world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_killed_before_anything_is_taken_from_the_streams() {
    let (mut world, store) = asked().await;
    let held = lock(&store).await;
    doors_answer(&world).await;
    until_it_waits(&store).await;
    world.nats.pause().expect("frozen");
    held.rollback().await.expect("released");
    eventually("her name is gone", DEADLINE, async || {
        get(&world).await.name.is_empty()
    })
    .await;
    world.kill_process().await;
    world.nats.resume().expect("thawed");
    assert_eq!(proof(&world, "ann").await.purged_at, None);
    let left = traces(&world).await;
    assert!(left.contains(&"BILLING".to_owned()), "{left:?}");
    finished_by_another(world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_killed_when_all_is_taken_and_not_written_down() {
    let (mut world, store) = asked().await;
    let held = lock(&store).await;
    doors_answer(&world).await;
    until_it_waits(&store).await;
    // The next one to have it, before the program comes back for its second look.
    let next = tokio::spawn(async move { (lock(&store).await, store) });
    let look = world.store().await;
    eventually("it waits as well", DEADLINE, async || {
        waiting(&look).await == 2
    })
    .await;
    held.rollback().await.expect("released");
    let (held, store) = next.await.expect("no panic");
    until_it_waits(&store).await;
    assert_eq!(
        messages(&world, "MEMBERSHIP", "membership.v1.iron.ann").await,
        1
    );
    assert_eq!(proof(&world, "ann").await.purged_at, None);
    world.kill_process().await;
    held.rollback().await.expect("released");
    finished_by_another(world).await;
}

/// The real program, in place of the service, and everything personal of ann.
async fn with_program(world: &mut World) {
    with_canary(world).await;
    world.stop_all().await;
    world.start_process().await;
    is_up(world).await;
}

async fn is_up(world: &World) {
    eventually("its port is open", DEADLINE, async || {
        tokio::net::TcpStream::connect(world.address())
            .await
            .is_ok()
    })
    .await;
    let answered = tokio::time::timeout(DEADLINE, get(world)).await;
    assert!(!answered.expect("an answer in time").erased);
}

/// The program was told to forget ann, and has published that.
async fn asked() -> (World, Store) {
    let mut world = World::on_postgres().await;
    with_program(&mut world).await;
    delete(&world, "ann").await;
    world
        .until("a tombstone", "ann", |state| state.erased)
        .await;
    let store = world.store().await;
    (world, store)
}

async fn lock(store: &Store) -> DatabaseTransaction {
    let txn = store.begin().await.expect("a transaction");
    let (gym, ann) = (GYM.parse().expect("an id"), "ann".parse().expect("an id"));
    let locked = store::members::lock(&txn, &gym, &[ann].into()).await;
    locked.expect("locked");
    txn
}

async fn until_it_waits(store: &Store) {
    eventually("it waits for her row", DEADLINE, async || {
        waiting(store).await == 1
    })
    .await;
}

/// How many wait for a row of somebody else.
async fn waiting(store: &Store) -> i64 {
    let sql = "select count(*) from pg_stat_activity
               where datname = current_database() and wait_event_type = 'Lock'";
    let look = Statement::from_string(DbBackend::Postgres, sql);
    let row = store.reads().query_one_raw(look).await.expect("a look");
    row.expect("a row").try_get_by_index(0).expect("a count")
}

async fn doors_answer(world: &World) {
    let tombstone = world
        .until("a tombstone", "ann", |state| state.erased)
        .await;
    answer(world, "ann", "erased", tombstone.version).await;
}

async fn finished_by_another(mut world: World) {
    world.start_process().await;
    is_forgotten(&world).await;
    world.finish().await;
}

async fn is_forgotten(world: &World) {
    world.until_erased("ann").await;
    assert_eq!(traces(world).await, [] as [&str; 0]);
    assert!(proof(world, "ann").await.purged_at.is_some());
    let store = world.store().await;
    eventually(
        "what the dead one had claimed is moved",
        DEADLINE,
        async || {
            let backlog = store::outbox::backlog(store.reads(), i64::MAX).await;
            backlog.expect("a count").depth == 0
        },
    )
    .await;
    world.clock.set(the_machines_now());
}

#[expect(clippy::disallowed_methods, reason = "the program goes by it too")]
fn the_machines_now() -> Timestamp {
    Timestamp::now()
}
