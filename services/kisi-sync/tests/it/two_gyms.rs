//! Two gyms in one Kisi organization, by one key or by two: nothing is removed while the other gym
//! wants it.

use contracts::access::v1::AccessApplied;
use contracts::integration::v1 as api;
use contracts::wire;
use jiff::{SignedDuration, Timestamp};
use kisi_simulator::settings::{DuplicateAssignment, PatchMetadata, PatchWindow};
use serde_json::json;
use tonic::{Code, Status};

use crate::harness::{GYM, On, PLAN, Running, SOON, Stage, set};
use crate::kisi::{Fault, GROUP, PLACE};

const OTHER: &str = "steel";

async fn until_owned<T>(call: impl AsyncFn() -> Result<T, Status>) -> T {
    testkit::eventually_some("it is taken", SOON, async || match call().await {
        Err(status) if status.code() == Code::Unavailable => None,
        taken => Some(taken.unwrap()),
    })
    .await
}

/// The gym set up by this key, and in sync.
pub async fn in_sync(replica: &mut Running, gym: &str, key: &str) {
    let gym_id = || gym.to_owned();
    let client = &mut replica.client;
    let enable = api::EnableIntegrationRequest {
        gym_id: gym_id(),
        api_key: key.to_owned(),
    };
    // With two replicas a gym may change hands just now.
    let enabled = async || client.clone().enable_integration(enable.clone()).await;
    until_owned(enabled).await;
    let place = api::SelectPlaceRequest {
        gym_id: gym_id(),
        place_id: PLACE,
    };
    let selected = async || client.clone().select_place(place.clone()).await;
    until_owned(selected).await;
    let associations = api::SetAssociationsRequest {
        gym_id: gym_id(),
        associations: set(&[(PLAN, GROUP)]),
        digest: None,
    };
    let set = async || client.clone().set_associations(associations.clone()).await;
    until_owned(set).await;
    assert_eq!(sync(replica, gym).await.state, "done");
}

pub async fn sync(replica: &mut Running, gym: &str) -> api::Sync {
    let start = api::StartSyncRequest {
        gym_id: gym.to_owned(),
        digest: None,
    };
    let started = async || replica.client.clone().start_sync(start.clone()).await;
    let sync = until_owned(started).await.into_inner();
    let watch = api::GetSyncRequest {
        gym_id: gym.to_owned(),
        sync_id: sync.sync_id,
    };
    let mut states = replica.client.watch_sync(watch).await.unwrap().into_inner();
    let mut last = None;
    while let Some(state) = states.message().await.unwrap() {
        last = Some(state);
    }
    last.unwrap()
}

pub async fn answer(stage: &Stage, gym: &str, member: &str, version: i64) -> AccessApplied {
    let subject = contracts::subjects::access(gym, member);
    testkit::eventually_some("the gym's answer", SOON, async || {
        let stream = stage.bus.jetstream().get_stream("ACCESS").await.unwrap();
        let message = stream.get_last_raw_message_by_subject(&subject).await;
        let answer: AccessApplied = serde_json::from_slice(&message.ok()?.payload).unwrap();
        (answer.version == version && answer.failure.as_deref() != Some("not_set_up"))
            .then_some(answer)
    })
    .await
}

/// The same person in both gyms.
async fn decide(stage: &Stage, gym: &str, member: &str, version: i64, plans: &[&str]) {
    decide_until(stage, gym, member, version, plans, None).await;
}

/// With an end of all plans.
async fn decide_until(
    stage: &Stage,
    gym: &str,
    member: &str,
    version: i64,
    plans: &[&str],
    until: Option<Timestamp>,
) {
    let mut person = stage.directory.put(gym, member, version, plans);
    person.email = "ada@example.com".to_owned();
    for plan in &mut person.state.as_mut().unwrap().plans {
        plan.valid_until = until.map(wire::timestamp);
    }
    stage.directory.insert(person.clone());
    stage.directory.publish(&person.state.unwrap()).await;
}

async fn erase(stage: &Stage, gym: &str, member: &str, version: i64) {
    let mut person = stage.directory.put(gym, member, version, &[]);
    person.email = "ada@example.com".to_owned();
    let mut state = person.state.clone().unwrap();
    state.erased = true;
    stage.directory.insert(person);
    stage.directory.publish(&state).await;
}

async fn nothing_is_removed_while_the_other_gym_wants_it(second_key: bool) {
    let stage = Stage::set(On::Sqlite).await;
    // What a changed metadata leaves of the one before nobody knows.
    stage.kisi.set(|settings| {
        settings.patch_metadata = match second_key {
            true => PatchMetadata::Merge,
            false => PatchMetadata::Replace,
        };
    });
    let mut replica = stage.start().await;
    let key = stage.kisi.api_key();
    let other_key = match second_key {
        true => stage.kisi.second_key(),
        false => key.clone(),
    };
    decide(&stage, GYM, "m1", 1, &[PLAN]).await;
    decide(&stage, OTHER, "s1", 1, &[PLAN]).await;
    in_sync(&mut replica, GYM, &key).await;
    in_sync(&mut replica, OTHER, &other_key).await;
    let (ours, theirs) = (
        answer(&stage, GYM, "m1", 1).await,
        answer(&stage, OTHER, "s1", 1).await,
    );
    assert_eq!(ours.grants, theirs.grants);
    assert_eq!(ours.kisi_user_id, theirs.kisi_user_id);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);

    // The one user names the member of each.
    assert_eq!(
        stage.kisi.metadata_of("ada@example.com"),
        json!({ "gymflow_member_id_iron": "m1", "gymflow_member_id_steel": "s1" })
    );

    // The right stays while one of the two wants it, and both reconciles leave it alone.
    decide(&stage, GYM, "m1", 2, &[]).await;
    let gone = answer(&stage, GYM, "m1", 2).await;
    assert_eq!((gone.outcome.as_str(), gone.grants.len()), ("revoked", 0));
    for gym in [GYM, OTHER] {
        assert_eq!(sync(&mut replica, gym).await.state, "done");
    }
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);

    // So does the person.
    erase(&stage, GYM, "m1", 3).await;
    assert_eq!(answer(&stage, GYM, "m1", 3).await.outcome, "erased");
    let ada = "ada@example.com".to_owned();
    assert!(stage.kisi.emails_of_users().contains(&ada));
    decide(&stage, OTHER, "s1", 2, &[]).await;
    assert_eq!(answer(&stage, OTHER, "s1", 2).await.outcome, "revoked");
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    erase(&stage, OTHER, "s1", 3).await;
    assert_eq!(answer(&stage, OTHER, "s1", 3).await.outcome, "erased");
    assert!(!stage.kisi.emails_of_users().contains(&ada));
    stage.kisi.assert_nothing_was_refused().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_while_the_other_gym_wants_it_by_one_key() {
    nothing_is_removed_while_the_other_gym_wants_it(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_while_the_other_gym_wants_it_by_two_keys() {
    nothing_is_removed_while_the_other_gym_wants_it(true).await;
}

/// Until when the door is open to her at Kisi, by whichever right lasts longest; None without an
/// end.
async fn open_until(stage: &Stage) -> Option<Timestamp> {
    let rows = stage.kisi.group_rows(GROUP).await;
    assert!(!rows.is_empty(), "the door is shut");
    let ends = rows.iter().map(|row| row["valid_until"].as_str());
    ends.map(|end| end.map(|end| end.parse::<Timestamp>().unwrap()))
        .reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b)))
        .unwrap()
}

/// Passes of both gyms, until there is nothing left to do; what each wrote.
async fn settled(stage: &Stage, replica: &mut Running) -> usize {
    let mut written = 0;
    for round in 0..2 {
        stage.kisi.forget_requests().await;
        for gym in [GYM, OTHER] {
            assert_eq!(sync(replica, gym).await.state, "done");
        }
        let writes = stage.kisi.writes().await;
        written += writes.len();
        assert!(round == 0 || writes.is_empty(), "undone again: {writes:?}");
    }
    written
}

async fn a_shared_right_is_open_while_either_gym_wants_it(
    second_key: bool,
    patch: PatchWindow,
    duplicate: DuplicateAssignment,
) {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.set(|settings| {
        settings.patch_window = patch;
        settings.duplicate_assignments = duplicate;
    });
    let mut replica = stage.start().await;
    let key = stage.kisi.api_key();
    let other_key = match second_key {
        true => stage.kisi.second_key(),
        false => key.clone(),
    };
    decide(&stage, GYM, "m1", 1, &[PLAN]).await;
    decide(&stage, OTHER, "s1", 1, &[PLAN]).await;
    in_sync(&mut replica, GYM, &key).await;
    in_sync(&mut replica, OTHER, &other_key).await;
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let end = |hours| Some(now.checked_add(SignedDuration::from_hours(hours)).unwrap());
    let in_place = matches!(patch, PatchWindow::Apply);

    // One gym's end is no end while the other has none.
    stage.kisi.forget_requests().await;
    let soon = now.checked_add(SignedDuration::from_secs(3)).unwrap();
    decide_until(&stage, GYM, "m1", 2, &[PLAN], Some(soon)).await;
    answer(&stage, GYM, "m1", 2).await;
    assert!(stage.kisi.writes().await.is_empty());
    assert_eq!(settled(&stage, &mut replica).await, 0);
    testkit::eventually("the end has passed", SOON, async || Timestamp::now() > soon).await;
    assert_eq!(settled(&stage, &mut replica).await, 0);
    assert_eq!(open_until(&stage).await, None);

    // Whoever decides, the later of both ends counts, and nobody's pass has anything to undo.
    decide_until(&stage, GYM, "m1", 3, &[PLAN], end(5)).await;
    answer(&stage, GYM, "m1", 3).await;
    decide_until(&stage, OTHER, "s1", 2, &[PLAN], end(48)).await;
    answer(&stage, OTHER, "s1", 2).await;
    assert_eq!(open_until(&stage).await, end(48));
    let written = settled(&stage, &mut replica).await;
    assert!(!in_place || written == 0, "{written}");
    decide_until(&stage, GYM, "m1", 4, &[PLAN], end(72)).await;
    answer(&stage, GYM, "m1", 4).await;
    assert_eq!(open_until(&stage).await, end(72));
    let written = settled(&stage, &mut replica).await;
    assert!(!in_place || written == 0, "{written}");
    assert_eq!(open_until(&stage).await, end(72));

    // Who leaves it leaves the other with the end that is wanted there.
    decide(&stage, GYM, "m1", 5, &[]).await;
    assert_eq!(answer(&stage, GYM, "m1", 5).await.grants.len(), 0);
    assert!(!in_place || open_until(&stage).await == end(48));
    let written = settled(&stage, &mut replica).await;
    assert!(!in_place || written == 0, "{written}");
    assert_eq!(open_until(&stage).await, end(48));
    let one = stage.kisi.group_rows(GROUP).await;
    assert_eq!(one.len(), 1, "{one:?}");

    // And the last of them ends it.
    decide(&stage, OTHER, "s1", 3, &[]).await;
    assert_eq!(answer(&stage, OTHER, "s1", 3).await.outcome, "revoked");
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    stage.kisi.assert_nothing_was_refused().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_right_is_open_while_either_gym_wants_it_by_one_key() {
    let (patch, duplicate) = (PatchWindow::Apply, DuplicateAssignment::Conflict);
    a_shared_right_is_open_while_either_gym_wants_it(false, patch, duplicate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_right_is_open_while_either_gym_wants_it_by_two_keys() {
    let (patch, duplicate) = (PatchWindow::Apply, DuplicateAssignment::Conflict);
    a_shared_right_is_open_while_either_gym_wants_it(true, patch, duplicate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_right_that_must_be_replaced_is_replaced_for_both_gyms() {
    let (patch, duplicate) = (PatchWindow::Ignore, DuplicateAssignment::Conflict);
    a_shared_right_is_open_while_either_gym_wants_it(true, patch, duplicate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_right_beside_which_another_may_stand_is_no_loss_to_the_other_gym() {
    let (patch, duplicate) = (PatchWindow::Refuse, DuplicateAssignment::NewRow);
    a_shared_right_is_open_while_either_gym_wants_it(false, patch, duplicate).await;
}

/// Both gyms' owners have a key of their own; the first one's is [`OTHER`]'s.
async fn both_in_sync(stage: &Stage, replica: &mut Running) {
    in_sync(replica, GYM, &stage.kisi.second_key()).await;
    in_sync(replica, OTHER, &stage.kisi.api_key()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_neither_gym_wants_is_taken_though_one_of_them_cannot() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    decide(&stage, GYM, "m1", 1, &[PLAN]).await;
    decide(&stage, OTHER, "s1", 1, &[PLAN]).await;
    both_in_sync(&stage, &mut replica).await;
    stage.kisi.revoke_key().await;
    assert_eq!(sync(&mut replica, OTHER).await.state, "failed");
    decide(&stage, OTHER, "s1", 2, &[]).await;
    stage.consumed().await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    decide(&stage, GYM, "m1", 2, &[]).await;
    assert_eq!(answer(&stage, GYM, "m1", 2).await.outcome, "revoked");
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    replica.stop().await;
}

/// A request that a test holds back is waited for.
const PATIENT: [(&str, &str); 2] = [("kisi-request-timeout", "15s"), ("lease-ttl", "60s")];

/// The same person joins the other gym while the revoke of the one waits for its turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_another_gym_takes_up_while_its_revoke_waits_stays() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&PATIENT).await;
    decide(&stage, GYM, "m1", 1, &[PLAN]).await;
    stage.directory.decide(GYM, "m2", 1, &[PLAN]).await;
    both_in_sync(&stage, &mut replica).await;
    answer(&stage, GYM, "m1", 1).await;
    answer(&stage, GYM, "m2", 1).await;
    let before = stage.kisi.group_rows(GROUP).await;
    stage
        .kisi
        .fail("GET", "/role_assignments", 1, Fault::Wait)
        .await;
    let request = api::SyncMemberRequest {
        gym_id: GYM.to_owned(),
        member_id: "m2".to_owned(),
    };
    replica.client.sync_member(request).await.unwrap();
    stage.kisi.one_is_held_back(0).await;
    decide(&stage, GYM, "m1", 2, &[]).await;
    stage.consumed().await;
    decide(&stage, OTHER, "s1", 1, &[PLAN]).await;
    assert_eq!(answer(&stage, OTHER, "s1", 1).await.grants.len(), 1);
    stage.kisi.clear_faults();
    let told = answer(&stage, GYM, "m1", 2).await;
    assert_eq!((told.outcome.as_str(), told.grants.len()), ("revoked", 0));
    assert_eq!(stage.kisi.group_rows(GROUP).await, before);
    replica.stop().await;
}

/// The same while the revoke is on its way to Kisi: nothing calls it back, and the right is given anew.
async fn a_right_that_another_gym_takes_up_while_it_goes_is_given_anew(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start_with(&PATIENT).await;
    decide(&stage, GYM, "m1", 1, &[PLAN]).await;
    both_in_sync(&stage, &mut replica).await;
    answer(&stage, GYM, "m1", 1).await;
    stage
        .kisi
        .fail("DELETE", "/role_assignments/{id}", 1, Fault::Wait)
        .await;
    decide(&stage, GYM, "m1", 2, &[]).await;
    stage.kisi.one_is_held_back(0).await;
    decide(&stage, OTHER, "s1", 1, &[PLAN]).await;
    let told = answer(&stage, OTHER, "s1", 1).await;
    let shared = told.grants[0].assignment_id;
    stage.kisi.clear_faults();
    assert_eq!(answer(&stage, GYM, "m1", 2).await.outcome, "revoked");
    testkit::eventually("the door is open", SOON, async || {
        let rows = stage.kisi.group_rows(GROUP).await;
        rows.len() == 1 && rows[0]["id"].as_i64() != Some(shared)
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_another_gym_takes_up_while_it_goes_is_given_anew_on_sqlite() {
    a_right_that_another_gym_takes_up_while_it_goes_is_given_anew(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_another_gym_takes_up_while_it_goes_is_given_anew_on_postgres() {
    a_right_that_another_gym_takes_up_while_it_goes_is_given_anew(On::Postgres).await;
}

/// The other gym's member has an e-mail by now that nobody can be found by, and keeps the right of the user
/// that she was.
#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_leaves_the_user_by_whom_the_other_gym_lets_somebody_in() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    decide(&stage, GYM, "m1", 1, &[PLAN]).await;
    decide(&stage, OTHER, "s1", 1, &[PLAN]).await;
    both_in_sync(&stage, &mut replica).await;
    let before = stage.kisi.group_rows(GROUP).await;
    assert_eq!(before.len(), 1);
    let mut person = stage.directory.get(OTHER, "s1");
    person.email = "owner@example.com".to_owned();
    stage.directory.insert(person);
    sync(&mut replica, OTHER).await;
    let request = api::GymRequest {
        gym_id: OTHER.to_owned(),
    };
    let shown = replica.client.get_integration(request).await.unwrap();
    assert_eq!(shown.into_inner().conflicts.len(), 1);
    erase(&stage, GYM, "m1", 2).await;
    assert_eq!(answer(&stage, GYM, "m1", 2).await.outcome, "erased");
    assert_eq!(stage.kisi.group_rows(GROUP).await, before);
    replica.stop().await;
}

/// Taken away to be given with a later end, and given by a later step.
async fn a_shared_right_that_is_given_anew_late_is_of_both_gyms(fault: Fault) {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.moves_no_window();
    let mut replica = stage.start().await;
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let end = |hours| Some(now.checked_add(SignedDuration::from_hours(hours)).unwrap());
    decide_until(&stage, GYM, "m1", 1, &[PLAN], end(5)).await;
    decide_until(&stage, OTHER, "s1", 1, &[PLAN], end(5)).await;
    both_in_sync(&stage, &mut replica).await;
    // The one that is to stand beside the old one is refused, and the one after it fails.
    let route = "/role_assignments";
    stage.kisi.fail_after(1, "POST", route, 1, fault).await;
    decide_until(&stage, GYM, "m1", 2, &[PLAN], end(72)).await;
    testkit::eventually("the end is moved", SOON, async || {
        let rows = stage.kisi.group_rows(GROUP).await;
        let ends = rows.iter().filter_map(|row| row["valid_until"].as_str());
        let ends: Vec<Timestamp> = ends.map(|end| end.parse().unwrap()).collect();
        ends == [end(72).unwrap()]
    })
    .await;
    testkit::eventually("that is told", SOON, async || {
        answer(&stage, GYM, "m1", 2).await.failure.is_none()
    })
    .await;
    decide(&stage, GYM, "m1", 3, &[]).await;
    answer(&stage, GYM, "m1", 3).await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    decide(&stage, OTHER, "s1", 2, &[]).await;
    assert_eq!(answer(&stage, OTHER, "s1", 2).await.outcome, "revoked");
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_right_that_is_given_anew_after_a_429_is_of_both_gyms() {
    a_shared_right_that_is_given_anew_late_is_of_both_gyms(Fault::Status(429)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_right_that_is_given_anew_without_an_answer_is_of_both_gyms() {
    a_shared_right_that_is_given_anew_late_is_of_both_gyms(Fault::ResetAfterApplying).await;
}
