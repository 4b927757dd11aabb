//! Rights that others gave to members, in a gym that adopts them: taken over by a pass as long as they
//! are like ours, and nothing else that somebody was trusted with.

use contracts::integration::v1 as api;

use crate::harness::{GYM, On, Running, Stage};
use crate::kisi::GROUP;

/// A gym in sync that adopts, and `m1` has a right by hand instead of ours; answers it.
async fn by_hand_instead_of_ours(stage: &Stage, replica: &mut Running) -> i64 {
    stage.in_sync(replica, 2).await;
    let request = api::SetPoliciesRequest {
        gym_id: GYM.to_owned(),
        policies: Some(api::Policies {
            unmanaged: "adopt".to_owned(),
            member_resume: "request".to_owned(),
            user_mode: "managed".to_owned(),
        }),
    };
    replica.client.set_policies(request).await.unwrap();
    let ours = stage.answer("m1", |told| told.version == 1).await;
    stage
        .kisi
        .remove_by_hand(ours.grants[0].assignment_id)
        .await;
    stage.kisi.add_by_hand("m1@example.com", GROUP).await
}

async fn stands(stage: &Stage, right: i64) -> bool {
    let rows = stage.kisi.group_rows(GROUP).await;
    rows.iter().any(|row| row["id"].as_i64() == Some(right))
}

async fn a_pass_adopts_what_others_gave_and_it_ends_with_the_membership(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    let right = by_hand_instead_of_ours(&stage, &mut replica).await;
    stage.kisi.forget_requests().await;
    let sync = replica.sync().await;
    assert_eq!((sync.state.as_str(), sync.in_sync), ("done", true));
    let told = stage
        .answer("m1", |told| {
            told.grants.iter().any(|it| it.assignment_id == right)
        })
        .await;
    assert_eq!(told.grants.len(), 1);
    assert!(told.groups_opened_by_others.is_empty(), "{told:?}");
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");

    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let told = stage.answer("m1", |told| told.version == 2).await;
    assert_eq!(told.outcome, "revoked");
    assert!(!stands(&stage, right).await);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_adopts_what_others_gave_and_it_ends_with_the_membership_on_sqlite() {
    a_pass_adopts_what_others_gave_and_it_ends_with_the_membership(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_adopts_what_others_gave_and_it_ends_with_the_membership_on_postgres() {
    a_pass_adopts_what_others_gave_and_it_ends_with_the_membership(On::Postgres).await;
}

/// A trainer who manages the group, and is a member besides.
#[tokio::test(flavor = "multi_thread")]
async fn no_pass_adopts_a_right_that_is_more_than_ours() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    let right = by_hand_instead_of_ours(&stage, &mut replica).await;
    {
        let mut state = stage.kisi.shared().lock();
        let row = state.world.assignments.get_mut(&right).unwrap();
        row.role_id = "group_manager".to_owned();
    }
    assert!(replica.sync().await.in_sync);
    let told = stage.answer("m1", |told| told.grants.is_empty()).await;
    assert_eq!(told.groups_opened_by_others, [GROUP]);

    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |told| told.version == 2).await;
    assert!(replica.sync().await.in_sync);
    assert!(stands(&stage, right).await);
    replica.stop().await;
}
