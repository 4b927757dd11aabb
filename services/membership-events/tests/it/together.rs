//! Billing events that wait together: taken in together, and each as if it were alone.

use std::time::Duration;

use contracts::billing::v1::BillingEvent;
use membership_events::store::Store;
use sea_orm::{ConnectionTrait, Statement};
use testkit::eventually;

use crate::roster::{AS_OF, applied, name, roster, whole};
use crate::world::{ACCOUNT, World, invoice, on_both};

/// The invoice of a member of [`roster`], which was not paid.
fn failed(member: usize, id: &str) -> BillingEvent {
    BillingEvent {
        subscription_id: Some(format!("sub_ms_{}", name(member))),
        customer_id: Some(format!("cus_{}", name(member))),
        payment_id: Some(format!("pi_{id}")),
        ..invoice(
            &format!("evt_{id}"),
            "payment_failed",
            &format!("in_{id}"),
            "2026-03-10T05:00:00Z",
        )
    }
}

/// A gym of so many, each with a membership that is in good standing.
async fn gym_of(world: &mut World, members: usize) {
    world.put_gym(|_| {}).await;
    applied(world, whole(AS_OF, roster(0..members))).await;
    let last = name(members - 1);
    world.until_allowed(&last, true).await;
}

/// What a query counts.
pub async fn number(store: &Store, sql: &str) -> i64 {
    let db = store.reads();
    let row = db
        .query_one_raw(Statement::from_string(db.get_database_backend(), sql))
        .await;
    let row = row.expect("an answer").expect("a row");
    row.try_get_by_index(0).expect("a number")
}

/// Inbox rows, links, and members whose doors are closed for a debt: all as many, always.
async fn taken(store: &Store) -> [i64; 3] {
    let mut counts = [0; 3];
    for (count, sql) in counts.iter_mut().zip([
        "select count(*) from billing_events",
        "select count(*) from billing_links",
        "select count(*) from members where state like '%\"missed_payment\"%'",
    ]) {
        *count = number(store, sql).await;
    }
    counts
}

on_both! {
    async fn a_backlog_is_taken_in_together_and_each_event_is_told_as_its_own(world: World) {
        gym_of(world, 60).await;
        world.stop_all().await;
        for n in 0..60 {
            world.publish(&failed(n, &n.to_string())).await;
        }
        world.start_replica().await;
        world.until_billing_is_quiet().await;
        for n in 0..60 {
            let closed = world.until_allowed(&name(n), false).await;
            let cause = closed.cause.expect("a cause");
            assert_eq!(cause.id, format!("stripe/{ACCOUNT}/evt_{n}"));
        }
        let store = world.store().await;
        assert_eq!(taken(&store).await, [60; 3]);
        if world.is_postgres() {
            let transactions = "select count(distinct xmin::text) from billing_events";
            let transactions = number(&store, transactions).await;
            assert!(transactions < 30, "{transactions} transactions for 60 events");
        }
    }

    async fn what_is_wrong_with_one_of_them_is_its_own_affair(world: World) {
        gym_of(world, 12).await;
        // So that this payment has an amount that another may contradict.
        let paid = |id: &str, amount| BillingEvent {
            kind: "payment_succeeded".into(),
            event_id: format!("evt_paid_{id}"),
            amount_minor: Some(amount),
            ..failed(11, "paid")
        };
        world.publish(&paid("once", 4_000)).await;
        world.until_billing_is_quiet().await;
        world.stop_all().await;

        for n in 0..10 {
            world.publish(&failed(n, &n.to_string())).await;
        }
        // A repeat, one that contradicts what is held, one that nobody claims, no event at all, a
        // repeat of the one in this very backlog that says something else, and one more in order.
        world.publish(&failed(3, "3")).await;
        world.publish(&paid("otherwise", 3_999)).await;
        let nobodys = BillingEvent {
            subscription_id: Some("sub_of_nobody".into()),
            customer_id: Some("cus_of_nobody".into()),
            ..failed(0, "nobody")
        };
        world.publish(&nobodys).await;
        world.publish(&BillingEvent { kind: "payment_guessed".into(), ..failed(0, "guessed") }).await;
        world.publish(&BillingEvent { amount_minor: Some(1), ..failed(5, "5") }).await;
        world.publish(&failed(10, "10")).await;
        world.start_replica().await;
        world.until_billing_is_quiet().await;

        for n in 0..11 {
            world.until_allowed(&name(n), false).await;
        }
        assert!(world.published(&name(11)).await.expect("a state").allowed);
        world.until_dead_letters(3).await;
        let store = world.store().await;
        assert_eq!(number(&store, "select count(*) from billing_events").await, 13);
        let parked = "select count(*) from billing_events where parked_at is not null";
        assert_eq!(number(&store, parked).await, 1);
    }

    async fn killed_in_the_middle_of_a_backlog_leaves_nothing_half_done(world: World) {
        gym_of(world, 150).await;
        world.stop_all().await;
        for n in 0..150 {
            world.publish(&failed(n, &n.to_string())).await;
        }
        let mut seen = 0;
        for _ in 0..3 {
            world.start_process().await;
            // The tables are looked at from outside; on SQLite as another reader.
            let store = world.store().await;
            eventually("some more are taken in", Duration::from_secs(20), async || {
                let events = number(&store, "select count(*) from billing_events").await;
                events > seen || events == 150
            })
            .await;
            world.kill_process().await;
            let counts = taken(&store).await;
            assert_eq!(counts, [counts[0]; 3], "half done");
            seen = counts[0];
        }
        world.start_replica().await;
        world.until_billing_is_quiet().await;
        for n in [0, 75, 149] {
            world.until_allowed(&name(n), false).await;
        }
        assert_eq!(taken(&world.store().await).await, [150; 3]);
        assert_eq!(world.dead_letters().await, 0);
    }

    async fn replicas_take_events_of_the_same_people_in_without_losing_one(world: World) {
        gym_of(world, 20).await;
        world.stop_all().await;
        for round in 0..6 {
            for n in 0..20 {
                world.publish(&failed(n, &format!("{n}_{round}"))).await;
            }
        }
        world.start_replica().await;
        if world.is_postgres() {
            world.start_replica().await;
            world.start_replica().await;
        }
        world.until_billing_is_quiet().await;
        for n in 0..20 {
            world.until_allowed(&name(n), false).await;
        }
        assert_eq!(taken(&world.store().await).await, [120, 120, 20]);
        assert_eq!(world.dead_letters().await, 0);
    }
}
