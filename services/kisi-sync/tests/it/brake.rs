//! Single events run up to the line; what lies past it is held by name until a person decides.

use contracts::integration::v1 as api;

use crate::harness::{GYM, On, PLAN, Running, SOON, Stage};
use crate::kisi::{GROUP, OTHER_GROUP};

#[tokio::test(flavor = "multi_thread")]
async fn events_past_the_line_are_held_and_survive_a_restart() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [
        ("brake-explained-min", "2"),
        ("brake-explained-hour-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 6).await;
    for member in ["m1", "m2"] {
        stage.directory.decide(GYM, member, 2, &[]).await;
        let told = stage.answer(member, |answer| answer.version == 2).await;
        assert_eq!(told.outcome, "revoked");
    }
    for member in ["m3", "m4"] {
        stage.directory.decide(GYM, member, 2, &[]).await;
        let told = stage.answer(member, |answer| answer.version == 2).await;
        assert_eq!(told.outcome, "held", "{told:?}");
        assert_eq!(told.failure.as_deref(), Some("brake"));
        assert_eq!(told.grants.len(), 1);
    }
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 4);

    // The counts and the plan are the tables': a restart changes neither.
    replica.stop().await;
    let mut replica = stage.start_with(&flags).await;
    let gym = api::GymRequest {
        gym_id: GYM.to_owned(),
    };
    let plans = replica.client.list_held_plans(gym.clone()).await.unwrap();
    let plan = plans.into_inner().held_plans.remove(0);
    assert_eq!((plan.class.as_str(), plan.revokes), ("explained", 2));
    // A sync leaves them as they are, and asks no second time.
    let sync = replica.sync().await;
    assert_eq!((sync.state.as_str(), sync.in_sync), ("held", false));
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 4);
    let plans = replica.client.list_held_plans(gym).await.unwrap();
    assert_eq!(plans.into_inner().held_plans.len(), 1);

    // Entitled again: m3 drops out without spoiling the set.
    stage.directory.decide(GYM, "m3", 3, &[PLAN]).await;
    let told = stage.answer("m3", |answer| answer.version == 3).await;
    assert_eq!(told.outcome, "unchanged");
    let approve = api::DecidePlanRequest {
        gym_id: GYM.to_owned(),
        id: plan.id,
        digest: plan.digest,
    };
    replica.client.approve_plan(approve).await.unwrap();
    stage
        .answer("m4", |answer| {
            answer.version == 2 && answer.outcome == "revoked"
        })
        .await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 3);
    testkit::eventually("nothing needs attention", SOON, async || {
        replica.integration().await.state == "active"
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_lets_in_too_many_waits_until_it_is_approved_and_for_no_later_pass() {
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
    let gym = api::GymRequest {
        gym_id: GYM.to_owned(),
    };
    let held = async |replica: &mut Running| {
        testkit::eventually_some("the plan is held", SOON, async || {
            let plans = replica.client.list_held_plans(gym.clone()).await.unwrap();
            plans.into_inner().held_plans.pop()
        })
        .await
    };
    let plan = held(&mut replica).await;
    assert_eq!(
        (plan.class.as_str(), plan.revokes, plan.grants),
        ("grants", 0, 4)
    );
    let sync = replica.sync().await;
    assert_eq!((sync.state.as_str(), sync.in_sync), ("held", false));
    assert!(stage.kisi.group_rows(OTHER_GROUP).await.is_empty());
    // Whom a fact of her own lets in waits for nobody.
    stage.directory.decide(GYM, "c1", 2, &["pool"]).await;
    let told = stage.answer("c1", |answer| answer.version == 2).await;
    assert_eq!(told.outcome, "granted");
    // Another mapping is another question; the same one again is asked anew.
    replica.associate(&[(PLAN, GROUP)]).await.unwrap();
    stage
        .answer("c1", |answer| answer.outcome == "revoked")
        .await;
    replica.associate(&mapping).await.unwrap();
    let again = held(&mut replica).await;
    assert!(again.id != plan.id && again.grants == 4, "{again:?}");
    let decide = |plan: &api::HeldPlan| api::DecidePlanRequest {
        gym_id: GYM.to_owned(),
        id: plan.id.clone(),
        digest: plan.digest.clone(),
    };
    let late = replica
        .client
        .approve_plan(decide(&plan))
        .await
        .unwrap_err();
    assert_eq!(late.code(), tonic::Code::FailedPrecondition);
    replica.client.approve_plan(decide(&again)).await.unwrap();
    testkit::eventually("the doors are open", SOON, async || {
        stage.kisi.group_rows(OTHER_GROUP).await.len() == 4
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecided_plan_is_shown_once_more_and_then_planned_anew() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&[("reconcile-every", "2s")]).await;
    stage.in_sync(&mut replica, 12).await;
    replica.associate(&[]).await.unwrap();
    let attention = async |replica: &mut Running, words: &str| {
        testkit::eventually_some("it is shown", SOON, async || {
            let shown = replica.integration().await.attention;
            let held = shown.into_iter().find(|a| a.what == "plan_held");
            held.filter(|a| a.message.contains(words))
        })
        .await
        .subject
    };
    let first = attention(&mut replica, "approve").await;
    // The time passes.
    let db = kisi_sync::store::connect(&secrecy::SecretString::from(stage.database_url()))
        .await
        .unwrap();
    let hour = 3_600_000_000_i64;
    for (by, words) in [(60 * hour, "within a day"), (80 * hour, "lose access")] {
        let sql = format!(
            "update held_plans set expires_at = held_at + {} where id = '{first}'",
            72 * hour - by
        );
        sea_orm::ConnectionTrait::execute_unprepared(&db, &sql)
            .await
            .unwrap();
        let shown = attention(&mut replica, words).await;
        assert_eq!(shown == first, by == 60 * hour);
    }
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 12);
    replica.stop().await;
}
