//! The rules of a large gym change: everybody is decided about again, and nobody waits for all.

use contracts::membership::v1 as wire;
use contracts::membership::v1::import_roster_request::Part;
use jiff::Timestamp;
use membership_events::store::{self, Store};
use sea_orm::{ConnectionTrait, Statement};
use testkit::eventually;

use crate::roster::{AS_OF, applied, roster, whole};
use crate::world::{DEADLINE, GYM, World, invoice, on_both};

/// Many pages.
const CROWD: usize = 1_500;
const LONDON: &str = "2027-01-01T00:00:00Z";
const TOKYO: &str = "2026-12-31T15:00:00Z";
const NEW_YORK: &str = "2027-01-01T05:00:00Z";

on_both! {
    async fn a_large_gym_is_decided_about_page_by_page_with_live_events_in_between(world: World) {
        let store = crowd(world).await;
        let before = messages(world).await;
        world.put_gym(|gym| gym.time_zone = "Asia/Tokyo".into()).await;
        assert!(is_under_way(&store).await, "it answers after the first page");
        assert!(number_of(&store, TOKYO).await > 0, "which is decided about");
        // The last of the last page.
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z")).await;
        world.until_allowed("zoe", false).await;
        assert!(is_under_way(&store).await, "she waited for the others");
        // Whoever is there goes on where it was.
        world.stop_all().await;
        assert!(is_under_way(&store).await);
        let done = number_of(&store, TOKYO).await;
        assert!(done < CROWD as i64, "{done}");
        world.start_replica().await;
        if world.is_postgres() {
            world.start_replica().await;
        }
        until_done(&store).await;
        assert_eq!(number_of(&store, TOKYO).await, CROWD as i64);
        eventually("all of it is out", DEADLINE, async || {
            messages(world).await > before + CROWD as u64
        })
        .await;
        assert_eq!(messages(world).await, before + CROWD as u64 + 1, "each once");
        let state = world.published("m_000007").await.expect("a state");
        assert_eq!(state.cause.expect("a cause").id, "PutGym");
    }

    async fn a_change_of_rules_that_comes_meanwhile_begins_at_the_first_again(world: World) {
        let store = crowd(world).await;
        world.put_gym(|gym| gym.time_zone = "Asia/Tokyo".into()).await;
        eventually("more than the first page", DEADLINE, async || {
            number_of(&store, TOKYO).await > 300
        })
        .await;
        world.put_gym(|gym| gym.time_zone = "America/New_York".into()).await;
        assert!(is_under_way(&store).await);
        until_done(&store).await;
        assert_eq!(number_of(&store, NEW_YORK).await, CROWD as i64);
    }
}

/// A gym of many whose memberships end with the year, and zoe.
async fn crowd(world: &mut World) -> Store {
    world.put_gym(|_| {}).await;
    let ends = |part| match part {
        Part::Membership(mut put) => {
            put.ends_on = Some("2026-12-31".into());
            Part::Membership(put)
        }
        other => other,
    };
    applied(world, whole(AS_OF, roster(0..CROWD).map(ends))).await;
    world.put_member("zoe").await;
    let put = |_: &mut wire::PutMembershipRequest| {};
    world.put_membership("ms", "zoe", put).await;
    world.until_allowed("zoe", true).await;
    let store = world.store().await;
    eventually("all of it is out", DEADLINE, async || {
        let backlog = store::outbox::backlog(store.reads(), i64::MAX).await;
        backlog.expect("a count").depth == 0
    })
    .await;
    assert_eq!(number_of(&store, LONDON).await, CROWD as i64);
    store
}

/// Messages that were ever put on `MEMBERSHIP`.
async fn messages(world: &World) -> u64 {
    let stream = world.bus.jetstream().get_stream("MEMBERSHIP").await;
    let mut stream = stream.expect("a stream");
    stream.info().await.expect("its state").state.last_sequence
}

async fn is_under_way(store: &Store) -> bool {
    let gyms = store::rule_changes::list_gyms(store.reads()).await;
    gyms.expect("gyms").iter().any(|gym| gym.0.as_str() == GYM)
}

async fn until_done(store: &Store) {
    eventually("everybody is decided about", DEADLINE, async || {
        !is_under_way(store).await
    })
    .await;
}

/// How many are held to change next at this instant.
async fn number_of(store: &Store, at: &str) -> i64 {
    let at: Timestamp = at.parse().expect("an instant");
    let sql = "select count(*) from members where changes_at = $1";
    let values = [at.as_microsecond().into()];
    let backend = store.reads().get_database_backend();
    let statement = Statement::from_sql_and_values(backend, sql, values);
    let row = store.reads().query_one_raw(statement).await;
    let row = row.expect("an answer").expect("a row");
    row.try_get_by_index(0).expect("a count")
}
