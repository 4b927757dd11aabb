//! What time alone changes.

use crate::world::{World, invoice, on_both};

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
}
