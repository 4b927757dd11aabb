//! What keeps failing keeps nobody else waiting.

use crate::harness::{GYM, On, PLAN, Stage};
use crate::kisi::{Fault, GROUP};

/// For as long as the test lasts.
const ALWAYS: u64 = 1_000_000;

/// Kisi answers everything but one DELETE.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_that_kisi_always_fails_keeps_nobody_at_a_door_waiting() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let (route, fault) = ("/role_assignments/{id}", Fault::Status(500));
    stage.kisi.fail("DELETE", route, ALWAYS, fault).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let told = stage.answer("m1", |told| told.version == 2).await;
    assert_eq!(told.failure.as_deref(), Some("kisi_unreachable"));
    stage.directory.decide(GYM, "m3", 1, &[PLAN]).await;
    let told = stage.answer("m3", |told| told.version == 1).await;
    assert_eq!(told.outcome, "granted");
    // It is tried again with each pass.
    stage.kisi.clear_faults();
    assert!(replica.sync().await.in_sync);
    stage.answer("m1", |told| told.outcome == "revoked").await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    replica.stop().await;
}
