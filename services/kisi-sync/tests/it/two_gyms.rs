//! Two gyms in one Kisi organization, by one key or by two: nothing is removed while the other gym
//! wants it.

use contracts::access::v1::AccessApplied;
use contracts::integration::v1 as api;

use crate::harness::{GYM, On, PLAN, Running, SOON, Stage, set};
use crate::kisi::{GROUP, PLACE};

const OTHER: &str = "steel";

async fn in_sync(replica: &mut Running, gym: &str, key: &str) {
    let gym_id = || gym.to_owned();
    let client = &mut replica.client;
    let enable = api::EnableIntegrationRequest {
        gym_id: gym_id(),
        api_key: key.to_owned(),
    };
    client.enable_integration(enable).await.unwrap();
    let place = api::SelectPlaceRequest {
        gym_id: gym_id(),
        place_id: PLACE,
    };
    client.select_place(place).await.unwrap();
    let associations = api::SetAssociationsRequest {
        gym_id: gym_id(),
        associations: set(&[(PLAN, GROUP)]),
        digest: None,
    };
    client.set_associations(associations).await.unwrap();
    assert_eq!(sync(replica, gym).await.state, "done");
}

async fn sync(replica: &mut Running, gym: &str) -> api::Sync {
    let start = api::StartSyncRequest {
        gym_id: gym.to_owned(),
        digest: None,
    };
    let sync = replica.client.start_sync(start).await.unwrap().into_inner();
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

async fn answer(stage: &Stage, gym: &str, member: &str, version: i64) -> AccessApplied {
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
    let mut person = stage.directory.put(gym, member, version, plans);
    person.email = "ada@example.com".to_owned();
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
