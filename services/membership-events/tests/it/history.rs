//! Past decisions: each is kept once, for 13 months, whatever happens on its way from the outbox.

use std::time::Duration;

use access_domain::ids::{GymId, MemberId};
use contracts::membership::v1 as wire;
use membership_events::history::{kept_since, prune};
use membership_events::store::history::{
    Acked, Decided, Place, decided_at, erase, keep, list_places, list_until,
};
use membership_events::store::migrations::Migrator;
use membership_events::store::{DatabaseSettings, Store, outbox};
use sea_orm::{ConnectionTrait, Database, DbBackend, Statement};
use sea_orm_migration::MigratorTrait;
use testkit::TestDatabase;

use crate::world::{GYM, World, on_both};

const DEADLINE: Duration = Duration::from_secs(20);

/// Puts decisions back into the outbox.
const BACK: &str = "insert into outbox (gym_id, member_id, version, payload, occurred_at,
                                        created_at, claimed_until)
                    select gym_id, member_id, version, payload, decided_at, decided_at, 0
                    from decision_history";

on_both! {
    async fn every_decision_is_kept_as_it_was_published(world: World) {
        world.with_ann().await;
        let mut published = vec![world.until_allowed("ann", true).await];
        for round in 0..3 {
            world.clock.advance(Duration::from_secs(60));
            world.pause(&format!("p{round}"), "2026-03-10", None).await;
            published.push(world.until_allowed("ann", false).await);
            world.clock.advance(Duration::from_secs(60));
            world.resume(None).await;
            published.push(world.until_allowed("ann", true).await);
        }
        let store = world.store().await;
        until_moved(&store).await;
        assert_eq!(states(&kept(&store, "ann").await), published);
    }

    async fn a_state_that_is_sent_again_is_kept_once(world: World) {
        world.with_ann().await;
        let store = world.store().await;
        for _ in 0..2 {
            world.clock.advance(Duration::from_secs(60));
            let request = wire::RepublishGymRequest { gym_id: GYM.into(), member_ids: Vec::new() };
            world.client().republish_gym(request).await.expect("republished");
            until_moved(&store).await;
            assert_eq!(states(&kept(&store, "ann").await), [world.until_allowed("ann", true).await]);
        }
    }

    async fn what_was_published_and_not_moved_is_moved_by_the_next_process(world: World) {
        world.with_ann().await;
        let store = world.store().await;
        until_moved(&store).await;
        let before = kept(&store, "ann").await;
        assert_eq!(before.len(), 1);
        world.stop_all().await;
        // As a process leaves it that ends right after the ack.
        run(&store, BACK).await;
        run(&store, "delete from decision_history").await;
        world.start_replica().await;
        until_moved(&store).await;
        assert_eq!(kept(&store, "ann").await, before);
        // As one leaves it whose rows another has published and moved meanwhile.
        world.stop_all().await;
        run(&store, BACK).await;
        world.start_replica().await;
        until_moved(&store).await;
        assert_eq!(kept(&store, "ann").await, before);
    }

    async fn what_a_dead_process_left_is_never_published_after_what_is_newer(world: World) {
        world.with_ann().await;
        let store = world.store().await;
        for (round, allowed) in [(1, false), (2, true), (3, false)] {
            world.clock.advance(Duration::from_secs(60));
            match allowed {
                true => world.resume(None).await,
                false => world.pause(&format!("p{round}"), "2026-03-10", None).await,
            }
            world.until_allowed("ann", allowed).await;
        }
        let last = world.published("ann").await;
        until_moved(&store).await;
        world.stop_all().await;
        // As a process leaves it that ends right after its last ack.
        run(&store, &format!("{BACK} order by version")).await;
        // The server keeps two states of a member, and after a restart knows the ids of no other.
        world.nats.restart().await.expect("restarted");
        world.start_replica().await;
        until_moved(&store).await;
        assert_eq!(world.published("ann").await, last);
    }

    async fn old_decisions_go_and_what_held_thirteen_months_ago_stays(world: World) {
        world.put_gym(|_| {}).await;
        let store = world.store().await;
        // Ann changes on the 10th of March, April and June 2026; bob once, in March.
        for member in ["ann", "bob"] {
            world.put_member(member).await;
        }
        world.put_membership("ms", "ann", |_| {}).await;
        world.put_membership("other", "bob", |_| {}).await;
        world.until_allowed("bob", true).await;
        world.clock.set("2026-04-10T12:00:00Z".parse().expect("an instant"));
        world.pause("p1", "2026-04-10", None).await;
        world.until_allowed("ann", false).await;
        world.clock.set("2026-06-10T12:00:00Z".parse().expect("an instant"));
        world.resume(None).await;
        world.until_allowed("ann", true).await;
        until_moved(&store).await;
        let all = kept(&store, "ann").await;
        assert_eq!(all.len(), 3);

        let mut passed: Option<Place> = None;
        let mut prune_at = async |now: &str| {
            let line = kept_since(now.parse().expect("an instant"));
            prune(&store, line, &mut passed).await.expect("pruned");
            (kept(&store, "ann").await, kept(&store, "bob").await.len())
        };
        assert_eq!(prune_at("2027-05-10T11:59:59Z").await, (all.clone(), 1));
        // April's is 13 months old, and March's was replaced by it.
        assert_eq!(prune_at("2027-05-10T12:00:00Z").await, (all[1..].to_vec(), 1));
        assert_eq!(prune_at("2027-07-10T11:59:59Z").await, (all[1..].to_vec(), 1));
        assert_eq!(prune_at("2027-07-10T12:00:00Z").await, (all[2..].to_vec(), 1));
        assert_eq!(prune_at("2099-01-01T00:00:00Z").await, (all[2..].to_vec(), 1));
    }

    async fn a_running_service_prunes_by_itself(world: World) {
        world.with_ann().await;
        world.clock.advance(Duration::from_secs(60));
        world.pause("p1", "2026-03-10", None).await;
        world.until_allowed("ann", false).await;
        let store = world.store().await;
        until_moved(&store).await;
        world.stop_all().await;
        world.clock.set("2027-06-01T00:00:00Z".parse().expect("an instant"));
        world.start_replica().await;
        testkit::eventually("the older row is gone", DEADLINE, async || {
            kept(&store, "ann").await.len() == 1
        })
        .await;
    }

    async fn of_an_erased_member_only_the_tombstone_is_kept(world: World) {
        world.with_ann().await;
        let store = world.store().await;
        let (gym, ann) = ids("ann");
        let txn = store.begin().await.expect("a transaction");
        erase(&txn, &gym, &ann).await.expect("no harm");
        txn.commit().await.expect("committed");
        until_moved(&store).await;
        assert_eq!(kept(&store, "ann").await.len(), 1, "she is not erased yet");

        world.clock.advance(Duration::from_secs(60));
        let request = wire::DeleteMemberRequest { gym_id: GYM.into(), member_id: "ann".into() };
        world.client().delete_member(request).await.expect("erased");
        let tombstone = world.until("a tombstone", "ann", |state| state.erased).await;
        until_moved(&store).await;
        assert_eq!(kept(&store, "ann").await.len(), 2);
        let txn = store.begin().await.expect("a transaction");
        erase(&txn, &gym, &ann).await.expect("erased");
        txn.commit().await.expect("committed");
        assert_eq!(states(&kept(&store, "ann").await), [tombstone]);
    }
}

/// On SQLite writers are serial, and there is nothing to meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_meets_a_decision_on_its_way_leaves_the_tombstone_alone() {
    let mut world = World::on_postgres().await;
    world.with_ann().await;
    world.clock.advance(Duration::from_secs(60));
    let request = wire::DeleteMemberRequest {
        gym_id: GYM.into(),
        member_id: "ann".into(),
    };
    world.client().delete_member(request).await.expect("erased");
    let tombstone = world
        .until("a tombstone", "ann", |state| state.erased)
        .await;
    let store = world.store().await;
    until_moved(&store).await;
    world.stop_all().await;
    // Her first decision is once more in the outbox, acked and not moved yet.
    let older = format!("where version < {}", tombstone.version);
    run(&store, &format!("{BACK} {older}")).await;
    run(&store, &format!("delete from decision_history {older}")).await;
    let mut acked = outbox::claim(store.reads(), i64::MAX, i64::MAX, 10)
        .await
        .expect("rows");
    let row = acked.pop().expect("a row");
    let row = Acked {
        seq: row.seq,
        decided_at: decided_at(&row.payload, row.version),
    };
    let (gym, ann) = ids("ann");
    let erasing = store.begin().await.expect("a transaction");
    erase(&erasing, &gym, &ann).await.expect("erased");
    let moving = tokio::spawn({
        let store = store.clone();
        async move {
            let txn = store.begin().await.expect("a transaction");
            keep(&txn, &[row]).await.expect("moved");
            txn.commit().await.expect("committed");
        }
    });
    testkit::eventually("the move waits for the erasure", DEADLINE, async || {
        let waits = "select pid from pg_stat_activity
                     where datname = current_database() and wait_event_type = 'Lock'";
        let waits = Statement::from_string(DbBackend::Postgres, waits);
        let found = store.reads().query_one_raw(waits).await;
        found.expect("a look").is_some()
    })
    .await;
    erasing.commit().await.expect("committed");
    moving.await.expect("no panic");
    assert_eq!(states(&kept(&store, "ann").await), [tombstone]);
    world.finish().await;
}

mod a_database_of_the_version_before_keeps_what_held_in_it {
    use super::*;

    #[tokio::test]
    async fn on_sqlite() {
        let folder = tempfile::tempdir().expect("a folder");
        migrate(&format!(
            "sqlite://{}?mode=rwc",
            folder.path().join("tables.db").display()
        ))
        .await;
    }

    #[tokio::test]
    async fn on_postgres() {
        let database = TestDatabase::create().await.expect("a database");
        migrate(database.url()).await;
    }

    /// 1,203 members with a state, one without, and an outbox row.
    async fn migrate(url: &str) {
        let before = Migrator::migrations()
            .iter()
            .position(|migration| migration.name() == "m0004_decision_history")
            .expect("the migration");
        let database = Database::connect(url).await.expect("connected");
        Migrator::up(&database, Some(before as u32))
            .await
            .expect("migrated");
        for n in 0..=1_203 {
            let version = 1_773_144_000_000_000_i64 + n;
            let state = match n {
                0 => "null".to_owned(),
                _ => format!(
                    "'{{\"gymId\":\"iron\",\"memberId\":\"m_{n}\",\"version\":\"{version}\",
                       \"decidedAt\":\"2026-03-10T12:00:00+00:00\"}}'"
                ),
            };
            let sql = format!(
                "insert into members (gym_id, member_id, email, name, source_version, version, state,
                                      overrides, erased)
                 values ('iron', 'm_{n}', '', '', 1, {version}, {state}, '[]', false)"
            );
            database.execute_unprepared(&sql).await.expect("a member");
        }
        database
            .execute_unprepared(
                "insert into outbox (gym_id, member_id, version, payload, occurred_at, created_at,
                                     claimed_until)
                 select gym_id, member_id, version, state, 0, 0, 0 from members
                 where member_id = 'm_7'",
            )
            .await
            .expect("an outbox row");
        database.close().await.expect("closed");

        let settings = DatabaseSettings {
            database_url: url.to_owned(),
            database_pool_size: 3,
            database_statement_timeout: Duration::from_secs(5),
        };
        let store = Store::open(&settings).await.expect("opened");
        let places = list_places(store.reads(), None, i64::MAX, 2_000)
            .await
            .expect("rows");
        assert_eq!(places.len(), 1_203);
        assert!(
            places
                .iter()
                .all(|place| place.decided_at == 1_773_144_000_000_000)
        );
        assert!(kept(&store, "m_0").await.is_empty());
        assert_eq!(
            kept(&store, "m_1203").await[0].version,
            1_773_144_000_001_203
        );
        assert_eq!(
            outbox::backlog(store.reads(), 0)
                .await
                .expect("a count")
                .depth,
            1
        );
        // Opened again, there is nothing to do.
        Store::open(&settings).await.expect("opened");
    }
}

pub fn ids(member: &str) -> (GymId, MemberId) {
    (GYM.parse().expect("an id"), member.parse().expect("an id"))
}

/// What is kept about a member, oldest first.
pub async fn kept(store: &Store, member: &str) -> Vec<Decided> {
    let (gym, member) = ids(member);
    let rows = list_until(store.reads(), &gym, &member, i64::MAX, 1_000).await;
    let mut rows = rows.expect("rows");
    rows.reverse();
    rows
}

fn states(kept: &[Decided]) -> Vec<wire::MembershipStatusChanged> {
    let state = |row: &Decided| serde_json::from_str(&row.payload).expect("a state");
    kept.iter().map(state).collect()
}

/// Waits until everything has left the outbox.
pub async fn until_moved(store: &Store) {
    testkit::eventually("the outbox is empty", DEADLINE, async || {
        let waiting = outbox::backlog(store.reads(), i64::MAX).await;
        waiting.expect("a count").depth == 0
    })
    .await;
}

async fn run(store: &Store, sql: &str) {
    store.reads().execute_unprepared(sql).await.expect("done");
}
