//! A held plan that staff discard: whom it held keeps what she has, nobody is asked again, and what is
//! decided of one of them later is a matter of its own.

use contracts::integration::v1 as api;
use tonic::Code;

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, Running, SOON, Stage};
use crate::kisi::{GROUP, OTHER_GROUP, PLACE};

async fn a_discarded_plan_takes_nothing_and_is_not_asked_again(on: On) {
    let stage = Stage::set(on).await;
    let flags = [
        ("brake-explained-min", "2"),
        ("brake-explained-hour-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 6).await;
    for (member, outcome) in [
        ("m1", "revoked"),
        ("m2", "revoked"),
        ("m3", "held"),
        ("m4", "held"),
    ] {
        stage.directory.decide(GYM, member, 2, &[]).await;
        let told = stage.answer(member, |told| told.version == 2).await;
        assert_eq!(told.outcome, outcome, "{told:?}");
    }
    let plan = replica.plan_held().await;
    let discard = |digest: &str| api::DecidePlanRequest {
        gym_id: GYM.to_owned(),
        id: plan.id.clone(),
        digest: digest.to_owned(),
    };
    // Only what was shown is discarded.
    let other = replica.client.discard_plan(discard("another")).await;
    assert_eq!(other.unwrap_err().code(), Code::FailedPrecondition);
    stage.kisi.forget_requests().await;
    let discarded = replica.client.discard_plan(discard(&plan.digest)).await;
    assert_eq!(discarded.unwrap().into_inner().state, "discarded");
    // Once.
    let again = replica.client.discard_plan(discard(&plan.digest)).await;
    assert_eq!(again.unwrap_err().code(), Code::FailedPrecondition);

    for _ in 0..2 {
        let sync = replica.sync().await;
        let report = sync.report.unwrap();
        assert_eq!((report.revoked, report.granted), (0, 0), "{report:?}");
        let held = replica.held_plans().await;
        let held = held.into_iter().filter(|plan| plan.state == "held");
        assert_eq!(held.count(), 0);
        assert_eq!(replica.integration().await.state, "active");
    }
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 4);

    // What is decided of one of them from now on is done, and of nobody else.
    replica.stop().await;
    let mut replica = stage.start().await;
    stage.directory.decide(GYM, "m3", 3, &[]).await;
    let told = stage.answer("m3", |told| told.version == 3).await;
    assert_eq!(told.outcome, "revoked");
    stage.directory.decide(GYM, "m4", 3, &[PLAN]).await;
    let told = stage.answer("m4", |told| told.version == 3).await;
    assert_eq!(told.outcome, "unchanged");
    assert!(replica.sync().await.in_sync);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 3);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_plan_takes_nothing_and_is_not_asked_again_on_sqlite() {
    a_discarded_plan_takes_nothing_and_is_not_asked_again(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_plan_takes_nothing_and_is_not_asked_again_on_postgres() {
    a_discarded_plan_takes_nothing_and_is_not_asked_again(On::Postgres).await;
}

const ONE_AN_HOUR: [(&str, &str); 2] = [
    ("brake-explained-min", "1"),
    ("brake-explained-hour-percent", "0"),
];

async fn discard(replica: &mut Running, plan: api::HeldPlan) {
    let request = api::DecidePlanRequest {
        gym_id: GYM.to_owned(),
        id: plan.id,
        digest: plan.digest,
    };
    replica.client.discard_plan(request).await.unwrap();
}

/// Of `n` members the first loses her right, the second is held by a plan that staff discard.
async fn one_is_out_and_one_kept(replica: &mut Running, stage: &Stage, n: i64) {
    stage.in_sync(replica, n).await;
    for (member, outcome) in [("m1", "revoked"), ("m2", "held")] {
        stage.directory.decide(GYM, member, 2, &[]).await;
        let told = stage.answer(member, |told| told.version == 2).await;
        assert_eq!(told.outcome, outcome, "{told:?}");
    }
    let plan = replica.plan_held().await;
    discard(replica, plan).await;
}

async fn an_end_by_revoking_takes_back_what_was_held_and_what_was_kept(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start_with(&ONE_AN_HOUR).await;
    one_is_out_and_one_kept(&mut replica, &stage, 4).await;
    stage.directory.decide(GYM, "m3", 2, &[]).await;
    let told = stage.answer("m3", |told| told.version == 2).await;
    assert_eq!(told.outcome, "held", "{told:?}");
    replica.plan_held().await;
    let preview = replica.preview(Some(&[])).await;
    assert_eq!(preview.members_out, 3);
    let request = api::DisableIntegrationRequest {
        gym_id: GYM.to_owned(),
        access: "revoke".to_owned(),
        digest: Some(preview.digest),
    };
    let ended = replica.client.disable_integration(request).await.unwrap();
    assert_eq!(ended.into_inner().state, "disabled");
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    assert!(replica.held_plans().await.is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_by_revoking_takes_back_what_was_held_and_what_was_kept_on_sqlite() {
    an_end_by_revoking_takes_back_what_was_held_and_what_was_kept(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_by_revoking_takes_back_what_was_held_and_what_was_kept_on_postgres() {
    an_end_by_revoking_takes_back_what_was_held_and_what_was_kept(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_discarded_plan_kept_goes_by_a_sync_that_is_confirmed() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&ONE_AN_HOUR).await;
    one_is_out_and_one_kept(&mut replica, &stage, 4).await;
    let preview = replica.preview(None).await;
    assert_eq!(preview.member_ids_out, ["m2"]);
    let request = api::StartSyncRequest {
        gym_id: GYM.to_owned(),
        digest: Some(preview.digest),
    };
    let sync = replica.client.start_sync(request).await.unwrap();
    let sync = replica.ended(&sync.into_inner().sync_id).await;
    assert_eq!((sync.state.as_str(), sync.in_sync), ("done", true));
    assert_eq!(sync.report.unwrap().revoked, 1);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_discarded_keeps_nobody_out_of_the_next_integration() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [("brake-grants-min", "2"), ("brake-grants-percent", "0")];
    let mut replica = stage.start_with(&flags).await;
    for i in 1..=4 {
        let member = format!("c{i}");
        stage.directory.decide(GYM, &member, 1, &["pool"]).await;
    }
    stage.in_sync(&mut replica, 2).await;
    let mapping = [(PLAN, GROUP), ("pool", OTHER_GROUP)];
    replica.associate(&mapping).await.unwrap();
    let plan = replica.plan_held().await;
    assert_eq!((plan.class.as_str(), plan.grants), ("grants", 4));
    discard(&mut replica, plan).await;
    let request = api::DisableIntegrationRequest {
        gym_id: GYM.to_owned(),
        access: "keep".to_owned(),
        digest: None,
    };
    replica.client.disable_integration(request).await.unwrap();
    replica.enable(&stage.kisi.api_key()).await.unwrap();
    let place = api::SelectPlaceRequest {
        gym_id: GYM.to_owned(),
        place_id: PLACE,
    };
    replica.client.select_place(place).await.unwrap();
    replica.associate(&mapping).await.unwrap();
    let sync = replica.sync().await;
    assert_eq!((sync.state.as_str(), sync.in_sync), ("done", true));
    assert_eq!(stage.kisi.group_rows(OTHER_GROUP).await.len(), 4);
    replica.stop().await;
}

/// A mapping that was taken away by mistake: a version that says nothing of the plan says nothing of the loss.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_with_the_same_plans_leaves_whoever_is_held_held() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 12).await;
    replica
        .associate(&[(OTHER_PLAN, OTHER_GROUP)])
        .await
        .unwrap();
    assert_eq!(replica.plan_held().await.revokes, 12);
    let mut state = stage.directory.put(GYM, "m1", 2, &[PLAN]).state.unwrap();
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(48);
    state.plans[0].valid_until = Some(contracts::wire::timestamp(end));
    stage.directory.publish(&state).await;
    let told = stage.answer("m1", |told| told.version == 2).await;
    assert_eq!(told.outcome, "held", "{told:?}");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 12);
    // What shuts her out by itself does.
    stage.directory.decide(GYM, "m1", 3, &[]).await;
    let told = stage.answer("m1", |told| told.version == 3).await;
    assert_eq!(told.outcome, "revoked");
    // And the plan goes back to its group: nobody is held.
    replica.associate(&[(PLAN, GROUP)]).await.unwrap();
    testkit::eventually("nothing is held", SOON, async || {
        replica.held_plans().await.is_empty()
    })
    .await;
    assert!(replica.sync().await.in_sync);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 11);
    replica.stop().await;
}
