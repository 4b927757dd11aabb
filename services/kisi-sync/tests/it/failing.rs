//! What keeps failing shows, each with who must act, and keeps nobody else waiting.

use crate::harness::{GYM, On, PLAN, Running, Stage};
use crate::kisi::{Fault, GROUP};

/// For as long as the test lasts.
const ALWAYS: u64 = 1_000_000;

/// What is shown, each with its subject and who must act.
async fn shown(replica: &mut Running) -> Vec<(String, String, String)> {
    let attention = replica.integration().await.attention.into_iter();
    let shown = attention.map(|matter| (matter.what, matter.subject, matter.who));
    shown.collect()
}

fn matter(what: &str, subject: &str, who: &str) -> (String, String, String) {
    (what.to_owned(), subject.to_owned(), who.to_owned())
}

/// Kisi answers everything but one DELETE.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_that_kisi_always_fails_keeps_nobody_at_a_door_waiting() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let (route, fault) = ("/role_assignments/{id}", Fault::Status(500));
    stage.kisi.fail("DELETE", route, ALWAYS, fault).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let told = stage.answer("m1", |told| told.version == 2).await;
    assert_eq!(told.failure.as_deref(), Some("kisi_unreachable"));
    stage.directory.decide(GYM, "m3", 1, &[PLAN]).await;
    let told = stage.answer("m3", |told| told.version == 1).await;
    assert_eq!(told.outcome, "granted");
    // It is tried again with each pass.
    stage.kisi.clear_faults();
    assert!(replica.sync().await.in_sync);
    stage.answer("m1", |told| told.outcome == "revoked").await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_kisi_fails_to_give_in_two_passes_is_shown_until_it_is_given() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let fault = Fault::Status(500);
    stage
        .kisi
        .fail("POST", "/role_assignments", ALWAYS, fault)
        .await;
    stage.directory.decide(GYM, "m2", 1, &[PLAN]).await;
    stage.answer("m2", |told| told.version == 1).await;
    for times in 1..=3 {
        let sync = replica.sync().await;
        assert_eq!(sync.state, "done_with_failures", "{sync:?}");
        let failures = sync.report.unwrap().failures;
        assert_eq!(failures[0].member_id, "m2");
        let now = shown(&mut replica).await;
        let expected = matter("grants_failing", "", "staff");
        assert_eq!(now, vec![expected; usize::from(times > 1)], "{times}");
    }
    stage.kisi.clear_faults();
    assert_eq!(replica.sync().await.state, "done");
    assert_eq!(shown(&mut replica).await, []);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    replica.stop().await;
}

/// Nothing changes in the gym, so that nothing but its passes finds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_kisi_that_two_passes_did_not_reach_is_shown_until_one_does() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    for fault in [Fault::Status(500), Fault::Hang] {
        let route = "/role_assignments";
        stage.kisi.fail("GET", route, ALWAYS, fault).await;
        for times in 1..=3 {
            assert_eq!(replica.sync().await.state, "failed");
            let now = shown(&mut replica).await;
            let expected = matter("kisi_unreachable", "", "kisi");
            assert_eq!(now, vec![expected; usize::from(times > 1)], "{times}");
        }
        stage.kisi.clear_faults();
        assert_eq!(replica.sync().await.state, "done");
        assert_eq!(shown(&mut replica).await, []);
    }
    replica.stop().await;
}

/// Somebody took the sealing key away before everything was sealed anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_kisi_key_that_does_not_open_is_shown_and_work_waits_until_it_does() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    replica.stop().await;
    let other = "k2:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
    let mut replica = stage.start_with(&[("sealing-keys", other)]).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.consumed().await;
    assert_eq!(replica.sync().await.state, "failed");
    let expected = matter("key_invalid", "sealing", "platform");
    assert_eq!(shown(&mut replica).await, [expected]);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;

    let mut replica = stage.start().await;
    stage.answer("m1", |told| told.outcome == "revoked").await;
    assert!(replica.sync().await.in_sync);
    assert_eq!(shown(&mut replica).await, []);
    assert_eq!(replica.integration().await.state, "active");
    replica.stop().await;
}
