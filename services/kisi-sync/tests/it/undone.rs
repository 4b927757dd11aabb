//! What others undo again and again: shown, with what was found and put back. What only looks like that
//! is not.

use contracts::wire;
use jiff::{SignedDuration, Timestamp};
use kisi_simulator::settings::{DuplicateAssignment, PatchWindow};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use testkit::eventually;

use crate::brake::tables;
use crate::harness::{GYM, On, PLAN, Running, SOON, Stage};
use crate::kisi::{Fault, GROUP};
use crate::kisi_events;

const FAR: &str = "2099-01-01T00:00:00Z";

/// What the log says of windows that others changed.
async fn changed_by_others(db: &DatabaseConnection) -> Vec<(String, String)> {
    let sql = "select member_id, entry from audit order by seq";
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let rows = db.query_all_raw(statement).await.unwrap();
    let entries = rows.iter().map(|row| {
        let entry: String = row.try_get("", "entry").unwrap();
        let entry: serde_json::Value = serde_json::from_str(&entry).unwrap();
        let member: Option<String> = row.try_get("", "member_id").unwrap();
        (member.unwrap_or_default(), entry)
    });
    entries
        .filter(|(_, entry)| entry["action"] == "window_changed_by_others")
        .map(|(member, entry)| (member, entry["detail"].as_str().unwrap().to_owned()))
        .collect()
}

async fn is_shown(replica: &mut Running) -> bool {
    let attention = replica.integration().await.attention;
    let mut shown = attention.iter();
    shown.any(|it| it.what == "another_writer" && it.who == "staff")
}

async fn right_of(stage: &Stage, member: &str) -> i64 {
    let told = stage.answer(member, |told| told.grants.len() == 1).await;
    told.grants[0].assignment_id
}

/// Nobody's right has an end.
async fn all_are_open(stage: &Stage) -> bool {
    let rows = stage.kisi.group_rows(GROUP).await;
    rows.len() == 3 && rows.iter().all(|row| row["valid_until"].is_null())
}

async fn another_writer_who_changes_windows_is_shown(
    on: On,
    patch: PatchWindow,
    duplicate: DuplicateAssignment,
) {
    let stage = Stage::set(on).await;
    stage.kisi.set(|settings| {
        settings.patch_window = patch;
        settings.duplicate_assignments = duplicate;
    });
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    let db = tables(&stage).await;
    for round in 1..=2 {
        for member in ["m1", "m2"] {
            // Once each may be a slip of somebody's hand.
            if round == 1 || member == "m1" {
                let right = right_of(&stage, member).await;
                stage.kisi.set_window_by_hand(right, FAR).await;
            }
        }
        let sync = replica.sync().await;
        assert_eq!((sync.state.as_str(), sync.in_sync), ("done", true));
        assert!(all_are_open(&stage).await);
        assert_eq!(is_shown(&mut replica).await, round == 2);
    }
    let put_back = format!("found ../{FAR}, put back ../..");
    let entry = |member: &str| (member.to_owned(), put_back.clone());
    let mut logged = changed_by_others(&db).await;
    logged[..2].sort();
    assert_eq!(logged, ["m1", "m2", "m1"].map(entry));
    // Nothing more is undone, and it stays shown for a day.
    let sync = replica.sync().await;
    assert!(sync.in_sync && is_shown(&mut replica).await);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writer_who_changes_windows_is_shown_where_they_are_moved_in_place_on_sqlite() {
    let (patch, duplicate) = (PatchWindow::Apply, DuplicateAssignment::Conflict);
    another_writer_who_changes_windows_is_shown(On::Sqlite, patch, duplicate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writer_who_changes_windows_is_shown_where_they_are_moved_in_place_on_postgres() {
    let (patch, duplicate) = (PatchWindow::Apply, DuplicateAssignment::Conflict);
    another_writer_who_changes_windows_is_shown(On::Postgres, patch, duplicate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writer_who_changes_windows_is_shown_where_old_goes_before_new() {
    let (patch, duplicate) = (PatchWindow::Ignore, DuplicateAssignment::Conflict);
    another_writer_who_changes_windows_is_shown(On::Sqlite, patch, duplicate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writer_who_changes_windows_is_shown_where_new_comes_before_old() {
    let (patch, duplicate) = (PatchWindow::Refuse, DuplicateAssignment::NewRow);
    another_writer_who_changes_windows_is_shown(On::Sqlite, patch, duplicate).await;
}

/// Seen by Kisi's event first, and then by a pass, each for what it found.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_an_event_tells_of_counts_as_one_that_a_pass_finds() {
    let stage = Stage::set(On::Sqlite).await;
    let (mut replica, _inlet) = kisi_events::listening(&stage, 3).await;
    let db = tables(&stage).await;
    let right = right_of(&stage, "m1").await;
    stage.kisi.set_window_by_hand(right, FAR).await;
    eventually("it is put back", SOON, async || {
        all_are_open(&stage).await && changed_by_others(&db).await.len() == 1
    })
    .await;
    assert!(replica.sync().await.in_sync && !is_shown(&mut replica).await);
    // So soon after our own change its event is taken for ours.
    stage.kisi.set_window_by_hand(right, FAR).await;
    assert!(replica.sync().await.in_sync);
    assert!(is_shown(&mut replica).await);
    assert_eq!(changed_by_others(&db).await.len(), 2);
    replica.stop().await;
}

/// What is decided, what Kisi rounds, and what we did ourselves and heard no answer of, is nobody else's
/// doing.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_did_not_change_is_not_told_of_them() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    let db = tables(&stage).await;
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let hours = |hours| now.checked_add(SignedDuration::from_hours(hours)).unwrap();
    let until = async |version: i64, until: Option<Timestamp>| {
        let person = stage.directory.put(GYM, "m1", version, &[PLAN]);
        let mut state = person.state.unwrap();
        state.plans[0].valid_until = until.map(wire::timestamp);
        stage.directory.publish(&state).await;
    };
    for version in 2..=4 {
        until(version, Some(hours(version))).await;
        stage.answer("m1", |told| told.version == version).await;
        // As Kisi would have it that keeps whole minutes.
        let rounded = hours(version).checked_add(SignedDuration::from_secs(40));
        let right = right_of(&stage, "m1").await;
        let rounded = rounded.unwrap().to_string();
        stage.kisi.set_window_by_hand(right, &rounded).await;
        replica.sync().await;
    }
    // Kisi changes it and does not say so, and it is wanted as it was before.
    let route = "/role_assignments/{id}";
    for version in [6, 8] {
        let lost = Fault::ResetAfterApplying;
        stage.kisi.fail("PATCH", route, 1, lost).await;
        until(version - 1, Some(hours(30))).await;
        stage.answer("m1", |told| told.version == version - 1).await;
        until(version, Some(hours(4))).await;
        stage.answer("m1", |told| told.version == version).await;
        let rows = stage.kisi.group_rows(GROUP).await;
        let right = right_of(&stage, "m1").await;
        let row = rows.iter().find(|row| row["id"] == right).unwrap();
        assert_eq!(row["valid_until"], hours(4).to_string());
        replica.sync().await;
    }
    // Kisi has what is wanted, and the tables are of before that.
    let execute = async |sql: &str| db.execute_unprepared(sql).await.unwrap();
    for _ in 0..2 {
        execute("update applied_grants set valid_until = valid_until + 9000000000").await;
        assert!(replica.sync().await.in_sync);
    }
    // A look finds what Kisi has rounded when another end is decided.
    for version in 9..=10 {
        let right = right_of(&stage, "m1").await;
        let rounded = hours(if version == 9 { 4 } else { 9 });
        let rounded = rounded.checked_add(SignedDuration::from_secs(40));
        let rounded = rounded.unwrap().to_string();
        stage.kisi.set_window_by_hand(right, &rounded).await;
        execute("update members set looked = false where member_id = 'm1'").await;
        until(version, Some(hours(version))).await;
        stage.answer("m1", |told| told.version == version).await;
    }
    assert_eq!(changed_by_others(&db).await, []);
    assert!(!is_shown(&mut replica).await);
    replica.stop().await;
}
