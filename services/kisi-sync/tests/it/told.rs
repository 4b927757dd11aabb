//! The last answer names the rights that stand, whatever brought them about.

use kisi_simulator::settings::{DuplicateAssignment, PatchWindow};

use crate::harness::{GYM, On, Stage};
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

/// Her right is held, and then taken by hand: no request is left to make, and what was told is not so.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_others_took_and_nobody_wants_is_told_of() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [
        ("brake-explained-min", "1"),
        ("brake-explained-hour-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 2).await;
    for (member, outcome) in [("m1", "revoked"), ("m2", "held")] {
        stage.directory.decide(GYM, member, 2, &[]).await;
        let told = stage.answer(member, |answer| answer.version == 2).await;
        assert_eq!(told.outcome, outcome);
    }
    let held = stage.answer("m2", |answer| answer.version == 2).await;
    stage
        .kisi
        .remove_by_hand(held.grants[0].assignment_id)
        .await;
    replica.sync().await;
    let told = stage
        .answer("m2", |answer| answer.applied_seq > held.applied_seq)
        .await;
    assert!(told.grants.is_empty(), "{told:?}");
    replica.stop().await;
}
