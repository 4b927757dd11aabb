//! One thing that Kisi forbids while the key works: it is shown, not asked again and again, and
//! everything else goes on.

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, Running, Stage};
use crate::kisi::{Fault, GROUP, OTHER_GROUP};

const FORBIDDEN: Fault = Fault::Status(403);

async fn is_active(replica: &mut Running) {
    let shown = replica.integration().await;
    assert_eq!(shown.state, "active", "{:?}", shown.attention);
    assert_eq!(shown.key.unwrap().status, "ok");
}

/// Looking for everybody at once only saves searches.
#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_looked_for_all_at_once_is_looked_for_one_by_one() {
    for fault in [Fault::Status(500), FORBIDDEN] {
        let stage = Stage::set(On::Sqlite).await;
        let mut replica = stage.start().await;
        for i in 1..=5 {
            let member = format!("m{i}");
            stage.directory.decide(GYM, &member, 1, &[PLAN]).await;
        }
        stage.set_up(&mut replica).await;
        // As often as a read is repeated; what is forbidden is asked once.
        let times = match fault {
            Fault::Status(403) => 1,
            _ => 3,
        };
        stage.kisi.fail("GET", "/users", times, fault).await;
        let sync = replica.sync().await;
        assert_eq!(
            (sync.state.as_str(), sync.in_sync),
            ("done_with_failures", true),
            "{sync:?}"
        );
        let failures = sync.report.unwrap().failures;
        let steps: Vec<&str> = failures.iter().map(|one| one.step.as_str()).collect();
        assert_eq!(steps, ["users"]);
        assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 5);
        is_active(&mut replica).await;
        replica.stop().await;
    }
}

/// Who loses a right does not wait until those are found who get one.
#[tokio::test(flavor = "multi_thread")]
async fn who_only_loses_does_not_wait_for_who_is_looked_for() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    replica.associate(&[(PLAN, GROUP)]).await.unwrap();
    assert!(replica.sync().await.in_sync);
    for i in 1..=3 {
        let member = format!("c{i}");
        stage.directory.decide(GYM, &member, 1, &[OTHER_PLAN]).await;
        let told = stage.answer(&member, |told| told.version == 1).await;
        assert_eq!(told.failure.as_deref(), Some("no_association"));
    }
    stage
        .kisi
        .fail("GET", "/users", u64::MAX, Fault::Hang)
        .await;
    let other = [(OTHER_PLAN, OTHER_GROUP)];
    replica.associate(&other).await.unwrap();
    stage
        .answer_within(std::time::Duration::from_secs(60), "m1", |told| {
            told.outcome == "revoked"
        })
        .await;
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    replica.stop().await;
}
