//! Staff have deleted somebody's user in Kisi, which goes on listing her rights: they open nothing.

use contracts::integration::v1 as api;
use kisi_simulator::settings::DeletedRights;
use serde_json::json;
use testkit::eventually;

use crate::harness::{GYM, OTHER_PLAN, On, Running, SOON, Stage, set};
use crate::kisi::{Fault, GROUP};
use crate::kisi_events;

/// m1's user is gone, and her right is listed.
async fn delete(stage: &Stage) -> i64 {
    stage
        .kisi
        .set(|settings| settings.deleted_rights = DeletedRights::Stay);
    let user = stage.kisi.user_of("m1@example.com");
    let gone = json!({ "action": "delete_user", "user_id": user });
    stage.kisi.by_hand(gone).await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 3);
    user
}

/// The only right of hers is one of another user, who is there.
async fn is_healed(stage: &Stage, former: i64) -> bool {
    let rows = stage.kisi.group_rows(GROUP).await;
    let users = stage.kisi.users();
    let is_of_somebody = |row: &serde_json::Value| {
        let user = row["assignee_id"].as_i64().unwrap();
        user != former && users.contains(&user)
    };
    rows.len() == 3 && rows.iter().all(is_of_somebody)
}

async fn rests(stage: &Stage, replica: &mut Running) {
    stage.kisi.forget_requests().await;
    let sync = replica.sync().await;
    assert_eq!((sync.state.as_str(), sync.in_sync), ("done", true));
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
}

async fn a_deleted_user_whose_rights_are_listed_is_found_by_a_pass(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    rests(&stage, &mut replica).await;
    let in_sync = stage.kisi.requests().await.len();
    let former = delete(&stage).await;
    stage.kisi.forget_requests().await;
    let sync = replica.sync().await;
    assert_eq!(sync.state, "done", "{sync:?}");
    assert!(is_healed(&stage, former).await);
    stage
        .answer("m1", |told| {
            told.grants.len() == 1 && told.kisi_user_id.is_some_and(|user| user != former)
        })
        .await;
    // Nobody else's user was asked for.
    let requests = stage.kisi.requests().await;
    let others = ["m2", "m3"].map(|member| stage.kisi.user_of(&format!("{member}@example.com")));
    for user in others {
        let of_user = format!("GET /users/{user}");
        assert!(!requests.contains(&of_user), "{requests:?}");
    }
    rests(&stage, &mut replica).await;
    assert_eq!(stage.kisi.requests().await.len(), in_sync);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_whose_rights_are_listed_is_found_by_a_pass_on_sqlite() {
    a_deleted_user_whose_rights_are_listed_is_found_by_a_pass(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_whose_rights_are_listed_is_found_by_a_pass_on_postgres() {
    a_deleted_user_whose_rights_are_listed_is_found_by_a_pass(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_whose_rights_are_listed_is_found_by_kisi_s_event() {
    let stage = Stage::set(On::Sqlite).await;
    let (mut replica, _inlet) = kisi_events::listening(&stage, 3).await;
    let former = stage.kisi.user_of("m1@example.com");
    stage
        .kisi
        .set(|settings| settings.deleted_rights = DeletedRights::Stay);
    stage.kisi.delete_user_by_api(former).await;
    eventually("she has another user", SOON, async || {
        is_healed(&stage, former).await
    })
    .await;
    stage
        .answer("m1", |told| {
            told.grants.len() == 1 && told.kisi_user_id != Some(former)
        })
        .await;
    rests(&stage, &mut replica).await;
    replica.stop().await;
}

/// How often Kisi was asked for this user.
async fn asked_for(stage: &Stage, user: i64) -> usize {
    let of_user = format!("GET /users/{user}");
    let requests = stage.kisi.requests().await;
    requests.iter().filter(|it| **it == of_user).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whom_a_right_does_not_name_is_asked_for_once_a_day() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    rests(&stage, &mut replica).await;
    let user = stage.kisi.user_of("m1@example.com");
    stage.kisi.unname(user);
    rests(&stage, &mut replica).await;
    assert_eq!(asked_for(&stage, user).await, 1);
    rests(&stage, &mut replica).await;
    assert_eq!(asked_for(&stage, user).await, 0);
    replica.stop().await;
}

/// Two may lose their rights unasked.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_covers_a_user_whom_a_right_does_not_name() {
    let flags = [
        ("brake-unexplained-min", "2"),
        ("brake-unexplained-hour-percent", "0"),
    ];
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 6).await;
    stage.kisi.unname(stage.kisi.user_of("m1@example.com"));
    let mapping = [(OTHER_PLAN, GROUP)];
    let preview = replica.preview(Some(&mapping)).await;
    assert_eq!(preview.members_out, 6);
    let request = api::SetAssociationsRequest {
        gym_id: GYM.to_owned(),
        associations: set(&mapping),
        digest: Some(preview.digest),
    };
    replica.client.set_associations(request).await.unwrap();
    eventually("all six are out", SOON, async || {
        stage.kisi.group_rows(GROUP).await.is_empty()
    })
    .await;
    replica.stop().await;
}

/// A search by e-mail lists a user whom Kisi does not know by the id.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_gone_and_found_again_is_not_gone_round_after() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    let user = stage.kisi.user_of("m1@example.com");
    stage.kisi.unname(user);
    let gone = Fault::Status(404);
    stage.kisi.fail("GET", "/users/{id}", 1_000, gone).await;
    stage.kisi.forget_requests().await;
    let sync = replica.sync().await;
    assert_eq!(sync.state, "done_with_failures", "{sync:?}");
    let asked = asked_for(&stage, user).await;
    assert!((1..=3).contains(&asked), "{asked}");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 3);
    stage.kisi.clear_faults();
    rests(&stage, &mut replica).await;
    replica.stop().await;
}
