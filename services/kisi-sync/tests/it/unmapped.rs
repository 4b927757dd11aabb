//! A mapping is taken away by mistake, and before the pass has counted whom it shuts out something
//! happens to single members.

use contracts::integration::v1 as api;

use crate::harness::{GYM, On, PLAN, Running, Stage};
use crate::kisi::{Fault, GROUP};

/// Not one goes without a reason of her own, and what a test holds back is waited for.
const FLAGS: [(&str, &str); 5] = [
    ("brake-unexplained-min", "0"),
    ("brake-unexplained-hour-percent", "0"),
    ("brake-unexplained-day-percent", "0"),
    ("kisi-request-timeout", "15s"),
    ("lease-ttl", "60s"),
];

/// Three members are let in, their plan has no group any more, and the pass has not got to them.
async fn unmapped() -> (Stage, Running) {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&FLAGS).await;
    stage.in_sync(&mut replica, 3).await;
    // The call looks at the doors, and then the pass.
    let (get, route) = ("GET", "/locks");
    stage.kisi.fail_after(1, get, route, 1, Fault::Wait).await;
    replica.associate(&[]).await.unwrap();
    stage.kisi.one_is_held_back(0).await;
    (stage, replica)
}

async fn is_held(stage: &Stage, member: &str, version: i64) {
    let told = stage.answer(member, |answer| {
        answer.version == version && answer.failure.is_some()
    });
    let told = told.await;
    let failure = told.failure.as_deref();
    assert_eq!((told.outcome.as_str(), failure), ("held", Some("brake")));
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_changes_no_plan_does_not_explain_what_a_mapping_takes() {
    let (stage, replica) = unmapped().await;
    stage.directory.decide(GYM, "m1", 2, &[PLAN]).await;
    is_held(&stage, "m1", 2).await;
    // One that takes her plan does, whatever became of the mapping.
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    let told = stage.answer("m2", |answer| answer.version == 2).await;
    assert_eq!(told.outcome, "revoked");
    stage.kisi.clear_faults();
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_a_member_does_not_explain_what_a_mapping_takes() {
    let (stage, mut replica) = unmapped().await;
    let look = api::SyncMemberRequest {
        gym_id: GYM.to_owned(),
        member_id: "m1".to_owned(),
    };
    replica.client.sync_member(look).await.unwrap();
    is_held(&stage, "m1", 1).await;
    stage.kisi.clear_faults();
    replica.stop().await;
}
