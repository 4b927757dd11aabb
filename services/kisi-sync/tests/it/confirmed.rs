//! What a person has confirmed is done without asking again, and nothing besides.

use contracts::integration::v1 as api;
use serde_json::json;

use crate::harness::{GYM, On, PLAN, Running, SOON, Stage, set};
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
