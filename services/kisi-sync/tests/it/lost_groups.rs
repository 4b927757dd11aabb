//! A group of a plan that is deleted at Kisi: shown by its name until its plans have another, and asked
//! for with each pass, not granted for.

use std::collections::BTreeSet;

use contracts::integration::v1 as api;
use kisi_simulator::settings::{DeletedRights, Settings};
use sea_orm::ConnectionTrait;
use serde_json::json;

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, Running, SOON, Stage};
use crate::kisi::{GROUP, OTHER_GROUP};

async fn delete(stage: &Stage, group: i64) {
    let change = json!({ "action": "delete_group", "group_id": group });
    stage.kisi.by_hand(change).await;
}

async fn missing(replica: &mut Running) -> Vec<api::Attention> {
    let shown = replica.integration().await;
    assert_eq!(shown.state, "needs_attention");
    shown.attention
}

fn assert_names(shown: &[api::Attention], group: i64) {
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(
        [&shown[0].what, &shown[0].subject, &shown[0].who],
        ["group_missing", &group.to_string(), "staff"]
    );
    let name = ["Members", "Classes"][usize::from(group == OTHER_GROUP)];
    let words = format!("The group {name} is gone");
    assert!(shown[0].message.starts_with(&words), "{shown:?}");
}

async fn a_deleted_group_is_shown_and_nobody_loses_another(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.directory.decide(GYM, "c1", 1, &[OTHER_PLAN]).await;
    stage.in_sync(&mut replica, 3).await;
    delete(&stage, GROUP).await;
    for _ in 0..2 {
        let sync = replica.sync().await;
        assert_eq!(
            (sync.state.as_str(), sync.in_sync),
            ("done_with_failures", false)
        );
        let failures = sync.report.unwrap().failures;
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(
            (failures[0].group_id, failures[0].failure.as_str()),
            (GROUP, "group_missing")
        );
        assert_names(&missing(&mut replica).await, GROUP);
    }
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!(stage.kisi.group_rows(OTHER_GROUP).await.len(), 1);

    // Its plan gets another one.
    replica
        .associate(&[(PLAN, OTHER_GROUP), (OTHER_PLAN, OTHER_GROUP)])
        .await
        .unwrap();
    testkit::eventually("everybody is in it", SOON, async || {
        stage.kisi.group_rows(OTHER_GROUP).await.len() == 4
    })
    .await;
    let sync = replica.sync().await;
    assert_eq!((sync.state.as_str(), sync.in_sync), ("done", true));
    assert_eq!(replica.integration().await.state, "active");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_group_is_shown_and_nobody_loses_another_on_sqlite() {
    a_deleted_group_is_shown_and_nobody_loses_another(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_group_is_shown_and_nobody_loses_another_on_postgres() {
    a_deleted_group_is_shown_and_nobody_loses_another(On::Postgres).await;
}

/// What is listed of a group that is gone makes it no group.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_group_is_shown_where_kisi_still_lists_its_rights() {
    let stage = Stage::set(On::Sqlite).await;
    let settings = |settings: &mut Settings| settings.deleted_rights = DeletedRights::Stay;
    stage.kisi.set(settings);
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    delete(&stage, GROUP).await;
    for _ in 0..2 {
        assert_eq!(replica.sync().await.state, "done_with_failures");
        assert_names(&missing(&mut replica).await, GROUP);
    }
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    // Who leaves leaves nothing there, and the others go with the plan's new group.
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let told = stage.answer("m1", |told| told.version == 2).await;
    assert_eq!((told.outcome.as_str(), told.grants.len()), ("revoked", 0));
    replica.associate(&[(PLAN, OTHER_GROUP)]).await.unwrap();
    testkit::eventually("nothing is left of the group", SOON, async || {
        let (old, new) = (GROUP, OTHER_GROUP);
        let sizes = (
            stage.kisi.group_rows(old).await,
            stage.kisi.group_rows(new).await,
        );
        (sizes.0.len(), sizes.1.len()) == (0, 2)
    })
    .await;
    assert!(replica.sync().await.in_sync);
    replica.stop().await;
}

/// No row of ours tells of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_group_that_nobody_was_in_is_found_and_not_granted_for_again() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    delete(&stage, OTHER_GROUP).await;
    assert_eq!(replica.sync().await.state, "done_with_failures");
    assert_names(&missing(&mut replica).await, OTHER_GROUP);
    stage.directory.decide(GYM, "c1", 1, &[OTHER_PLAN]).await;
    let told = stage.answer("c1", |told| told.version == 1).await;
    assert_eq!(
        (told.outcome.as_str(), told.failure.as_deref()),
        ("failed", Some("group_missing"))
    );
    stage.kisi.forget_requests().await;
    for _ in 0..2 {
        replica.sync().await;
        assert_names(&missing(&mut replica).await, OTHER_GROUP);
    }
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    replica.stop().await;
}

/// Scheduled passes look at no doors, and find it all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_group_is_found_by_scheduled_passes_and_stays_shown() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&[("reconcile-every", "1s")]).await;
    stage.in_sync(&mut replica, 1).await;
    delete(&stage, OTHER_GROUP).await;
    // Before a pass has found it.
    stage.directory.decide(GYM, "c1", 1, &[OTHER_PLAN]).await;
    stage
        .answer("c1", |told| {
            told.failure.as_deref() == Some("group_missing")
        })
        .await;
    testkit::eventually("the group is shown", SOON, async || {
        replica.integration().await.state == "needs_attention"
    })
    .await;
    stage.kisi.forget_requests().await;
    let mut seen = BTreeSet::new();
    testkit::eventually("more passes", SOON, async || {
        let shown = replica.integration().await;
        let at = shown.last_reconciled_at;
        seen.insert(at.map(|at| (at.seconds, at.nanos)));
        assert_names(&shown.attention, OTHER_GROUP);
        seen.len() == 4
    })
    .await;
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    replica.stop().await;
}

/// A plan that held is over, and a group of another plan will never be seen again: whoever was held is asked
/// about all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_group_keeps_nobody_held_by_a_plan_that_is_over() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [
        ("brake-unexplained-min", "2"),
        ("brake-unexplained-hour-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.directory.decide(GYM, "c1", 1, &[OTHER_PLAN]).await;
    stage.in_sync(&mut replica, 3).await;
    replica
        .associate(&[(OTHER_PLAN, OTHER_GROUP)])
        .await
        .unwrap();
    assert_eq!(replica.plan_held().await.revokes, 3);
    delete(&stage, OTHER_GROUP).await;
    replica.stop().await;
    let url = secrecy::SecretString::from(stage.database_url());
    let db = kisi_sync::store::connect(&url).await.unwrap();
    db.execute_unprepared("update held_plans set expires_at = 1")
        .await
        .unwrap();
    kisi_sync::held::expire(&db, 2).await.unwrap();
    // Three are few from now on.
    let mut replica = stage.start().await;
    assert_eq!(replica.sync().await.state, "done_with_failures");
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    assert!(replica.held_plans().await.is_empty());
    replica.stop().await;
}
