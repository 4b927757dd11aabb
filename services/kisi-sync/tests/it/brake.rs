//! Single events run up to the line; what lies past it is held by name until a person decides.

use contracts::integration::v1 as api;

use crate::harness::{GYM, On, PLAN, SOON, Stage};
use crate::kisi::GROUP;

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
