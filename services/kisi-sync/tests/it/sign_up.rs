//! Regular users: Kisi mails them, they sign up, and until then it is shown that they have to.

use contracts::integration::v1 as api;
use serde_json::json;

use crate::harness::{GYM, On, PLAN, Running, Stage};
use crate::kisi::{Fault, GROUP, PLACE};

async fn regular(stage: &Stage, replica: &mut Running) {
    replica.enable(&stage.kisi.api_key()).await.unwrap();
    let place = api::SelectPlaceRequest {
        gym_id: GYM.to_owned(),
        place_id: PLACE,
    };
    replica.client.select_place(place).await.unwrap();
    let policies = api::SetPoliciesRequest {
        gym_id: GYM.to_owned(),
        policies: Some(api::Policies {
            user_mode: "regular".to_owned(),
            ..api::Policies::default()
        }),
    };
    replica.client.set_policies(policies).await.unwrap();
    replica.associate(&[(PLAN, GROUP)]).await.unwrap();
}

async fn a_regular_user_is_asked_to_sign_up_until_she_has(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    for member in ["m1", "m2", "m3"] {
        stage.directory.decide(GYM, member, 1, &[PLAN]).await;
    }
    // Somebody whom Kisi knows already has signed up long ago.
    stage
        .kisi
        .add_by_hand("m3@example.com", crate::kisi::ELSEWHERE)
        .await;
    regular(&stage, &mut replica).await;
    assert!(replica.sync().await.in_sync);
    let mut told = Vec::new();
    for (member, asked) in [("m1", true), ("m2", true), ("m3", false)] {
        let answer = stage
            .answer(member, |answer| answer.outcome == "granted")
            .await;
        assert_eq!(answer.sign_up_needed, asked, "{member}");
        told.push(answer);
    }
    assert_eq!(stage.kisi.emails().await, 2, "two invitations");
    assert_eq!(replica.integration().await.sign_ups_needed, 2);

    stage
        .kisi
        .by_hand(json!({ "action": "sign_up", "email": "m1@example.com" }))
        .await;
    // As often as a read is repeated: who has signed up is told later, and nothing else is kept back.
    let fault = Fault::Status(500);
    stage.kisi.fail("GET", "/users", 3, fault).await;
    let sync = replica.sync().await;
    assert_eq!(
        (sync.state.as_str(), sync.in_sync),
        ("done_with_failures", true)
    );
    assert_eq!(sync.report.unwrap().failures[0].step, "sign_ups");
    stage.kisi.forget_requests().await;
    assert!(replica.sync().await.in_sync);
    let done = stage.answer("m1", |answer| !answer.sign_up_needed).await;
    assert_eq!(done.outcome, "unchanged");
    assert_eq!(done.grants, told[0].grants);
    assert_eq!(replica.integration().await.sign_ups_needed, 1);
    // One page tells of both, and nothing is written.
    let requests = stage.kisi.requests().await;
    let asked = requests.iter().filter(|r| *r == "GET /users").count();
    assert_eq!(asked, 1, "{requests:?}");
    assert!(stage.kisi.writes().await.is_empty());
    let still = stage.answer("m2", |_| true).await;
    assert_eq!(still.applied_seq, told[1].applied_seq, "told once");

    // Nobody is left to be asked for: no request.
    stage
        .kisi
        .by_hand(json!({ "action": "sign_up", "email": "m2@example.com" }))
        .await;
    replica.sync().await;
    stage.answer("m2", |answer| !answer.sign_up_needed).await;
    stage.kisi.forget_requests().await;
    replica.sync().await;
    let requests = stage.kisi.requests().await;
    assert!(!requests.contains(&"GET /users".to_owned()), "{requests:?}");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regular_user_is_asked_to_sign_up_until_she_has_on_sqlite() {
    a_regular_user_is_asked_to_sign_up_until_she_has(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regular_user_is_asked_to_sign_up_until_she_has_on_postgres() {
    a_regular_user_is_asked_to_sign_up_until_she_has(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_user_is_never_asked_to_sign_up_and_costs_no_request() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let told = stage.answer("m1", |answer| answer.version == 1).await;
    assert!(!told.sign_up_needed);
    replica.sync().await;
    let requests = stage.kisi.requests().await;
    assert!(!requests.iter().any(|r| r.starts_with("GET /users")));
    assert_eq!(stage.kisi.emails().await, 0);
    let user = stage.kisi.user_of("m1@example.com");
    assert!(stage.kisi.shared().lock().world.users[&user].confirmed);
    replica.stop().await;
}
