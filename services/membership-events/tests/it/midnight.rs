//! Many memberships that start at one midnight, next to a gym with a few and to live events, with
//! several replicas where there may be.

use std::time::Duration;

use contracts::membership::v1 as wire;
use sea_orm::ConnectionTrait;

use crate::world::{GYM, World, on_both};

/// Members of the big gym, all due at one midnight.
const CROWD: u64 = 1_500;
const DEADLINE: Duration = Duration::from_secs(60);

on_both! {
    async fn a_crowd_drains_behind_live_events_and_beside_other_gyms(world: World) {
        world.put_gym(|gym| gym.gym_id = "big".into()).await;
        seed_crowd(world).await;
        world.put_gym(|_| {}).await;
        for few in ["ann", "bob", "cat", "live"] {
            world.put_member(few).await;
            world
                .put_membership(few, few, |put| put.starts_on = match few {
                    "live" => "2026-01-01".into(),
                    _ => "2026-03-11".into(),
                })
                .await;
        }
        world.until_allowed("live", true).await;
        world.until_allowed("cat", false).await;
        if world.is_postgres() {
            world.start_replica().await;
            world.start_replica().await;
        }
        let before = messages(world).await;
        world.clock.set("2026-03-11T00:00:00Z".parse().expect("an instant"));
        testkit::eventually("it has begun", DEADLINE, async || messages(world).await > before).await;
        let mut client = world.client();
        let pause = wire::PauseMembershipRequest {
            gym_id: GYM.into(),
            membership_id: "live".into(),
            pause_id: "p".into(),
            from: "2026-03-11".into(),
            until: None,
            source_version: world.next(),
        };
        let said_at = messages(world).await;
        client.pause_membership(pause).await.expect("paused");
        world.until_allowed("live", false).await;
        let went_out = place(world, "live").await;
        let all = before + CROWD + 3 + 1;
        testkit::eventually("all are published", DEADLINE, async || messages(world).await >= all).await;

        // A few batches of the crowd go before it, and not the crowd.
        assert!(went_out < all - CROWD / 3, "{went_out} of {all}, said at {said_at}");
        for few in ["ann", "bob", "cat"] {
            let went_out = place(world, few).await - before;
            assert!(went_out < CROWD / 3, "{few} went out as {went_out} of {CROWD}");
            assert!(world.published(few).await.expect("a state").allowed);
        }
        // Whichever replica fired it, and however many tried: one decision each.
        testkit::eventually("nothing is due", DEADLINE, async || {
            let store = world.store().await;
            let due = membership_events::store::timers::list_gyms(store.reads(), world.now()).await;
            due.expect("gyms").is_empty()
        })
        .await;
        world.stop_all().await;
        assert_eq!(messages(world).await, all);
    }
}

/// People of the gym `big` whose memberships start tomorrow, and about whom that was decided.
async fn seed_crowd(world: &World) {
    let store = world.store().await;
    let midnight = 1_773_187_200_000_000_i64;
    let numbers = format!(
        "with recursive n(n) as (select 1 union all select n + 1 from n where n < {CROWD})"
    );
    for statement in [
        format!(
            "insert into members (gym_id, member_id, email, name, source_version, version,
                                  changes_at, overrides, erased)
             {numbers} select 'big', 'm' || n, '', '', 1, 1, {midnight}, '[]', false from n"
        ),
        format!(
            "insert into memberships (gym_id, membership_id, plan_id, holders, starts_on, pauses,
                                      source_version)
             {numbers} select 'big', 's' || n, 'gold', '[\"m' || n || '\"]', '2026-03-11', '[]', 1
             from n"
        ),
        format!(
            "insert into membership_people (gym_id, member_id, membership_id)
             {numbers} select 'big', 'm' || n, 's' || n from n"
        ),
    ] {
        let done = store.reads().execute_unprepared(&statement).await;
        done.expect("seeded");
    }
}

/// How many messages have gone out in all.
async fn messages(world: &World) -> u64 {
    let stream = world.bus.jetstream().get_stream("MEMBERSHIP").await;
    let mut stream = stream.expect("a stream");
    stream.info().await.expect("its state").state.last_sequence
}

/// As which message a member's last one went out.
async fn place(world: &World, member: &str) -> u64 {
    let stream = world.bus.jetstream().get_stream("MEMBERSHIP").await;
    let stream = stream.expect("a stream");
    let subject = format!("membership.v1.{GYM}.{member}");
    let last = stream.get_last_raw_message_by_subject(&subject).await;
    last.expect("a message").sequence
}
