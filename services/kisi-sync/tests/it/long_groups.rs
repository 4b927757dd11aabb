//! A group in which more people have a right than Kisi lets anyone list: what is ours there is known by
//! its ids, so it is previewed and taken back by them, past the brake like everything else.

use std::time::Duration;

use contracts::integration::v1 as api;
use tonic::Code;

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, Running, Stage, set};
use crate::kisi::{Fault, GROUP, OTHER_GROUP};

/// A simulator with so many rights takes its time.
const PATIENCE: Duration = Duration::from_secs(90);
/// As often as a read is repeated.
const TRIES: u64 = 3;
/// Two may go unasked.
const FLAGS: [(&str, &str); 5] = [
    ("kisi-request-timeout", "15s"),
    ("lease-ttl", "60s"),
    ("brake-unexplained-min", "2"),
    ("brake-unexplained-hour-percent", "0"),
    ("brake-unexplained-day-percent", "0"),
];
/// The plan of the long group has none any more.
const WITHOUT: [(&str, i64); 1] = [(OTHER_PLAN, OTHER_GROUP)];

/// How many rights the first `n` members have in the group, others' left out.
async fn rights_of_ours(stage: &Stage, group: i64, n: usize) -> usize {
    let rows = stage.kisi.group_rows(group).await;
    let users: Vec<i64> = (1..=n)
        .map(|i| stage.kisi.user_of(&format!("m{i}@example.com")))
        .collect();
    let is_ours = |row: &&serde_json::Value| {
        let user = row["assignee_id"].as_i64();
        user.is_some_and(|user| users.contains(&user))
    };
    rows.iter().filter(is_ours).count()
}

async fn try_preview(
    replica: &mut Running,
    associations: &[(&str, i64)],
) -> Result<api::Preview, tonic::Status> {
    let request = api::PreviewSyncRequest {
        gym_id: GYM.to_owned(),
        associations: Some(api::AssociationSet {
            associations: set(associations),
        }),
    };
    Ok(replica.client.preview_sync(request).await?.into_inner())
}

fn is_whole(preview: &api::Preview) -> bool {
    preview.other_rights.as_ref().unwrap().complete
}

async fn associate_confirmed(replica: &mut Running, to: &[(&str, i64)], digest: String) {
    let request = api::SetAssociationsRequest {
        gym_id: GYM.to_owned(),
        associations: set(to),
        digest: Some(digest),
    };
    replica.client.set_associations(request).await.unwrap();
}

/// The pass that a new mapping brings has ended.
async fn associate(replica: &mut Running, to: &[(&str, i64)]) {
    let before = replica.integration().await.last_reconciled_at;
    replica.associate(to).await.unwrap();
    testkit::eventually("the pass of the mapping has ended", PATIENCE, async || {
        replica.integration().await.last_reconciled_at != before
    })
    .await;
}

async fn a_first_sync_into_a_long_group_and_a_move_out_of_it_are_previewed(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start_with(&FLAGS).await;
    for member in ["m1", "m2", "m3"] {
        stage.directory.decide(GYM, member, 1, &[PLAN]).await;
    }
    stage.consumed().await;
    stage.set_up(&mut replica).await;
    stage.kisi.overfill(GROUP);
    let preview = replica.preview(None).await;
    assert_eq!(preview.member_ids_in, ["m1", "m2", "m3"]);
    assert_eq!((preview.grants, preview.revokes), (3, 0));
    assert!(!is_whole(&preview));
    let report = replica.sync().await.report.unwrap();
    assert_eq!((report.granted, report.failed), (3, 0));
    assert_eq!(rights_of_ours(&stage, GROUP, 3).await, 3);
    // Nothing is left to do, and nothing is done by what was not seen.
    stage.kisi.forget_requests().await;
    let preview = replica.preview(None).await;
    assert_eq!((preview.grants, preview.revokes), (0, 0));
    replica.sync().await;
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");

    let moved = [(PLAN, OTHER_GROUP)];
    let preview = replica.preview(Some(&moved)).await;
    assert_eq!((preview.grants, preview.revokes), (3, 3));
    assert_eq!((preview.members_in, preview.members_out), (3, 0));
    assert!(!is_whole(&preview));
    associate_confirmed(&mut replica, &moved, preview.digest).await;
    testkit::eventually("all have moved", PATIENCE, async || {
        rights_of_ours(&stage, GROUP, 3).await == 0
    })
    .await;
    assert_eq!(rights_of_ours(&stage, OTHER_GROUP, 3).await, 3);
    // Who is there by other hands is left.
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 20_251);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_into_a_long_group_and_a_move_out_of_it_are_previewed_on_sqlite() {
    a_first_sync_into_a_long_group_and_a_move_out_of_it_are_previewed(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_into_a_long_group_and_a_move_out_of_it_are_previewed_on_postgres() {
    a_first_sync_into_a_long_group_and_a_move_out_of_it_are_previewed(On::Postgres).await;
}

/// More go by it than may go unasked, and it is the digest that lets them.
#[tokio::test(flavor = "multi_thread")]
async fn rights_in_a_long_group_go_by_a_confirmed_preview() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&FLAGS).await;
    // One is let in by others.
    stage.kisi.add_by_hand("m5@example.com", GROUP).await;
    stage.directory.decide(GYM, "m5", 1, &[PLAN]).await;
    stage.in_sync(&mut replica, 4).await;
    stage.kisi.overfill(GROUP);
    let preview = replica.preview(None).await;
    assert_eq!((preview.grants, preview.revokes), (0, 0));
    assert_eq!(preview.member_ids_in_by_others, ["m5"]);
    // A list that fails is no long one.
    let fault = Fault::Status(500);
    stage
        .kisi
        .fail("GET", "/role_assignments", TRIES, fault)
        .await;
    let refused = try_preview(&mut replica, &WITHOUT).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);

    let preview = try_preview(&mut replica, &WITHOUT).await.unwrap();
    assert_eq!((preview.revokes, preview.members_out), (4, 4));
    assert_eq!(preview.member_ids_out, ["m1", "m2", "m3", "m4"]);
    assert!(!is_whole(&preview));
    associate_confirmed(&mut replica, &WITHOUT, preview.digest).await;
    testkit::eventually("the doors are closed", PATIENCE, async || {
        rights_of_ours(&stage, GROUP, 4).await == 0
    })
    .await;
    assert!(replica.held_plans().await.is_empty());
    assert_eq!(rights_of_ours(&stage, GROUP, 5).await, 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_takes_ours_back_in_a_long_group() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&FLAGS).await;
    stage.in_sync(&mut replica, 3).await;
    stage.kisi.overfill(GROUP);
    let preview = try_preview(&mut replica, &[]).await.unwrap();
    assert_eq!((preview.revokes, preview.members_out), (3, 3));
    let end = api::DisableIntegrationRequest {
        gym_id: GYM.to_owned(),
        access: "revoke".to_owned(),
        digest: Some(preview.digest),
    };
    let ended = replica.client.disable_integration(end).await.unwrap();
    assert_eq!(ended.into_inner().state, "disabled");
    assert_eq!(rights_of_ours(&stage, GROUP, 3).await, 0);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 20_251);
    replica.stop().await;
}

async fn an_association_that_is_removed_takes_ours_back_in_a_long_group(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start_with(&FLAGS).await;
    stage.in_sync(&mut replica, 2).await;
    stage.kisi.overfill(GROUP);
    // No group is left that could be listed.
    associate(&mut replica, &[]).await;
    assert_eq!(rights_of_ours(&stage, GROUP, 2).await, 0);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 20_251);
    for member in ["m1", "m2"] {
        let told = stage.answer(member, |told| told.grants.is_empty()).await;
        assert_eq!(told.outcome, "revoked");
    }
    // It is of no plan and no right of ours any more: nobody has to know who is there.
    assert_eq!(replica.sync().await.state, "done");
    assert!(replica.integration().await.attention.is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_association_that_is_removed_takes_ours_back_in_a_long_group_on_sqlite() {
    an_association_that_is_removed_takes_ours_back_in_a_long_group(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_association_that_is_removed_takes_ours_back_in_a_long_group_on_postgres() {
    an_association_that_is_removed_takes_ours_back_in_a_long_group(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_go_unasked_in_a_long_group_wait_for_a_person() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&FLAGS).await;
    stage.in_sync(&mut replica, 4).await;
    stage.kisi.overfill(GROUP);
    associate(&mut replica, &WITHOUT).await;
    let plan = replica.plan_held().await;
    assert_eq!((plan.class.as_str(), plan.revokes), ("unexplained", 4));
    assert_eq!(replica.sync().await.state, "held");
    assert_eq!(rights_of_ours(&stage, GROUP, 4).await, 4);
    replica.approve(&plan.id, &plan.digest).await.unwrap();
    testkit::eventually("the doors are closed", PATIENCE, async || {
        rights_of_ours(&stage, GROUP, 4).await == 0
    })
    .await;
    replica.stop().await;
}

/// The first look is told that the list is too long, and the second that Kisi fails: that is no word
/// about anybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_group_that_fails_to_answer_the_second_look_loses_nobody() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&FLAGS).await;
    stage.in_sync(&mut replica, 2).await;
    stage.kisi.overfill(GROUP);
    // After the rights of the key's owner and both groups.
    let fault = Fault::Status(500);
    stage
        .kisi
        .fail_after(3, "GET", "/role_assignments", TRIES, fault)
        .await;
    associate(&mut replica, &WITHOUT).await;
    assert_eq!(rights_of_ours(&stage, GROUP, 2).await, 2);
    assert!(replica.held_plans().await.is_empty());
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");

    assert_eq!(replica.sync().await.report.unwrap().revoked, 2);
    assert_eq!(rights_of_ours(&stage, GROUP, 2).await, 0);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_lets_many_into_a_long_group_waits_for_a_person() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [
        ("kisi-request-timeout", "15s"),
        ("lease-ttl", "60s"),
        ("brake-grants-min", "2"),
        ("brake-grants-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 3).await;
    for i in 1..=4 {
        let member = format!("p{i}");
        stage.directory.decide(GYM, &member, 1, &["pool"]).await;
    }
    stage.consumed().await;
    stage.kisi.overfill(OTHER_GROUP);
    associate(&mut replica, &[(PLAN, GROUP), ("pool", OTHER_GROUP)]).await;
    let plan = replica.plan_held().await;
    assert_eq!((plan.class.as_str(), plan.grants), ("grants", 4));
    assert_eq!(stage.kisi.group_rows(OTHER_GROUP).await.len(), 20_251);
    replica.approve(&plan.id, &plan.digest).await.unwrap();
    testkit::eventually("they are let in", PATIENCE, async || {
        stage.kisi.group_rows(OTHER_GROUP).await.len() == 20_255
    })
    .await;
    replica.stop().await;
}
