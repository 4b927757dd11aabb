//! The outbox: no delay by polling, no gap, nothing left to a replica that is gone, and what waits
//! shows.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use contracts::membership::v1 as wire;
use membership_events::outbox::Relay;
use membership_events::store::{self, Store, outbox::NewRow};
use testkit::{eventually, eventually_some, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::world::{GYM, World, on_both};

const DEADLINE: Duration = Duration::from_secs(30);

on_both! {
    async fn what_waits_behind_an_older_message_waits_for_no_poll(world: World) {
        world.with_ann().await;
        if world.is_postgres() {
            world.start_replica().await;
        }
        let clients = world.clients_with(&world.tokens.service("writers"));
        let began = Instant::now();
        // Each write leaves its row behind that of the one before, on another replica if there is
        // one; the poll comes once a second.
        for nth in 0..40_usize {
            for half in ["a", "b"] {
                let mut put = world.membership("ms", "ann");
                put.plan_id = format!("plan_{nth}_{half}");
                let mut client = clients[(nth + half.len()) % clients.len()].clone();
                client.put_membership(put).await.expect("written");
            }
            let last = format!("plan_{nth}_b");
            world.until("the last plan", "ann", |state| state.plans[0].plan_id == last).await;
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?} for 40 times");
    }

    async fn what_a_dead_replica_had_claimed_another_publishes(world: World) {
        world.with_ann().await;
        world.stop_all().await;
        // Claimed by somebody who is no more, and just now.
        let store = world.store().await;
        let claimed_until = now() + 2_000_000;
        leave(&store, "ghost", 7, claimed_until).await;
        world.start_replica().await;
        world.until("it", "ghost", |state| state.version == 7).await;
        // SQLite belongs to one process, which knows that nobody else has it.
        assert!(now() >= claimed_until || !world.is_postgres());
        gone(&store).await;
    }

    async fn what_waits_shows_in_number_and_age(world: World) {
        world.with_ann().await;
        world.stop_all().await;
        let health = format!("127.0.0.1:{}", free_port());
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut program = world.program(env!("CARGO_BIN_EXE_membership-events"), address);
        program.env("HEALTH_ADDR", &health);
        world.start_program(program, address);
        let shown = async |name: &str| -> Option<f64> {
            let page = page(&health, "/metrics").await?;
            let line = page.lines().find(|line| line.starts_with(name))?;
            line.rsplit(' ').next()?.parse().ok()
        };
        let depth = "membership_events_outbox_depth";
        let age = "membership_events_outbox_age_seconds";
        eventually("it is ready", DEADLINE, async || page(&health, "/readyz").await.is_some_and(is_ok)).await;
        assert_eq!((shown(depth).await, shown(age).await), (Some(0.0), Some(0.0)));
        world.nats.stop().await.expect("stopped");
        let put = world.membership("second", "ann");
        world.client().put_membership(put).await.expect("written");
        eventually("one waits", DEADLINE, async || shown(depth).await == Some(1.0)).await;
        eventually_some("its age", DEADLINE, async || shown(age).await.filter(|age| *age > 1.0)).await;
        world.nats.restart().await.expect("restarted");
        eventually("nothing waits", DEADLINE, async || {
            shown(depth).await == Some(0.0) && shown(age).await == Some(0.0)
        })
        .await;
    }
}

on_both! {
    async fn what_was_committed_before_the_process_stood_still_does_not_come_last(world: World) {
        world.with_ann().await;
        let newer = world.published("ann").await.expect("a state").version;
        world.stop_all().await;
        // Committed, and held for so long that others have published newer states.
        let store = world.store().await;
        let old = vec![row("ann", newer - 1, now() - 1)];
        let old = store::outbox::insert(store.reads(), old).await.expect("written");
        let wall = std::sync::Arc::new(service_runtime::clock::SystemClock);
        let (relay, outcomes) = Relay::new(world.bus.clone(), wall);
        let stop = CancellationToken::new();
        let relaying = tokio::spawn(relay.clone().run(store.clone(), outcomes, stop.clone()));
        relay.submit(old);
        gone(&store).await;
        assert_eq!(world.published("ann").await.expect("a state").version, newer);
        stop.cancel();
        relaying.await.expect("no panic");
    }
}

/// A row that is committed after one with a greater number: nobody may have gone past it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_committed_late_is_no_gap() {
    let mut world = World::on_postgres().await;
    world.with_ann().await;
    world.put_member("bob").await;
    let store = world.store().await;
    let late = store.begin().await.expect("a transaction");
    store::outbox::insert(&late, vec![row("ghost", 7, 0)])
        .await
        .expect("written");
    world.put_membership("bobs", "bob", |_| {}).await;
    world.until_allowed("bob", true).await;
    gone(&store).await;
    late.commit().await.expect("committed");
    world.until("it", "ghost", |state| state.version == 7).await;
    gone(&store).await;
    world.finish().await;
}

#[expect(clippy::disallowed_methods, reason = "replicas compare claims by it")]
fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

fn row(member: &str, version: i64, claimed_until: i64) -> NewRow {
    let state = wire::MembershipStatusChanged {
        gym_id: GYM.into(),
        member_id: member.into(),
        version,
        ..wire::MembershipStatusChanged::default()
    };
    NewRow {
        gym_id: access_domain::ids::GymId::parse(GYM)
            .as_ref()
            .expect("an id")
            .into(),
        member_id: access_domain::ids::MemberId::parse(member)
            .as_ref()
            .expect("an id")
            .into(),
        version,
        payload: serde_json::to_string(&state).expect("JSON"),
        traceparent: None,
        occurred_at: now(),
        created_at: now(),
        claimed_until,
    }
}

async fn leave(store: &Store, member: &str, version: i64, claimed_until: i64) {
    let rows = vec![row(member, version, claimed_until)];
    store::outbox::insert(store.reads(), rows)
        .await
        .expect("written");
}

async fn gone(store: &Store) {
    eventually("the outbox is empty", DEADLINE, async || {
        let waiting = store::outbox::backlog(store.reads(), i64::MAX).await;
        waiting.expect("a count").depth == 0
    })
    .await;
}

fn is_ok(page: String) -> bool {
    page.lines()
        .next()
        .is_some_and(|status| status.contains(" 200 "))
}

async fn page(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
