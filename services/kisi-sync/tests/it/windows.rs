//! A right with a true end carries it, and follows it when it moves, whatever Kisi does with a
//! changed window.

use contracts::wire;
use jiff::{SignedDuration, Timestamp};
use kisi_simulator::settings::{DuplicateAssignment, PatchWindow};

use crate::harness::{GYM, On, PLAN, Stage};
use crate::kisi::GROUP;

async fn an_end_is_set_moved_and_taken_away(patch: PatchWindow, duplicate: DuplicateAssignment) {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.set(|settings| {
        settings.patch_window = patch;
        settings.duplicate_assignments = duplicate;
    });
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let end = |hours| {
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
        now.checked_add(SignedDuration::from_hours(hours)).unwrap()
    };
    for (version, until) in [(2, Some(end(5))), (3, Some(end(48))), (4, None)] {
        let mut state = stage
            .directory
            .put(GYM, "m1", version, &[PLAN])
            .state
            .unwrap();
        state.plans[0].valid_until = until.map(wire::timestamp);
        stage.directory.publish(&state).await;
        let answer = stage.answer("m1", |answer| answer.version == version).await;
        assert_eq!(answer.grants.len(), 1, "{answer:?}");
        assert_eq!(answer.grants[0].valid_until, until.map(wire::timestamp));
        let rows = stage.kisi.group_rows(GROUP).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        let held = rows[0]["valid_until"]
            .as_str()
            .map(|at| at.parse::<Timestamp>().unwrap());
        assert_eq!(held, until);
    }
    // And a sync finds nothing to do.
    assert!(replica.sync().await.in_sync);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_moved_in_place_where_kisi_does_that() {
    an_end_is_set_moved_and_taken_away(PatchWindow::Apply, DuplicateAssignment::Conflict).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_moved_by_old_and_at_once_new_where_kisi_ignores_it_and_takes_no_second_row() {
    an_end_is_set_moved_and_taken_away(PatchWindow::Ignore, DuplicateAssignment::Conflict).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_moved_by_new_before_old_where_kisi_refuses_it_and_takes_a_second_row() {
    an_end_is_set_moved_and_taken_away(PatchWindow::Refuse, DuplicateAssignment::NewRow).await;
}
