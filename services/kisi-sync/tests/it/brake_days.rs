//! The brake over hours and days: a billing morning passes, a steady leak does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use contracts::integration::v1 as api;
use jiff::{SignedDuration, Timestamp};
use service_runtime::clock::Clock;

use crate::harness::{GYM, On, Running, SOON, Stage};
use crate::kisi::GROUP;

/// The machine's clock, and some hours on top.
#[derive(Debug, Clone, Default)]
pub struct Later(Arc<AtomicI64>);

impl Later {
    pub fn by_an_hour(&self) {
        self.0.fetch_add(3_601, Ordering::SeqCst);
    }
}

impl Clock for Later {
    fn now(&self) -> Timestamp {
        let by = SignedDuration::from_secs(self.0.load(Ordering::SeqCst));
        Timestamp::now().checked_add(by).unwrap()
    }
}

/// No minimum hides the shares: 5 % in an hour and 15 % in a day without a reason, 30 % in an hour with.
const FLAGS: [(&str, &str); 4] = [
    ("brake-explained-min", "1"),
    ("brake-unexplained-min", "1"),
    ("kisi-requests-per-second", "2000"),
    ("reconcile-every", "96h"),
];

/// Plans `p1` to `p25` of four members each: what is no more in the mapping opens nothing.
async fn map(replica: &mut Running, from: usize) {
    let names: Vec<String> = (from..=25).map(|i| format!("p{i}")).collect();
    let mapping: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), GROUP)).collect();
    replica.associate(&mapping).await.unwrap();
}

async fn there_are(stage: &Stage, rights: usize) {
    testkit::eventually("as many rights stand", SOON, async || {
        stage.kisi.group_rows(GROUP).await.len() == rights
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_billing_morning_passes_untouched_and_a_leak_of_4_9_percent_an_hour_is_stopped() {
    let stage = Stage::set(On::Sqlite).await;
    let clock = Later::default();
    let mut replica = stage.start_at(Arc::new(clock.clone()), &FLAGS).await;
    for i in 0..100 {
        let plan = format!("p{}", i / 4 + 1);
        let member = format!("m{i}");
        stage.directory.decide(GYM, &member, 1, &[&plan]).await;
    }
    stage.consumed().await;
    stage.set_up(&mut replica).await;
    map(&mut replica, 1).await;
    assert_eq!(replica.sync().await.state, "done");
    there_are(&stage, 100).await;

    // Six of a hundred charges fail within the hour, each for a reason of its own.
    for i in 94..100 {
        stage.directory.decide(GYM, &format!("m{i}"), 2, &[]).await;
    }
    for i in 94..100 {
        let member = format!("m{i}");
        let told = stage.answer(&member, |answer| answer.version == 2).await;
        assert_eq!(told.outcome, "revoked", "{told:?}");
    }
    there_are(&stage, 94).await;
    assert!(replica.held_plans().await.is_empty());

    // Each hour four go for no reason of their own: less than the hour allows, and too many for a day.
    // The counts are the tables'.
    for hour in 1..=3 {
        clock.by_an_hour();
        if hour == 3 {
            replica.stop().await;
            replica = stage.start_at(Arc::new(clock.clone()), &FLAGS).await;
        }
        map(&mut replica, hour + 1).await;
        there_are(&stage, 94 - 4 * hour).await;
        assert!(replica.held_plans().await.is_empty());
    }
    clock.by_an_hour();
    map(&mut replica, 5).await;
    let plan = replica.plan_held().await;
    assert_eq!((plan.class.as_str(), plan.revokes), ("unexplained", 4));
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 82);

    // Failed charges close their doors all the same.
    stage.directory.decide(GYM, "m90", 2, &[]).await;
    let told = stage.answer("m90", |answer| answer.version == 2).await;
    assert_eq!(told.outcome, "revoked");
    there_are(&stage, 81).await;
    let gym = api::GymRequest {
        gym_id: GYM.to_owned(),
    };
    let plans = replica.client.list_held_plans(gym).await.unwrap();
    assert_eq!(plans.into_inner().held_plans, [plan]);
    replica.stop().await;
}
