//! A key that Kisi refuses while much is under way with it: it is found once, whoever waits for it is
//! told, and the key that takes its place is no dead one.

use contracts::integration::v1 as api;

use crate::harness::{GYM, On, Running, SOON, Stage};
use crate::kisi::{Fault, GROUP};

/// More than are worked on in the background at once, and no more than the brake lets go.
const MANY: i64 = 10;

async fn rotate(replica: &mut Running, api_key: String) {
    let request = api::EnableIntegrationRequest {
        gym_id: GYM.to_owned(),
        api_key,
    };
    replica.client.rotate_api_key(request).await.unwrap();
}

/// How many requests Kisi answered so.
fn answered(stage: &Stage, status: u16) -> usize {
    let state = stage.kisi.shared().lock();
    let log = state.log.since(0);
    log.filter(|entry| entry.status == Some(status)).count()
}

async fn start_sync(replica: &mut Running) -> api::Sync {
    let request = api::StartSyncRequest {
        gym_id: GYM.to_owned(),
        digest: None,
    };
    let sync = replica.client.start_sync(request).await.unwrap();
    sync.into_inner()
}

async fn needs_attention(replica: &mut Running) {
    testkit::eventually("the integration needs attention", SOON, async || {
        replica.integration().await.state == "needs_attention"
    })
    .await;
}

/// A right that Kisi does not let one key take back is tried again in an hour: with another key at once, and
/// not as late as the pass that begins with it comes to her.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_key_was_refused_is_tried_at_once_with_the_next() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let (route, refusal) = ("/role_assignments/{id}", Fault::Status(403));
    stage.kisi.fail("DELETE", route, u64::MAX, refusal).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let told = stage.answer("m1", |told| told.version == 2).await;
    assert_eq!(told.outcome, "failed", "{told:?}");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    stage.kisi.clear_faults();
    stage.kisi.overlook_refusals();
    // Of the same owner, so that it is no other lease's.
    rotate(&mut replica, stage.kisi.key_of_the_same()).await;
    stage.answer("m1", |told| told.outcome == "revoked").await;
    let requests = stage.kisi.requests().await;
    let closed = requests.iter().position(|it| it.starts_with("DELETE"));
    let before = requests.iter().take(closed.unwrap());
    let lists = before.filter(|it| *it == "GET /role_assignments").count();
    // Of what the key's owner has, when it was saved.
    assert!(lists <= 1, "{requests:?}");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}

/// Everybody waits for the pacer with a key that is refused: one of them finds it, and the next key
/// takes all of them.
async fn a_key_that_dies_under_many_is_asked_once_and_replaced_for_all(on: On) {
    const MEMBERS: i64 = 24;
    let stage = Stage::set(on).await;
    let flags = [("kisi-requests-per-second", "20")];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, MEMBERS).await;
    // Of the same owner, so that nothing but the key changes.
    let other = stage.kisi.key_of_the_same();
    stage.kisi.revoke_key().await;
    for i in 1..=MEMBERS {
        let member = format!("m{i}");
        stage.directory.decide(GYM, &member, 2, &[]).await;
    }
    needs_attention(&mut replica).await;
    rotate(&mut replica, other).await;
    for i in 1..=MEMBERS {
        let revoked = |told: &contracts::access::v1::AccessApplied| {
            told.version == 2 && told.outcome == "revoked"
        };
        stage.answer(&format!("m{i}"), revoked).await;
    }
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    let refused = answered(&stage, 401);
    assert!(refused <= 2, "{refused} requests with a dead key");
    let shown = replica.integration().await;
    assert_eq!(shown.key.unwrap().status, "ok");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_dies_under_many_is_asked_once_and_replaced_for_all_on_sqlite() {
    a_key_that_dies_under_many_is_asked_once_and_replaced_for_all(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_dies_under_many_is_asked_once_and_replaced_for_all_on_postgres() {
    a_key_that_dies_under_many_is_asked_once_and_replaced_for_all(On::Postgres).await;
}

/// Staff save another key, and then delete the one that a pass is still reading with.
#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_ends_with_the_former_key_leaves_the_new_one_alive() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [("kisi-request-timeout", "8s")];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 2).await;
    // Past the rights of the key's owner, at the first group.
    let wait = Fault::Wait;
    stage
        .kisi
        .fail_after(1, "GET", "/role_assignments", 1, wait)
        .await;
    let sync = start_sync(&mut replica).await;
    stage.kisi.one_is_held_back(0).await;
    rotate(&mut replica, stage.kisi.second_key()).await;
    stage.kisi.revoke_key().await;
    stage.kisi.clear_faults();
    replica.ended(&sync.sync_id).await;
    let shown = replica.integration().await;
    assert_eq!(shown.key.unwrap().status, "ok");
    assert_eq!(shown.state, "active", "{:?}", shown.attention);
    assert_eq!(replica.sync().await.state, "done");
    replica.stop().await;
}

/// The same of a request for a single member.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_ends_with_the_former_key_is_made_again_with_the_new_one() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [("kisi-request-timeout", "8s")];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 2).await;
    let (delete, wait) = ("/role_assignments/{id}", Fault::Wait);
    stage.kisi.fail("DELETE", delete, 1, wait).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.kisi.one_is_held_back(0).await;
    let mut rotating = replica.client.clone();
    let request = api::EnableIntegrationRequest {
        gym_id: GYM.to_owned(),
        api_key: stage.kisi.second_key(),
    };
    let rotated = tokio::spawn(async move { rotating.rotate_api_key(request).await });
    testkit::eventually("the key is replaced", SOON, async || {
        let key = replica.integration().await.key.unwrap();
        !key.owner_is_owner
    })
    .await;
    stage.kisi.revoke_key().await;
    stage.kisi.clear_faults();
    rotated.await.unwrap().unwrap();
    stage.answer("m1", |told| told.outcome == "revoked").await;
    let shown = replica.integration().await;
    assert_eq!(shown.key.unwrap().status, "ok");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}

/// Nobody waits for another key to see how a sync ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_ends_when_the_key_dies_under_it() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, MANY).await;
    for right in stage.kisi.group_rows(GROUP).await {
        let right = right["id"].as_i64().unwrap();
        stage.kisi.remove_by_hand(right).await;
    }
    let wait = Fault::Wait;
    stage.kisi.fail("POST", "/role_assignments", 1, wait).await;
    let sync = start_sync(&mut replica).await;
    stage.kisi.one_is_held_back(0).await;
    let other = stage.kisi.revoke_key().await;
    stage.kisi.clear_faults();
    let ended = tokio::time::timeout(SOON, replica.ended(&sync.sync_id)).await;
    let ended = ended.expect("the sync ends");
    assert_eq!(ended.state, "failed");
    let failures = ended.report.unwrap().failures;
    let names_the_key = |why: &str| why.contains("key");
    assert!(
        failures.iter().any(|one| names_the_key(&one.failure)),
        "{failures:?}"
    );
    rotate(&mut replica, other).await;
    assert!(replica.sync().await.in_sync);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), MANY as usize);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_everything_back_is_answered_when_the_key_dies_under_it() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, MANY).await;
    let preview = replica.preview(Some(&[])).await;
    let (delete, wait) = ("/role_assignments/{id}", Fault::Wait);
    stage.kisi.fail("DELETE", delete, 1, wait).await;
    let mut client = replica.client.clone();
    let request = api::DisableIntegrationRequest {
        gym_id: GYM.to_owned(),
        access: "revoke".to_owned(),
        digest: Some(preview.digest),
    };
    let disabled = tokio::spawn(async move { client.disable_integration(request).await });
    stage.kisi.one_is_held_back(0).await;
    stage.kisi.revoke_key().await;
    stage.kisi.clear_faults();
    let answer = tokio::time::timeout(SOON, disabled).await;
    let refused = answer.expect("the call is answered").unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
    needs_attention(&mut replica).await;
    replica.stop().await;
}
