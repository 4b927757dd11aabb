//! What goes first while a pass keeps Kisi busy: doors that must close, then people who wait at one,
//! then pages that staff wait for.

use contracts::integration::v1 as api;
use jiff::{SignedDuration, Timestamp};

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, Running, SOON, Stage};
use crate::kisi::{GROUP, OTHER_GROUP};

/// Begins a sync and waits for nothing.
async fn begin_sync(replica: &mut Running) -> String {
    let request = api::StartSyncRequest {
        gym_id: GYM.to_owned(),
        digest: None,
    };
    let sync = replica.client.start_sync(request).await.unwrap();
    sync.into_inner().sync_id
}

async fn grants(stage: &Stage) -> usize {
    let writes = stage.kisi.writes().await;
    let grants = writes.iter().filter(|w| *w == "POST /role_assignments");
    grants.count()
}

/// Two groups each, of which the pass gives one back to all, eight at a time and by their ids. The ninth of
/// them waits behind seven for her turn when she is to lose the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_of_somebody_whose_grant_waits_is_the_next_request_out() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 10).await;
    let both = [PLAN, OTHER_PLAN];
    for i in 1..=10 {
        let member = format!("m{i}");
        stage.directory.decide(GYM, &member, 2, &both).await;
        let told = stage.answer(&member, |told| told.grants.len() == 2).await;
        let mut given = told.grants.iter();
        let other = given.find(|grant| grant.group_id == OTHER_GROUP).unwrap();
        stage.kisi.remove_by_hand(other.assignment_id).await;
    }
    replica.stop().await;
    let slow = [("kisi-requests-per-second", "5")];
    let mut replica = stage.start_with(&slow).await;
    stage.kisi.forget_requests().await;
    let sync = begin_sync(&mut replica).await;
    testkit::eventually("the pass gives back", SOON, async || {
        grants(&stage).await > 1
    })
    .await;
    stage.directory.decide(GYM, "m8", 3, &[]).await;
    let told = stage.answer("m8", |told| told.version == 3).await;
    assert!(told.grants.is_empty(), "{told:?}");
    let writes = stage.kisi.writes().await;
    let closed = writes.iter().position(|write| write.starts_with("DELETE"));
    // Two were seen, one was on its way.
    assert!(closed.is_some_and(|place| place <= 4), "{writes:?}");
    replica.ended(&sync).await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 9);
    assert_eq!(stage.kisi.group_rows(OTHER_GROUP).await.len(), 9);
    replica.stop().await;
}

/// Nobody who has just paid, and nobody who looks at a page, waits for a first sync.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_and_a_page_of_the_set_up_go_before_a_running_sync() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage
        .start_with(&[("kisi-requests-per-second", "10")])
        .await;
    for i in 1..=40 {
        let member = format!("m{i}");
        stage.directory.decide(GYM, &member, 1, &[PLAN]).await;
    }
    stage.set_up(&mut replica).await;
    let sync = begin_sync(&mut replica).await;
    testkit::eventually("the sync gives rights", SOON, async || {
        grants(&stage).await > 0
    })
    .await;
    let before = grants(&stage).await;
    stage.directory.decide(GYM, "late", 1, &[PLAN]).await;
    let told = stage.answer("late", |told| told.outcome == "granted").await;
    let timings = told.timings.unwrap();
    let at = |t: Option<pbjson_types::Timestamp>| contracts::wire::instant(&t.unwrap()).unwrap();
    let took = at(timings.applied_at).duration_since(at(timings.received_at));
    // A search, the user and the right; others have every ninth turn.
    assert!(took < SignedDuration::from_millis(1_500), "{took}");
    let request = api::GymRequest {
        gym_id: GYM.to_owned(),
    };
    // Four requests: two lists of groups, and what two of the groups open.
    let began = std::time::Instant::now();
    replica.client.list_groups(request).await.unwrap();
    assert!(began.elapsed().as_millis() < 1_500, "{:?}", began.elapsed());
    let after = grants(&stage).await;
    assert!(after < 30 && after - before < 10, "{before} and {after}");
    assert!(replica.ended(&sync).await.in_sync);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 41);
    replica.stop().await;
}

/// More than may wait for a turn at once, whose rights only end later than before. One who is paused until
/// tomorrow keeps her right, and its window shuts her door: that goes before them too.
#[tokio::test(flavor = "multi_thread")]
async fn what_shuts_a_door_is_the_next_request_out_while_many_windows_change() {
    const MANY: i64 = 600;
    let stage = Stage::set(On::Sqlite).await;
    let quick = [("kisi-requests-per-second", "1000")];
    let mut replica = stage.start_with(&quick).await;
    stage.in_sync(&mut replica, MANY).await;
    replica.stop().await;

    let slow = [("kisi-requests-per-second", "5")];
    let replica = stage.start_with(&slow).await;
    let in_days = |days: i64| {
        let then = Timestamp::now() + SignedDuration::from_hours(24 * days);
        Some(contracts::wire::timestamp(then))
    };
    let (tomorrow, later) = (in_days(1), in_days(30));
    let change = async |member: &str, from, until| {
        let mut person = stage.directory.put(GYM, member, 2, &[PLAN]);
        for plan in &mut person.state.as_mut().unwrap().plans {
            (plan.valid_from, plan.valid_until) = (from, until);
        }
        stage.directory.insert(person.clone());
        stage.directory.publish(&person.state.unwrap()).await;
    };
    for i in 3..=MANY {
        change(&format!("m{i}"), None, later).await;
    }
    stage.consumed().await;
    let before = stage.kisi.writes().await.len();
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |told| told.version == 2).await;
    let writes = stage.kisi.writes().await;
    let closed = writes.iter().position(|write| write.starts_with("DELETE"));
    // One was on its way, and one more while this was heard of.
    assert!(
        closed.is_some_and(|place| place <= before + 2),
        "{before}: {writes:?}"
    );

    let before = stage.kisi.writes().await.len();
    change("m2", tomorrow, None).await;
    let told = stage.answer("m2", |told| told.version == 2).await;
    assert!(told.grants[0].valid_from.is_some(), "{told:?}");
    let after = stage.kisi.writes().await.len();
    // Hers is read back, and another one sent before it is told of.
    assert!(after <= before + 4, "{before}, {after}");
    replica.stop().await;
}
