//! A replica that lives and has its tables, and is cut off from NATS alone.
//!
//! PostgreSQL only: on SQLite there is one replica.

use std::time::{Duration, Instant};

use contracts::membership::v1 as wire;

use crate::proxy::Proxy;
use crate::watch::Watch;
use crate::world::{Client, World};

/// Twice what a publish takes that nobody answers.
const SECONDS: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_without_a_connection_writes_another_publishes() {
    others_publish(Proxy::close, Some(Duration::from_millis(500))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_writes_whose_connection_carries_nothing_another_publishes() {
    // What is on its way arrives, as late as the connection is kept for alive.
    others_publish(Proxy::freeze, None).await;
}

/// Where the stream remembers ids for `remembered`, what came again later would stand last there.
async fn others_publish(cut: fn(&Proxy), remembered: Option<Duration>) {
    let mut world = World::on_postgres().await;
    let proxy = Proxy::to(world.nats.address()).await;
    world.start_replica_through(&proxy).await;
    world.with_ann().await;
    world.pause("p1", "2026-03-12", Some("2026-03-13")).await;
    world
        .until("a timer", "ann", |state| state.changes_at.is_some())
        .await;
    if let Some(window) = remembered {
        remember_for(&world, window).await;
    }
    let watch = Watch::start(&world.bus);
    let clients = world.clients_with(&world.tokens.service("writers"));
    let [there, cut_off] = clients.as_slice() else {
        panic!("two replicas");
    };
    cut(&proxy);
    for nth in 0..3 {
        let began = Instant::now();
        let plan = plan(&mut world, cut_off, nth).await;
        has(&world, &plan).await;
        let took = began.elapsed();
        assert!(took < SECONDS, "{took:?} for the {nth}th");
    }
    // In turns, one right after the other.
    let mut last = String::new();
    for nth in 3..9 {
        let client = if nth % 2 == 0 { there } else { cut_off };
        last = plan(&mut world, client, nth).await;
    }
    has(&world, &last).await;
    // Whoever fires it.
    for (at, allowed) in [
        ("2026-03-12T00:00:00Z", false),
        ("2026-03-13T00:00:00Z", true),
    ] {
        let began = Instant::now();
        world.clock.set(at.parse().expect("an instant"));
        world.until_allowed("ann", allowed).await;
        let took = began.elapsed();
        assert!(took < SECONDS, "{took:?} for the timer of {at}");
    }
    // Nothing old comes after it when the connection is back, and it publishes again.
    proxy.open();
    let plan = plan(&mut world, cut_off, 9).await;
    has(&world, &plan).await;
    world.stop_all().await;
    watch.end(&world.bus).await;
    world.finish().await;
}

async fn plan(world: &mut World, client: &Client, nth: u32) -> String {
    let mut put = world.membership("ms", "ann");
    put.plan_id = format!("plan_{nth}");
    let plan = put.plan_id.clone();
    let written = client.clone().put_membership(put).await;
    let outcome: wire::WriteOutcome = written.expect("written").into_inner();
    assert!(outcome.applied);
    plan
}

async fn has(world: &World, plan: &str) {
    let is_held =
        |state: &wire::MembershipStatusChanged| state.plans.iter().any(|held| held.plan_id == plan);
    world.until(plan, "ann", is_held).await;
}

async fn remember_for(world: &World, window: Duration) {
    let stream = world.bus.jetstream().get_stream("MEMBERSHIP").await;
    let mut config = stream.expect("a stream").cached_info().config.clone();
    config.duplicate_window = window;
    let updated = world.bus.jetstream().update_stream(config).await;
    updated.expect("updated");
}
