//! What time alone changes.

use contracts::membership::v1 as wire;
use contracts::wire as convert;
use jiff::{SignedDuration, Timestamp};

use crate::world::{GYM, World, invoice, on_both};

on_both! {
    async fn a_membership_starts_at_midnight_of_the_gyms_zone(world: World) {
        world.put_gym(|gym| gym.time_zone = "America/New_York".into()).await;
        world.put_member("ann").await;
        world.put_membership("ms", "ann", |put| put.starts_on = "2026-03-11".into()).await;
        let pending = world.until_allowed("ann", false).await;
        assert_eq!(pending.reasons, ["membership_not_started"]);
        world.clock.set("2026-03-11T03:59:59Z".parse().expect("an instant"));
        world.put_membership("ms", "ann", |put| put.starts_on = "2026-03-11".into()).await;
        assert_eq!(world.published("ann").await.expect("a state").version, pending.version);
        world.clock.set("2026-03-11T04:00:00Z".parse().expect("an instant"));
        let started = world.until_allowed("ann", true).await;
        let cause = started.cause.expect("a cause");
        assert_eq!((cause.kind.as_str(), cause.actor.as_str()), ("timer", "time"));
        assert_eq!(cause.id, "2026-03-11T04:00:00Z");
    }

    async fn a_pause_begins_and_ends_by_itself_on_every_replica(world: World) {
        world.with_ann().await;
        // On SQLite one process owns the file.
        if world.is_postgres() {
            world.start_replica().await;
            world.start_replica().await;
        }
        world.pause("p1", "2026-03-12", Some("2026-03-14")).await;
        world.until("a timer", "ann", |state| state.changes_at.is_some()).await;
        world.clock.set("2026-03-12T00:00:00Z".parse().expect("an instant"));
        let paused = world.until_allowed("ann", false).await;
        world.clock.set("2026-03-14T00:00:00Z".parse().expect("an instant"));
        let back = world.until_allowed("ann", true).await;
        assert!(back.version > paused.version);
        assert!(back.changes_at.is_none());
    }

    async fn a_zone_that_changes_moves_the_timers(world: World) {
        world.put_gym(|_| {}).await;
        world.put_member("ann").await;
        world.put_membership("ms", "ann", |put| put.starts_on = "2026-03-11".into()).await;
        world.until_allowed("ann", false).await;
        world.put_gym(|gym| gym.time_zone = "Asia/Tokyo".into()).await;
        world.clock.set("2026-03-10T15:00:00Z".parse().expect("an instant"));
        world.until_allowed("ann", true).await;
    }

    async fn access_closes_when_the_grace_runs_out(world: World) {
        world.put_gym(|gym| {
            gym.overdue_grace = Some(pbjson_types::Duration { seconds: 86_400, nanos: 0 });
        })
        .await;
        world.put_member("ann").await;
        world.put_membership("ms", "ann", |_| {}).await;
        world.until_allowed("ann", true).await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z")).await;
        let overdue = world
            .until("overdue", "ann", |state| state.memberships[0].status == "overdue")
            .await;
        assert!(overdue.allowed);
        world.clock.set("2026-03-11T05:00:00Z".parse().expect("an instant"));
        world.until_allowed("ann", false).await;
    }

    async fn timers_that_came_due_while_nothing_ran_fire_at_start(world: World) {
        world.with_ann().await;
        world.put_member("bob").await;
        world.put_membership("bobs", "bob", |put| put.starts_on = "2026-03-12".into()).await;
        world.pause("p1", "2026-03-11", None).await;
        world.until("a timer", "ann", |state| state.changes_at.is_some()).await;
        world.until_allowed("bob", false).await;
        world.stop_all().await;
        world.clock.set("2026-03-20T09:00:00Z".parse().expect("an instant"));
        world.start_replica().await;
        let ann = world.until_allowed("ann", false).await;
        let bob = world.until_allowed("bob", true).await;
        // Each says which of its instants it was.
        assert_eq!(ann.cause.expect("a cause").id, "2026-03-11T00:00:00Z");
        assert_eq!(bob.cause.expect("a cause").id, "2026-03-12T00:00:00Z");
    }

    async fn what_a_clock_put_back_had_decided_too_early_is_decided_again(world: World) {
        world.with_ann().await;
        world.pause("p1", "2026-03-12", Some("2026-03-14")).await;
        world.until("a timer", "ann", |state| state.changes_at.is_some()).await;
        world.clock.set("2026-03-12T00:00:00Z".parse().expect("an instant"));
        let early = world.until_allowed("ann", false).await;
        world.clock.set("2026-03-10T13:00:00Z".parse().expect("an instant"));
        let back = world.until_allowed("ann", true).await;
        assert!(back.version > early.version);
        let changes_at = back.changes_at.as_ref().and_then(convert::instant);
        assert_eq!(changes_at.expect("an instant").to_string(), "2026-03-12T00:00:00Z");
        // Put back while nothing runs.
        world.clock.set("2026-03-14T00:00:00Z".parse().expect("an instant"));
        world.until("the end of it", "ann", |state| state.changes_at.is_none()).await;
        world.stop_all().await;
        world.clock.set("2026-03-13T08:00:00Z".parse().expect("an instant"));
        world.start_replica().await;
        world.until_allowed("ann", false).await;
    }
}

/// PostgreSQL only: on SQLite there is one writer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_whose_member_somebody_has_locked_fires_soon_after() {
    let mut world = World::on_postgres().await;
    world.with_ann().await;
    world.pause("p1", "2026-03-12", None).await;
    world
        .until("a timer", "ann", |state| state.changes_at.is_some())
        .await;
    let store = world.store().await;
    let ours = store.begin().await.expect("a transaction");
    let (gym, ann) = (GYM.parse().expect("an id"), "ann".parse().expect("an id"));
    let locked = membership_events::store::members::lock(&ours, &gym, &[ann].into()).await;
    locked.expect("locked");
    world
        .clock
        .set("2026-03-12T00:00:00Z".parse().expect("an instant"));
    // Others are not held up by it.
    world.put_member("bob").await;
    world
        .put_membership("bobs", "bob", |put| put.starts_on = "2026-03-13".into())
        .await;
    world.until_allowed("bob", false).await;
    world
        .clock
        .set("2026-03-13T00:00:00Z".parse().expect("an instant"));
    world.until_allowed("bob", true).await;
    assert!(world.published("ann").await.expect("a state").allowed);
    ours.rollback().await.expect("released");
    world.until_allowed("ann", false).await;
    world.finish().await;
}

/// A lone timer, under the machine's own clock, to the arrival of its message.
mod a_lone_timer_fires_within_a_second_of_its_instant {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_sqlite() {
        lone_timers(World::on_sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_postgres() {
        lone_timers(World::on_postgres().await).await;
    }
}

/// Of five two may be late because the machine is. The last one was stored by a replica that is no
/// more.
async fn lone_timers(mut world: World) {
    world.with_ann().await;
    world.stop_all().await;
    world.start_process().await;
    let mut late = Vec::new();
    for nth in 0..4 {
        let (due, barred) = barred_for(&world, nth, SignedDuration::from_millis(1_200)).await;
        late.push(lateness(&world, due, barred).await);
    }
    // Long enough for another to come up: SQLite has one replica at a time.
    let stays = world.address();
    if world.is_postgres() {
        world.start_process().await;
    }
    let (due, barred) = barred_for(&world, 4, SignedDuration::from_secs(5)).await;
    world.kill_process().await;
    if world.is_postgres() {
        assert_eq!(world.address(), stays);
    } else {
        world.start_process().await;
    }
    late.push(lateness(&world, due, barred).await);
    late.sort_unstable();
    assert!(late[2] < SignedDuration::from_secs(1), "late by {late:?}");
    world.stop_all().await;
}

/// Bars ann until an instant; answers it, and the version of that.
async fn barred_for(world: &World, nth: usize, lasts: SignedDuration) -> (Timestamp, i64) {
    let mut client = world.client();
    let what = "barred";
    testkit::eventually_some(what, std::time::Duration::from_secs(20), async || {
        let until = the_machines_now() + lasts;
        let bar = wire::PutOverrideRequest {
            gym_id: GYM.into(),
            member_id: "ann".into(),
            override_id: format!("o{nth}"),
            kind: "bar".into(),
            until: Some(convert::timestamp(until)),
            reason: "a test".into(),
            ..wire::PutOverrideRequest::default()
        };
        let answer = client.put_override(bar).await.ok()?;
        Some((until, answer.into_inner().members[0].version))
    })
    .await
}

/// How long after its instant the message of a timer has arrived.
async fn lateness(world: &World, due: Timestamp, barred: i64) -> SignedDuration {
    let is_back = |state: &wire::MembershipStatusChanged| state.allowed && state.version > barred;
    world.until("let in by time", "ann", is_back).await;
    let late = the_machines_now().duration_since(due);
    assert!(late >= SignedDuration::ZERO, "early by {late:?}");
    late
}

#[expect(clippy::disallowed_methods, reason = "the program goes by it too")]
fn the_machines_now() -> Timestamp {
    Timestamp::now()
}
