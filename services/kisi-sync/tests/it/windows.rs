//! A right with a true end carries it, and follows it when it moves, whatever Kisi does with a
//! changed window.

use contracts::wire;
use jiff::{SignedDuration, Timestamp};
use kisi_simulator::settings::{DuplicateAssignment, PatchWindow};
use sea_orm::ConnectionTrait;

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
    let hours = |hours| {
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
        Some(now.checked_add(SignedDuration::from_hours(hours)).unwrap())
    };
    // New before old, and where that cannot be, old and at once new.
    let replaced = match (patch, duplicate) {
        (PatchWindow::Apply, _) => &["PATCH"][..],
        (_, DuplicateAssignment::NewRow | DuplicateAssignment::NewRowIfWindowDiffers) => {
            &["PATCH", "POST", "DELETE"]
        }
        _ => &["PATCH", "POST", "DELETE", "POST"],
    };
    // What Kisi was seen not to do is not asked of it each time.
    let later = match patch {
        PatchWindow::Apply => replaced,
        _ => &replaced[1..],
    };
    for (version, from, until) in [
        (2, None, hours(5)),
        (3, None, hours(48)),
        (4, hours(2), hours(48)),
        (5, hours(2), None),
        (6, None, None),
    ] {
        stage.kisi.forget_requests().await;
        let mut state = stage
            .directory
            .put(GYM, "m1", version, &[PLAN])
            .state
            .unwrap();
        state.plans[0].valid_from = from.map(wire::timestamp);
        state.plans[0].valid_until = until.map(wire::timestamp);
        stage.directory.publish(&state).await;
        let answer = stage.answer("m1", |answer| answer.version == version).await;
        assert_eq!(answer.grants.len(), 1, "{answer:?}");
        assert_eq!(answer.grants[0].valid_from, from.map(wire::timestamp));
        assert_eq!(answer.grants[0].valid_until, until.map(wire::timestamp));
        let rows = stage.kisi.group_rows(GROUP).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        let held = |end: &str| rows[0][end].as_str().map(|at| at.parse().unwrap());
        let held: [Option<Timestamp>; 2] = [held("valid_from"), held("valid_until")];
        assert_eq!(held, [from, until]);
        let writes = stage.kisi.writes().await;
        let methods = writes.iter().map(|write| write.split(' ').next().unwrap());
        let wanted = if version == 2 { replaced } else { later };
        assert_eq!(methods.collect::<Vec<_>>(), wanted, "{writes:?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_moved_by_old_and_at_once_new_where_kisi_refuses_it_and_a_second_row() {
    let (refuse, unprocessable) = (PatchWindow::Refuse, DuplicateAssignment::Unprocessable);
    an_end_is_set_moved_and_taken_away(refuse, unprocessable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_moved_by_new_before_old_where_kisi_ignores_it_and_takes_another_window() {
    let (ignore, differs) = (
        PatchWindow::Ignore,
        DuplicateAssignment::NewRowIfWindowDiffers,
    );
    an_end_is_set_moved_and_taken_away(ignore, differs).await;
}

/// Where Kisi takes a second row, two of ours may stand after a kill between new and old.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_rights_of_ours_for_the_same_the_pass_removes_one() {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.set(|settings| {
        settings.duplicate_assignments = DuplicateAssignment::NewRow;
    });
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let second = stage.kisi.add_by_hand("m1@example.com", GROUP).await;
    let url = secrecy::SecretString::from(stage.database_url());
    let db = kisi_sync::store::connect(&url).await.unwrap();
    let columns = "organization_id, gym_id, member_id, group_id, kisi_user_id, state, epoch,
        valid_from, valid_until, intended_at, updated_at";
    db.execute_unprepared(&format!(
        "insert into applied_grants ({columns}, assignment_id)
        select {columns}, {second} from applied_grants where member_id = 'm1'"
    ))
    .await
    .unwrap();
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 3);
    let sync = replica.sync().await;
    let report = sync.report.unwrap();
    assert_eq!(
        (sync.state.as_str(), report.duplicates_removed),
        ("done", 1)
    );
    assert_eq!((report.granted, report.revoked), (0, 0));
    let rows = stage.kisi.group_rows(GROUP).await;
    let left: Vec<i64> = rows.iter().map(|row| row["id"].as_i64().unwrap()).collect();
    assert_eq!(left.len(), 2, "{rows:?}");
    // What is told of is what stands.
    stage
        .answer("m1", |answer| {
            answer.grants.len() == 1 && left.contains(&answer.grants[0].assignment_id)
        })
        .await;
    let again = replica.sync().await.report.unwrap();
    assert_eq!(again.duplicates_removed, 0);
    replica.stop().await;
}
