//! Many writers at once on one member: no fact is lost and no version given twice; one that is
//! killed in the middle leaves nothing half done.

use std::time::Duration;

use contracts::membership::v1 as wire;
use contracts::wire as convert;
use membership_events::store::{self, Store};
use sea_orm::sqlx::{Row, query};
use testkit::eventually;
use tokio::task::JoinSet;
use tonic::Code;

use crate::watch::Watch;
use crate::world::{GYM, World, invoice, on_both};

const DEADLINE: Duration = Duration::from_secs(30);
/// Of each kind of fact.
const OF_EACH: usize = 6;

on_both! {
    async fn facts_of_every_kind_said_at_once_of_one_member_are_all_kept(world: World) {
        world.with_ann().await;
        if world.is_postgres() {
            world.start_replica().await;
        }
        let watch = Watch::start(&world.bus);
        let clients = world.clients_with(&world.tokens.service("writers"));
        let now = convert::timestamp(world.now());
        let soon = convert::timestamp(world.now() + jiff::SignedDuration::from_hours(1));
        let mut writers = JoinSet::new();
        for nth in 0..OF_EACH {
            let mut client = clients[nth % clients.len()].clone();
            let put = world.membership(&format!("ms_{nth}"), "ann");
            let pause = wire::PauseMembershipRequest {
                gym_id: GYM.into(),
                membership_id: "ms".into(),
                pause_id: format!("p_{nth}"),
                from: format!("2026-05-1{nth}"),
                until: Some(format!("2026-06-1{nth}")),
                source_version: world.next(),
            };
            let payment = wire::RecordPaymentRequest {
                gym_id: GYM.into(),
                membership_id: "ms".into(),
                payment_id: format!("desk_{nth}"),
                invoice_id: Some("in_desk".into()),
                amount_minor: 100,
                currency: "GBP".into(),
                received_at: Some(now),
            };
            let put_override = wire::PutOverrideRequest {
                gym_id: GYM.into(),
                member_id: "ann".into(),
                override_id: format!("o_{nth}"),
                kind: "let_in".into(),
                until: Some(soon),
                reason: "a test".into(),
                ..wire::PutOverrideRequest::default()
            };
            let mut other = client.clone();
            writers.spawn(async move {
                client.put_membership(put).await?;
                client.put_override(put_override).await.map(drop)
            });
            writers.spawn(async move {
                other.pause_membership(pause).await?;
                other.record_payment(payment).await.map(drop)
            });
            let told = invoice(
                &format!("evt_{nth}"),
                "payment_failed",
                &format!("in_{nth}"),
                "2026-03-10T05:00:00Z",
            );
            world.publish(&told).await;
        }
        while let Some(written) = writers.join_next().await {
            written.expect("no panic").expect("written");
        }
        world.until_billing_is_quiet().await;
        world
            .until("all of them", "ann", |state| state.memberships.len() == 1 + OF_EACH)
            .await;
        let store = world.store().await;
        testkit::eventually("the outbox is empty", DEADLINE, async || {
            let waiting = store::outbox::backlog(store.reads(), i64::MAX).await;
            waiting.expect("a count").depth == 0
        })
        .await;

        let gym = GYM.parse().expect("an id");
        let db = store.reads();
        let ann = store::members::find(db, &gym, &"ann".parse().expect("an id")).await;
        let ann = ann.expect("read").expect("ann");
        let ms = store::memberships::list_of_people(db, &gym, &["ann".parse().expect("an id")].into())
            .await
            .expect("read")
            .into_iter()
            .find(|row| row.membership_id.as_str() == "ms")
            .expect("the membership");
        let linked = store::links::list_linked(db, &gym, &["ms".parse().expect("an id")].into()).await;
        let linked: String = linked.expect("read").into_iter().map(|(_, event)| event).collect();
        for nth in 0..OF_EACH {
            assert!(ms.pauses.contains(&format!("\"p_{nth}\"")), "{}", ms.pauses);
            assert!(ann.overrides.contains(&format!("\"o_{nth}\"")), "{}", ann.overrides);
            assert!(linked.contains(&format!("\"desk_{nth}\"")), "{linked}");
            assert!(linked.contains(&format!("\"in_{nth}\"")), "{linked}");
        }
        // Each version once, and the newest last.
        let last = watch.end(&world.bus).await;
        assert_eq!(last["ann"].0, ann.version);
    }

    async fn of_many_writers_of_one_membership_the_newest_wins(world: World) {
        world.with_ann().await;
        if world.is_postgres() {
            world.start_replica().await;
        }
        let clients = world.clients_with(&world.tokens.service("writers"));
        let mut writers = JoinSet::new();
        for nth in 0..20_usize {
            let mut put = world.membership("ms", "ann");
            put.plan_id = format!("plan_{nth}");
            let mut client = clients[nth % clients.len()].clone();
            writers.spawn(async move { (nth, client.put_membership(put).await) });
        }
        while let Some(written) = writers.join_next().await {
            let (nth, outcome) = written.expect("no panic");
            let outcome = outcome.expect("an answer").into_inner();
            assert!(outcome.applied || nth < 19, "the newest is never stale");
        }
        world
            .until("the newest", "ann", |state| state.plans[0].plan_id == "plan_19")
            .await;
    }
}

/// PostgreSQL only: on SQLite there is one process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_killed_in_the_middle_of_a_transaction_leaves_nothing_half_done() {
    let mut world = World::on_postgres().await;
    world.with_ann().await;
    let store = world.store().await;
    let gym = GYM.parse().expect("an id");
    let ann = &["ann".parse().expect("an id")].into();
    world.start_process().await;
    let mut doomed = world.client();
    eventually("the program is up", DEADLINE, async || {
        let request = wire::GetMemberRequest {
            gym_id: GYM.into(),
            member_id: "ann".into(),
            read_mask: None,
        };
        doomed.get_member(request).await.is_ok()
    })
    .await;
    // Whoever decides about ann has written all else by the time it waits for us.
    let ours = store.begin().await.expect("a transaction");
    store::members::lock(&ours, &gym, ann)
        .await
        .expect("locked");
    let mut put = world.membership("second", "ann");
    put.plan_id = "silver".into();
    let again = put.clone();
    let mut call = doomed.clone();
    let called = tokio::spawn(async move { call.put_membership(put).await });
    eventually("it waits", DEADLINE, async || waiting(&store).await == 1).await;
    world.kill_process().await;
    let status = called.await.expect("no panic").expect_err("no answer");
    assert!(
        matches!(status.code(), Code::Unavailable | Code::Unknown),
        "{status:?}"
    );
    ours.rollback().await.expect("released");
    eventually("its connection is gone", DEADLINE, async || {
        waiting(&store).await == 0
    })
    .await;

    let held = store::memberships::list_of_people(store.reads(), &gym, ann).await;
    assert_eq!(held.expect("read").len(), 1);
    let backlog = store::outbox::backlog(store.reads(), i64::MAX).await;
    assert_eq!(backlog.expect("a count").depth, 0);
    // Another replica goes on, with the very same call.
    let outcome = world.client().put_membership(again).await.expect("written");
    assert!(outcome.into_inner().applied);
    world
        .until("two plans", "ann", |state| state.plans.len() == 2)
        .await;
    world.finish().await;
}

/// How many connections to this database wait for a lock.
async fn waiting(store: &Store) -> i64 {
    let count = query(
        "select count(*) from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock'",
    );
    let pool = store.reads().get_postgres_connection_pool();
    count.fetch_one(pool).await.expect("a count").get(0)
}
