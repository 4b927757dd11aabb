//! A first sync at Kisi's own pace, under each way of counting: never a 429, never an e-mail.

use kisi_simulator::settings::{LimiterModel, Settings};

use sea_orm::ConnectionTrait;

use crate::harness::{GYM, On, PLAN, SOON, Stage};
use crate::kisi::{GROUP, OTHER_GROUP};

/// The margin between what Kisi allows and what we send is five percent of its second, or of one
/// distance for a bucket of one. Here it also has to hold what a busy machine adds to the way; how
/// much of it the network alone may take is shown in kisi-client, in virtual time.
async fn a_whole_set_up_is_never_answered_429(limiter: LimiterModel, rate: u32, jitter_ms: u64) {
    let stage = Stage::set_with(
        On::Sqlite,
        Settings {
            limiter,
            rate,
            jitter_ms,
            ..Settings::default()
        },
    )
    .await;
    let mut replica = stage
        .start_with(&[
            ("kisi-requests-per-second", &rate.to_string()),
            ("kisi-request-timeout", "5s"),
        ])
        .await;
    for member in ["m1", "m2", "m3"] {
        stage.directory.decide(GYM, member, 1, &[PLAN]).await;
    }
    stage.set_up(&mut replica).await;
    let sync = replica.sync().await;
    assert!(sync.in_sync, "{sync:?}");
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |answer| answer.version == 2).await;
    stage.directory.decide(GYM, "m1", 3, &[PLAN]).await;
    stage.answer("m1", |answer| answer.version == 3).await;
    stage.kisi.assert_nothing_was_refused().await;
    assert_eq!(stage.kisi.emails().await, 0);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 3);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_set_up_is_never_answered_429_under_a_fixed_window() {
    a_whole_set_up_is_never_answered_429(LimiterModel::FixedWindow, 5, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_set_up_is_never_answered_429_under_a_sliding_window() {
    a_whole_set_up_is_never_answered_429(LimiterModel::SlidingWindowCountingRefused, 5, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_set_up_is_never_answered_429_under_a_bucket_of_one() {
    a_whole_set_up_is_never_answered_429(LimiterModel::TokenBucket1, 1, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_goes_out_before_the_grants_of_a_running_sync() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage
        .start_with(&[("kisi-requests-per-second", "20")])
        .await;
    for i in 1..=60 {
        stage
            .directory
            .decide(GYM, &format!("m{i}"), 1, &[PLAN])
            .await;
    }
    stage.set_up(&mut replica).await;
    let request = contracts::integration::v1::StartSyncRequest {
        gym_id: GYM.to_owned(),
        digest: None,
    };
    let sync = replica
        .client
        .start_sync(request)
        .await
        .unwrap()
        .into_inner();
    stage
        .answer("m1", |answer| answer.outcome == "granted")
        .await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let revoked = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(revoked.outcome, "revoked");
    let timings = revoked.timings.unwrap();
    let at = |t: Option<pbjson_types::Timestamp>| contracts::wire::instant(&t.unwrap()).unwrap();
    let waited = at(timings.sent_at).duration_since(at(timings.received_at));
    assert!(
        waited < jiff::SignedDuration::from_secs(2),
        "the next turn is 55 ms away, and the sync's last one more than six seconds: {waited}"
    );
    assert!(
        stage.kisi.group_rows(GROUP).await.len() < 55,
        "the sync was still running"
    );
    assert!(replica.ended(&sync.sync_id).await.in_sync);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 59);
    replica.stop().await;
}

/// What waits for its turn goes by the mapping of the moment in which it leaves.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_waits_goes_by_the_newest_mapping() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 5).await;
    let members = ["m1", "m2", "m3", "m4", "m5"];
    for member in members {
        stage.directory.decide(GYM, member, 2, &[]).await;
        stage.answer(member, |told| told.version == 2).await;
    }
    replica.stop().await;

    let replica = stage.start_with(&[("kisi-requests-per-second", "2")]).await;
    for member in members {
        stage.directory.decide(GYM, member, 3, &[PLAN]).await;
    }
    testkit::eventually("the first is let in", SOON, async || {
        !stage.kisi.group_rows(GROUP).await.is_empty()
    })
    .await;
    let url = stage.database_url().into();
    let db = kisi_sync::store::connect(&url).await.unwrap();
    let sql = format!(r#"update integrations set associations = '{{"{PLAN}":{OTHER_GROUP}}}'"#);
    db.execute_unprepared(&sql).await.unwrap();
    for member in members {
        stage.answer(member, |told| told.version == 3).await;
    }
    // One may have been on its way.
    let former = stage.kisi.group_rows(GROUP).await.len();
    assert!(former <= 2, "{former} of five by the former mapping");
    replica.stop().await;
}
