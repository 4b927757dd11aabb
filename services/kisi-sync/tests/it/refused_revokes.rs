//! A revoke that Kisi refused keeps the reason that it had, whoever has it tried again.

use testkit::eventually;

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, SOON, Stage};
use crate::kisi::{Fault, GROUP};
use crate::refusals::{REFUSED, look_at, rows, tables};

/// It has the reason that it had, and waits for no leave.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_that_kisi_refused_is_not_unexplained_when_a_pass_tries_it_again() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [
        ("brake-unexplained-min", "0"),
        ("brake-unexplained-hour-percent", "0"),
        ("brake-unexplained-day-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 3).await;
    let route = "/role_assignments/{id}";
    stage.kisi.fail("DELETE", route, 2, REFUSED).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let told = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(told.failure.as_deref(), Some("kisi_refused"));
    for (state, left) in [("done_with_failures", 3), ("done", 2)] {
        let sync = replica.sync().await;
        assert_eq!(sync.state, state, "{sync:?}");
        assert_eq!(stage.kisi.group_rows(GROUP).await.len(), left);
    }
    stage.answer("m1", |told| told.outcome == "revoked").await;
    let db = tables(&stage).await;
    let explained = "select id from losses where class = 'explained'";
    assert_eq!(rows(&db, explained).await, 1);
    replica.stop().await;
}

/// It is put off for an hour, and whoever works on the gym from now on does not know for what.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_that_kisi_refused_is_tried_again_after_a_restart() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    let route = "/role_assignments/{id}";
    stage.kisi.fail("DELETE", route, 1, REFUSED).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let told = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(told.failure.as_deref(), Some("kisi_refused"));
    replica.stop().await;
    let replica = stage.start().await;
    stage.answer("m1", |told| told.outcome == "revoked").await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    replica.stop().await;
}

/// Staff look at whoever has a right that should be gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_that_kisi_refused_is_not_unexplained_when_staff_ask_for_a_look() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [
        ("brake-unexplained-min", "0"),
        ("brake-unexplained-hour-percent", "0"),
        ("brake-unexplained-day-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 3).await;
    let route = "/role_assignments/{id}";
    stage.kisi.fail("DELETE", route, 3, REFUSED).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let told = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(told.failure.as_deref(), Some("kisi_refused"));
    let tries = |n: usize| {
        let stage = &stage;
        eventually("it is tried once more", SOON, async move || {
            let writes = stage.kisi.writes().await;
            writes.iter().filter(|it| it.starts_with("DELETE")).count() == n
        })
    };
    for n in 2..=4 {
        look_at(&mut replica, "m1").await;
        tries(n).await;
    }
    stage.answer("m1", |told| told.outcome == "revoked").await;
    let db = tables(&stage).await;
    let explained = "select id from losses where class = 'explained'";
    assert_eq!(rows(&db, explained).await, 1);
    // It is logged as what it is, too.
    let sql = "select entry from audit where entry like '%\"revoked\"%'";
    assert_eq!(rows(&db, sql).await, 1);
    let by_look = format!("{sql} and entry like '%SyncMember%'");
    assert_eq!(rows(&db, &by_look).await, 0);
    // Her next look is as anybody's: nothing explains what it would take.
    assert!(replica.held_plans().await.is_empty());
    replica.stop().await;
}

/// What a look finds after the version that it was asked for besides is the look's own.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_besides_a_version_has_its_own_cause_once_that_is_done() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&[("kisi-request-timeout", "5s")]).await;
    stage.in_sync(&mut replica, 2).await;
    let right = stage.answer("m1", |_| true).await.grants[0].assignment_id;
    let wait = Fault::Wait;
    stage.kisi.fail("POST", "/role_assignments", 1, wait).await;
    let both = [PLAN, OTHER_PLAN];
    stage.directory.decide(GYM, "m1", 2, &both).await;
    stage.kisi.one_is_held_back(0).await;
    stage.kisi.remove_by_hand(right).await;
    look_at(&mut replica, "m1").await;
    stage.kisi.clear_faults();
    eventually("her right is back", SOON, async || {
        stage.kisi.group_rows(GROUP).await.len() == 2
    })
    .await;
    let db = tables(&stage).await;
    let by_look = "select entry from audit where entry like '%\"granted\"%' \
        and entry like '%SyncMember%'";
    eventually("it is logged", SOON, async || rows(&db, by_look).await == 1).await;
    replica.stop().await;
}
