//! A member's way: an event comes, Kisi is asked once, an answer goes out.

use std::collections::BTreeSet;
use std::time::Duration;

use contracts::access::v1::AccessApplied;
use contracts::membership::v1::MembershipStatusChanged;
use contracts::wire;
use futures_util::StreamExt;
use jiff::SignedDuration;
use testkit::eventually;

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, SOON, Stage};
use crate::kisi::{Fault, GROUP, OTHER_GROUP};

/// Heard of, decided, sent, applied: in this order, and within this test.
fn assert_each_stage_has_its_time(answer: &AccessApplied) {
    let told = answer.timings.as_ref().unwrap();
    let stages = [
        &told.received_at,
        &told.decided_at,
        &told.sent_at,
        &told.applied_at,
    ];
    let stages = stages.map(|at| wire::instant(at.as_ref().unwrap()).unwrap());
    assert!(stages.is_sorted(), "{stages:?}");
    let took = stages[3].duration_since(stages[0]);
    assert!(took < SignedDuration::try_from(SOON).unwrap(), "{stages:?}");
}

async fn a_revoke_and_a_re_grant_are_one_request_each(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 3);

    stage.directory.decide(GYM, "m2", 2, &[]).await;
    let revoked = stage.answer("m2", |answer| answer.version == 2).await;
    assert_eq!(revoked.outcome, "revoked");
    assert_eq!(revoked.groups_before, [GROUP]);
    assert!(revoked.grants.is_empty());
    assert_eq!(revoked.timings.unwrap().requests, 1);
    assert_each_stage_has_its_time(&revoked);
    let requests = stage.kisi.requests().await;
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(requests[0].starts_with("DELETE /role_assignments/"));

    stage.kisi.forget_requests().await;
    stage.directory.decide(GYM, "m2", 3, &[PLAN]).await;
    let granted = stage.answer("m2", |answer| answer.version == 3).await;
    assert_eq!(granted.outcome, "granted");
    assert_eq!(granted.grants.len(), 1);
    assert_eq!(granted.grants[0].group_id, GROUP);
    assert_each_stage_has_its_time(&granted);
    assert_eq!(stage.kisi.requests().await, ["POST /role_assignments"]);
    stage.kisi.assert_nothing_was_refused().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_and_a_re_grant_are_one_request_each_on_sqlite() {
    a_revoke_and_a_re_grant_are_one_request_each(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_and_a_re_grant_are_one_request_each_on_postgres() {
    a_revoke_and_a_re_grant_are_one_request_each(On::Postgres).await;
}

async fn repeats_and_older_versions_change_nothing(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    stage.directory.decide(GYM, "m1", 5, &[]).await;
    let answered = stage.answer("m1", |answer| answer.version == 5).await;
    stage.kisi.forget_requests().await;

    // The same version again under another id, and an older one that would open the door.
    let state = |version, plans: &[&str]| -> MembershipStatusChanged {
        stage
            .directory
            .put(GYM, "m1", version, plans)
            .state
            .unwrap()
    };
    stage
        .directory
        .publish_as(&state(5, &[]), "again-1".to_owned())
        .await;
    stage
        .directory
        .publish_as(&state(4, &[PLAN]), "again-2".to_owned())
        .await;
    // Messages of one member are handled in order: when this is answered, the others are.
    stage.directory.decide(GYM, "m1", 6, &[]).await;
    let last = stage.answer("m1", |answer| answer.version == 6).await;
    assert_eq!(last.outcome, "unchanged");
    assert!(last.applied_seq > answered.applied_seq);
    assert!(stage.kisi.requests().await.is_empty());
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_and_older_versions_change_nothing_on_sqlite() {
    repeats_and_older_versions_change_nothing(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_and_older_versions_change_nothing_on_postgres() {
    repeats_and_older_versions_change_nothing(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_for_one_member_ends_with_its_newest_version() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let mut answers = stage.answers("m1").await;
    for version in 2..=20 {
        let plans: &[&str] = if version % 2 == 0 { &[] } else { &[PLAN] };
        stage.directory.decide(GYM, "m1", version, plans).await;
    }
    let last = stage.answer("m1", |answer| answer.version == 20).await;
    assert!(last.grants.is_empty());
    let mut answered = BTreeSet::new();
    while answered.len() < 19 {
        let answer = tokio::time::timeout(SOON, answers.next()).await;
        let answer = answer.expect("every version is answered").unwrap();
        answered.insert(answer.version);
    }
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_two_plans_has_both_groups_and_keeps_one_when_the_other_ends() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    stage
        .directory
        .decide(GYM, "m9", 1, &[PLAN, OTHER_PLAN])
        .await;
    let both = stage.answer("m9", |answer| answer.version == 1).await;
    assert_eq!(both.outcome, "granted");
    assert_eq!(both.grants.len(), 2);
    assert!(both.kisi_user_ours);
    stage.directory.decide(GYM, "m9", 2, &[PLAN]).await;
    let one = stage.answer("m9", |answer| answer.version == 2).await;
    assert_eq!(one.outcome, "revoked");
    assert_eq!(one.grants[0].group_id, GROUP);
    assert!(stage.kisi.group_rows(OTHER_GROUP).await.is_empty());

    stage.directory.decide(GYM, "m9", 3, &["pool"]).await;
    let none = stage.answer("m9", |answer| answer.version == 3).await;
    assert_eq!(none.outcome, "revoked");
    assert_eq!(none.failure.as_deref(), Some("no_association"));
    stage.kisi.assert_nothing_was_refused().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_member_loses_rights_and_user_and_is_answered_erased() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let mut state = stage.directory.put(GYM, "m1", 2, &[]).state.unwrap();
    state.erased = true;
    stage.directory.publish(&state).await;
    let erased = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(erased.outcome, "erased");
    assert!(erased.kisi_user_id.is_none());
    let requests = stage.kisi.requests().await;
    assert!(
        requests
            .iter()
            .any(|request| request.starts_with("DELETE /users/")),
        "{requests:?}"
    );
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_member_whose_user_was_made_unheard_is_found_by_the_e_mail() {
    let stage = Stage::set(On::Sqlite).await;
    let mut process = stage.spawn(&[]).await;
    stage.in_sync(&mut process.running, 1).await;
    let users = stage.kisi.users();
    // Kisi makes the user; we die before its answer, and the member is erased meanwhile.
    stage
        .kisi
        .fail("POST", "/users", 1, Fault::HangAfterApplying)
        .await;
    stage.directory.decide(GYM, "m7", 1, &[PLAN]).await;
    eventually("the user is made", Duration::from_secs(20), async || {
        stage.kisi.users().len() > users.len()
    })
    .await;
    process.kill().await;
    let mut member = stage.directory.put(GYM, "m7", 2, &[]);
    member.erased = true;
    let mut state = member.state.clone().unwrap();
    state.erased = true;
    stage.directory.insert(member);
    stage.directory.publish(&state).await;
    let replica = stage.start().await;
    let erased = stage.answer("m7", |answer| answer.version == 2).await;
    assert_eq!(erased.outcome, "erased");
    assert_eq!(stage.kisi.users(), users);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_doors_are_set_up_an_erased_member_is_answered_erased_too() {
    let stage = Stage::set(On::Sqlite).await;
    let replica = stage.start().await;
    let mut state = stage.directory.put(GYM, "m1", 1, &[]).state.unwrap();
    state.erased = true;
    stage.directory.publish(&state).await;
    let erased = stage.answer("m1", |answer| answer.version == 1).await;
    assert_eq!(erased.outcome, "erased");
    assert!(stage.kisi.requests().await.is_empty());
    replica.stop().await;
}
