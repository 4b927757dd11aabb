//! What a person has confirmed is done without asking again, and nothing besides.

use contracts::integration::v1 as api;
use serde_json::json;
use tonic::Code;

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, Running, SOON, Stage, set};
use crate::kisi::{Fault, GROUP, OTHER_GROUP};

/// Two may go unasked; a request that a test holds back is waited for.
const FLAGS: [(&str, &str); 4] = [
    ("brake-unexplained-min", "2"),
    ("brake-unexplained-hour-percent", "0"),
    ("kisi-request-timeout", "15s"),
    ("lease-ttl", "60s"),
];

/// All move to the other group, as was previewed and confirmed; the first of them is on the way there.
async fn all_move(stage: &Stage, replica: &mut Running) {
    let moved = [(PLAN, OTHER_GROUP)];
    let preview = replica.preview(Some(&moved)).await;
    assert_eq!(preview.members_out, 0);
    stage
        .kisi
        .fail("POST", "/role_assignments", 1, Fault::Wait)
        .await;
    let request = api::SetAssociationsRequest {
        gym_id: GYM.to_owned(),
        associations: set(&moved),
        digest: Some(preview.digest),
    };
    replica.client.set_associations(request).await.unwrap();
    stage.kisi.one_is_held_back(0).await;
}

async fn a_confirmed_move_covers_no_later_decision(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start_with(&FLAGS).await;
    stage.in_sync(&mut replica, 6).await;
    all_move(&stage, &mut replica).await;
    // A wrong roster shuts them all out meanwhile.
    for i in 1..=6 {
        let person = stage.directory.put(GYM, &format!("m{i}"), 2, &[]);
        let mut state = person.state.unwrap();
        state.cause.as_mut().unwrap().kind = "import".to_owned();
        stage.directory.publish(&state).await;
    }
    stage.consumed().await;
    stage.kisi.clear_faults();
    for i in 1..=6 {
        let member = format!("m{i}");
        stage.answer(&member, |told| told.version == 2).await;
    }
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 4);
    let plan = replica.plan_held().await;
    assert_eq!((plan.class.as_str(), plan.revokes), ("unexplained", 4));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_move_covers_no_later_decision_on_sqlite() {
    a_confirmed_move_covers_no_later_decision(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_move_covers_no_later_decision_on_postgres() {
    a_confirmed_move_covers_no_later_decision(On::Postgres).await;
}

/// The group they move to is deleted under them: what was confirmed were moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_move_that_kisi_refuses_shuts_nobody_out_uncounted() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&FLAGS).await;
    stage.in_sync(&mut replica, 6).await;
    all_move(&stage, &mut replica).await;
    let change = json!({ "action": "delete_group", "group_id": OTHER_GROUP });
    stage.kisi.by_hand(change).await;
    stage.kisi.clear_faults();
    for i in 1..=6 {
        let member = format!("m{i}");
        let refused = Some("group_missing");
        let told = |told: &contracts::access::v1::AccessApplied| {
            told.failure.as_deref() == refused || told.failure.as_deref() == Some("brake")
        };
        stage.answer(&member, told).await;
    }
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 4);
    let plan = replica.plan_held().await;
    assert_eq!((plan.class.as_str(), plan.revokes), ("unexplained", 4));
    // Who approves this one approves losses.
    replica.approve(&plan.id, &plan.digest).await.unwrap();
    testkit::eventually("the doors are closed", SOON, async || {
        stage.kisi.group_rows(GROUP).await.is_empty()
    })
    .await;
    replica.stop().await;
}

/// Between the preview and whoever confirms it one more is let in, who would lose her right by it too.
#[tokio::test(flavor = "multi_thread")]
async fn a_preview_that_was_overtaken_confirms_nothing() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&FLAGS).await;
    stage.in_sync(&mut replica, 3).await;
    let other = [(OTHER_PLAN, OTHER_GROUP)];
    let preview = replica.preview(Some(&other)).await;
    assert_eq!(preview.revokes, 3);
    stage.directory.decide(GYM, "m4", 1, &[PLAN]).await;
    stage.answer("m4", |told| told.outcome == "granted").await;
    let request = api::SetAssociationsRequest {
        gym_id: GYM.to_owned(),
        associations: set(&other),
        digest: Some(preview.digest),
    };
    replica.client.set_associations(request).await.unwrap();
    let plan = replica.plan_held().await;
    assert_eq!((plan.class.as_str(), plan.revokes), ("unexplained", 4));
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 4);
    replica.stop().await;
}

/// Whoever confirms has seen who gets in by this very mapping, and not by another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_preview_confirms_no_other_mapping_than_its_own() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    for member in ["m1", "m2"] {
        stage.directory.decide(GYM, member, 1, &[PLAN]).await;
    }
    stage.set_up(&mut replica).await;
    replica.associate(&[(PLAN, GROUP)]).await.unwrap();
    let shown = replica.preview(None).await;
    assert_eq!(shown.grants, 2);
    // Somebody else takes the wrong group meanwhile.
    replica.associate(&[(PLAN, OTHER_GROUP)]).await.unwrap();
    let start = |digest: &str| api::StartSyncRequest {
        gym_id: GYM.to_owned(),
        digest: Some(digest.to_owned()),
    };
    let refused = replica.client.start_sync(start(&shown.digest)).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused:?}");
    assert!(refused.message().contains("other associations"));
    let change = |mapping: &[(&str, i64)], digest: &str| api::SetAssociationsRequest {
        gym_id: GYM.to_owned(),
        associations: set(mapping),
        digest: Some(digest.to_owned()),
    };
    let another = change(&[(OTHER_PLAN, GROUP)], &shown.digest);
    let refused = replica.client.set_associations(another).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused:?}");
    let held = replica.integration().await.associations;
    assert_eq!(held, set(&[(PLAN, OTHER_GROUP)]));
    assert!(stage.kisi.writes().await.is_empty());

    let change = change(&[(PLAN, GROUP)], &shown.digest);
    replica.client.set_associations(change).await.unwrap();
    let started = replica.client.start_sync(start(&shown.digest)).await;
    let sync = replica.ended(&started.unwrap().into_inner().sync_id).await;
    assert_eq!(sync.state, "done");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    replica.stop().await;
}

/// Three go by a held plan, and two may go unasked after them as before.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_approved_takes_no_room_of_what_goes_unasked() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&FLAGS).await;
    for i in 1..=3 {
        let member = format!("c{i}");
        stage.directory.decide(GYM, &member, 1, &[OTHER_PLAN]).await;
    }
    stage.in_sync(&mut replica, 3).await;
    let other = [(OTHER_PLAN, OTHER_GROUP)];
    replica.associate(&other).await.unwrap();
    let plan = replica.plan_held().await;
    assert_eq!(plan.revokes, 3);
    replica.approve(&plan.id, &plan.digest).await.unwrap();
    testkit::eventually("the doors are closed", SOON, async || {
        stage.kisi.group_rows(GROUP).await.is_empty()
    })
    .await;
    for (member, outcome) in [("c1", "revoked"), ("c2", "revoked"), ("c3", "held")] {
        let mut state = stage.directory.put(GYM, member, 2, &[]).state.unwrap();
        state.cause.as_mut().unwrap().kind = "import".to_owned();
        stage.directory.publish(&state).await;
        let told = stage.answer(member, |told| told.version == 2).await;
        assert_eq!(told.outcome, outcome, "{member}");
    }
    replica.stop().await;
}
