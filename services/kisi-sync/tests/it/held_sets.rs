//! A held plan is of exactly those whom it holds when it is first shown.

use tonic::Code;

use crate::harness::{GYM, On, PLAN, Running, SOON, Stage};
use crate::kisi::GROUP;

async fn whoever_is_entitled_again_before_it_is_shown_is_no_part_of_it(on: On) {
    let stage = Stage::set(on).await;
    let flags = [
        ("brake-explained-min", "1"),
        ("brake-explained-hour-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 5).await;
    let decide = async |member: &str, version: i64, plans: &[&str]| {
        stage.directory.decide(GYM, member, version, plans).await;
        let told = stage.answer(member, |told| told.version == version).await;
        told.outcome
    };
    let plan_shown = async |replica: &mut Running| {
        let shown = replica.integration().await.attention;
        shown.into_iter().find(|matter| matter.what == "plan_held")
    };
    assert_eq!(decide("m1", 2, &[]).await, "revoked");
    assert_eq!(decide("m2", 2, &[]).await, "held");
    assert!(plan_shown(&mut replica).await.is_some());
    assert_eq!(decide("m2", 3, &[PLAN]).await, "unchanged");
    // There is nothing left to decide.
    let plans = replica.held_plans().await;
    assert!(plans.is_empty(), "{plans:?}");
    assert!(plan_shown(&mut replica).await.is_none());

    for member in ["m3", "m4", "m5"] {
        assert_eq!(decide(member, 2, &[]).await, "held", "{member}");
    }
    assert_eq!(decide("m4", 3, &[PLAN]).await, "unchanged");
    let id = plan_shown(&mut replica).await.unwrap().subject;
    // Nobody was shown what it is of.
    let unseen = replica.approve(&id, "").await.unwrap_err();
    assert_eq!(unseen.code(), Code::FailedPrecondition);
    let plan = replica.plan_held().await;
    assert_eq!((plan.id.as_str(), plan.revokes), (id.as_str(), 2));
    // Shown again, it is the same.
    assert_eq!(replica.plan_held().await.digest, plan.digest);
    // What comes later opens another.
    assert_eq!(decide("m4", 4, &[]).await, "held");
    let plans = replica.held_plans().await;
    let sizes: Vec<i64> = plans.iter().map(|plan| plan.revokes).collect();
    assert_eq!(sizes, [1, 2], "newest first: {plans:?}");
    replica.approve(&id, &plan.digest).await.unwrap();
    testkit::eventually("the two are out, and no third", SOON, async || {
        stage.kisi.group_rows(GROUP).await.len() == 2
    })
    .await;
    let told = stage.answer("m4", |told| told.version == 4).await;
    assert_eq!(told.outcome, "held");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    whoever_is_entitled_again_before_it_is_shown_is_no_part_of_it(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    whoever_is_entitled_again_before_it_is_shown_is_no_part_of_it(On::Postgres).await;
}
