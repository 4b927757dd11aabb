//! A held plan that staff discard: whom it held keeps what she has, nobody is asked again, and what is
//! decided of one of them later is a matter of its own.

use contracts::integration::v1 as api;
use tonic::Code;

use crate::harness::{GYM, On, PLAN, Stage};
use crate::kisi::GROUP;

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
