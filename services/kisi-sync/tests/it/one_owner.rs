//! Two keys of one Kisi user have one budget: together they ask no more than Kisi allows that user.

use std::collections::BTreeSet;

use contracts::integration::v1 as api;
use kisi_simulator::rows::{Login, LoginKind};
use kisi_simulator::settings::LimiterModel;

use crate::harness::{GYM, On, PLAN, Running, Stage, set};
use crate::kisi::{GROUP, PLACE};

const OTHER: &str = "steel";
const OTHER_KEY: &str = "owner-key-00000000000000000000000002";
const RATE: u32 = 10;
const MEMBERS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn two_keys_of_one_owner_share_one_pacer() {
    let stage = Stage::set(On::Sqlite).await;
    another_key_of_the_owner(&stage);
    let rate = RATE.to_string();
    let mut replica = stage
        .start_with(&[("kisi-requests-per-second", &rate)])
        .await;
    for gym in [GYM, OTHER] {
        for number in 1..=MEMBERS {
            let member = format!("{gym}-{number}");
            stage.directory.decide(gym, &member, 1, &[PLAN]).await;
        }
    }
    set_up(&mut replica, GYM, &stage.kisi.api_key()).await;
    set_up(&mut replica, OTHER, OTHER_KEY).await;
    // Whose a key is, is known only once Kisi was asked with it; from here on both owners are known.
    stage.kisi.forget_requests().await;
    stage.kisi.set(|settings| {
        // Every request too early is refused, and so is whatever comes after it.
        settings.limiter = LimiterModel::SlidingWindowCountingRefused;
        settings.rate = RATE;
    });
    let mut other = replica.client.clone();
    let mut first = replica.client.clone();
    let (ours, theirs) = tokio::join!(sync(&mut first, GYM), sync(&mut other, OTHER));
    assert_eq!((ours.in_sync, theirs.in_sync), (true, true));
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2 * MEMBERS);
    // Both keys were used, side by side, and no request came too early.
    stage.kisi.assert_nothing_was_refused().await;
    let (owners, times): (BTreeSet<i64>, Vec<jiff::Timestamp>) = {
        let state = stage.kisi.shared().lock();
        let owners = state.log.since(0).filter_map(|entry| entry.user_id);
        let times = state.log.since(0).map(|entry| entry.time);
        (owners.collect(), times.collect())
    };
    assert_eq!(owners.len(), 1, "one budget: {owners:?}");
    for window in times.windows(RATE as usize + 1) {
        let took = window[RATE as usize].duration_since(window[0]);
        assert!(took.as_millis() >= 1_000, "{} in {took:#}", window.len());
    }
    replica.stop().await;
}

type Client = contracts::kisi::v1::kisi_sync_service_client::KisiSyncServiceClient<
    service_runtime::grpc::ServiceChannel,
>;

/// A key that the same person made for the second gym.
fn another_key_of_the_owner(stage: &Stage) {
    let owner = stage.kisi.user_of("owner@example.com");
    let mut state = stage.kisi.shared().lock();
    let mut logins = state.world.logins.values();
    let first = logins.find(|login| login.user_id == owner && login.kind == LoginKind::Api);
    let first = first.unwrap().clone();
    let id = state.world.next_id();
    state.world.insert_login(Login {
        id,
        secret: OTHER_KEY.to_owned(),
        ..first
    });
}

async fn set_up(replica: &mut Running, gym: &str, key: &str) {
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
}

async fn sync(client: &mut Client, gym: &str) -> api::Sync {
    let start = api::StartSyncRequest {
        gym_id: gym.to_owned(),
        digest: None,
    };
    let sync = client.start_sync(start).await.unwrap().into_inner();
    let watch = api::GetSyncRequest {
        gym_id: gym.to_owned(),
        sync_id: sync.sync_id,
    };
    let mut states = client.watch_sync(watch).await.unwrap().into_inner();
    let mut last = None;
    while let Some(state) = states.message().await.unwrap() {
        last = Some(state);
    }
    last.unwrap()
}
