//! The last answer names the rights that stand, whatever brought them about.

use kisi_simulator::settings::{DuplicateAssignment, PatchWindow};

use crate::harness::{On, Stage};
use crate::kisi::GROUP;

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_a_pass_puts_in_the_place_of_another_is_told() {
    let stage = Stage::set(On::Sqlite).await;
    // An end that was moved is put right by another right.
    stage.kisi.set(|settings| {
        settings.patch_window = PatchWindow::Ignore;
        settings.duplicate_assignments = DuplicateAssignment::NewRow;
    });
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let first = stage.answer("m1", |answer| answer.version == 1).await;
    let assignment = first.grants[0].assignment_id;
    let until = "2999-01-01T00:00:00Z";
    stage.kisi.set_window_by_hand(assignment, until).await;
    assert!(replica.sync().await.in_sync);
    let rows = stage.kisi.group_rows(GROUP).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_ne!(rows[0]["id"].as_i64(), Some(assignment));
    let told = stage
        .answer("m1", |answer| answer.grants[0].assignment_id != assignment)
        .await;
    assert_eq!(rows[0]["id"].as_i64(), Some(told.grants[0].assignment_id));
    replica.stop().await;
}
