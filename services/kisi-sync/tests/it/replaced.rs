//! A right that Kisi gives another window only by taking it away first is old and at once new: one at a
//! time, within the brake's line, and counted where the new one does not come.

use contracts::wire;
use jiff::{SignedDuration, Timestamp};
use pbjson_types::Timestamp as Instant;
use sea_orm::ConnectionTrait;
use testkit::eventually;

use crate::brake::tables;
use crate::counted::{counted, is_in};
use crate::harness::{GYM, On, PLAN, SOON, Stage};
use crate::kisi::{Fault, GROUP};

const ROUTE: &str = "/role_assignments";

/// How many may lose access in an hour.
fn line(most: &'static str) -> [(&'static str, &'static str); 2] {
    [
        ("brake-explained-min", most),
        ("brake-explained-hour-percent", "0"),
    ]
}

fn seconds_from_now(seconds: i64) -> Instant {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let then = now.checked_add(SignedDuration::from_secs(seconds));
    wire::timestamp(then.unwrap())
}

fn in_five_hours() -> Instant {
    seconds_from_now(5 * 3_600)
}

/// The member's plan ends then, by this version.
async fn ends(stage: &Stage, member: &str, version: i64, until: Instant) {
    let mut decided = stage.directory.put(GYM, member, version, &[PLAN]);
    let state = decided.state.as_mut().unwrap();
    state.plans[0].valid_until = Some(until);
    stage.directory.publish(state).await;
}

/// Kisi moves no window and takes no second row, and refuses the new one when the old one is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_was_to_be_replaced_and_is_not_given_anew_counts() {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.moves_no_window();
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 4).await;
    let db = tables(&stage).await;
    let until = in_five_hours();
    for (member, refused) in [("m1", false), ("m2", true)] {
        if refused {
            let refusal = Fault::Status(403);
            stage.kisi.fail_after(1, "POST", ROUTE, 1, refusal).await;
        }
        ends(&stage, member, 2, until).await;
        let told = stage.answer(member, |told| told.version == 2).await;
        assert_eq!(told.grants.is_empty(), refused, "{told:?}");
    }
    assert_eq!(counted(&db).await, ["m2 explained"]);
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

/// The same Kisi. Past the line nobody's right is put to that, and the end moves when there is room again:
/// a pass has a line of its own.
#[tokio::test(flavor = "multi_thread")]
async fn past_the_line_no_right_is_taken_away_to_be_given_anew() {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.moves_no_window();
    let mut replica = stage.start_with(&line("2")).await;
    stage.in_sync(&mut replica, 6).await;
    let db = tables(&stage).await;
    let until = in_five_hours();
    for (member, is_lost) in [("m1", true), ("m2", true), ("m3", false), ("m4", false)] {
        let refusal = Fault::Status(403);
        stage.kisi.fail_after(1, "POST", ROUTE, 1, refusal).await;
        stage.kisi.forget_requests().await;
        ends(&stage, member, 2, until).await;
        let told = stage.answer(member, |told| told.version == 2).await;
        assert_eq!(told.failure.as_deref(), Some("kisi_refused"), "{told:?}");
        assert_eq!(told.grants.is_empty(), is_lost, "{told:?}");
        let writes = stage.kisi.writes().await;
        let is_taken = writes.iter().any(|write| write.starts_with("DELETE"));
        assert_eq!(is_taken, is_lost, "{writes:?}");
        stage.kisi.clear_faults();
    }
    assert_eq!(counted(&db).await, ["m1 explained", "m2 explained"]);
    assert_eq!(replica.sync().await.state, "done");
    let rows = stage.kisi.group_rows(GROUP).await;
    let moved = rows.iter().filter_map(|row| row["valid_until"].as_str());
    let until = wire::instant(&until);
    let moved = moved.filter(|end| end.parse().ok() == until).count();
    assert_eq!((rows.len(), moved), (6, 4), "{rows:?}");
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

/// Of the same Kisi, and without any room: whoever is extended keeps the end that she has. Her door shuts then
/// by itself, and opens again at once and not with the next pass.
#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_an_end_that_was_moved_is_let_in_anew_when_it_comes() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&line("0")).await;
    stage.in_sync(&mut replica, 4).await;
    let ends_at = async |version, end| {
        ends(&stage, "m1", version, end).await;
        stage.answer("m1", |told| told.version == version).await
    };
    let (soon, later) = (seconds_from_now(8), in_five_hours());
    let told = ends_at(2, soon).await;
    assert_eq!(told.grants[0].valid_until, Some(soon), "{told:?}");
    stage.kisi.moves_no_window();
    let told = ends_at(3, later).await;
    assert_eq!(told.failure.as_deref(), Some("kisi_refused"), "{told:?}");
    assert_eq!(told.grants[0].valid_until, Some(soon));
    let told = stage.answer("m1", |told| told.failure.is_none()).await;
    assert_eq!(told.grants[0].valid_until, Some(later), "{told:?}");
    assert!(is_in(&stage, stage.kisi.user_of("m1@example.com")).await);
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

/// Kisi says of each new right that there is one already, whether there is or not: what became of the old
/// one is only known after some looks, and until then its member is on the way out.
#[tokio::test(flavor = "multi_thread")]
async fn whose_new_right_is_doubtful_takes_room_from_the_next() {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.moves_no_window();
    let mut replica = stage.start_with(&line("2")).await;
    stage.in_sync(&mut replica, 8).await;
    let db = tables(&stage).await;
    let conflict = Fault::Status(409);
    stage.kisi.fail("POST", ROUTE, u64::MAX, conflict).await;
    let members = ["m1", "m2", "m3", "m4", "m5", "m6"];
    let until = in_five_hours();
    for member in members {
        ends(&stage, member, 2, until).await;
    }
    for member in members {
        stage.answer(member, |told| told.version == 2).await;
    }
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 6);
    assert_eq!(counted(&db).await.len(), 2);
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

/// The same for a DELETE whose answer is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_was_to_be_replaced_counts_where_its_delete_is_not_answered() {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.moves_no_window();
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 4).await;
    let db = tables(&stage).await;
    let lost = Fault::ResetAfterApplying;
    let one = "/role_assignments/{id}";
    stage.kisi.fail("DELETE", one, 1, lost).await;
    // She is not looked for while Kisi says nothing.
    stage.kisi.fail("GET", ROUTE, u64::MAX, Fault::Hang).await;
    ends(&stage, "m1", 2, in_five_hours()).await;
    eventually("it counts", SOON, async || {
        counted(&db).await == ["m1 explained"]
    })
    .await;
    stage.kisi.clear_faults();
    let told = stage
        .answer("m1", |told| told.version == 2 && told.failure.is_none())
        .await;
    assert!(told.grants[0].valid_until.is_some(), "{told:?}");
    replica.stop().await;
}

/// Kisi gives none of them anew, and no line is needed to see that.
#[tokio::test(flavor = "multi_thread")]
async fn after_three_refusals_in_a_row_no_right_is_taken_away_to_be_given_anew() {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.moves_no_window();
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 8).await;
    for (number, left) in [(1, 7), (2, 6), (3, 5), (4, 5), (5, 5)] {
        let refusal = Fault::Status(403);
        stage.kisi.fail_after(1, "POST", ROUTE, 1, refusal).await;
        let member = format!("m{number}");
        ends(&stage, &member, 2, in_five_hours()).await;
        let told = stage.answer(&member, |told| told.version == 2).await;
        assert_eq!(told.failure.as_deref(), Some("kisi_refused"), "{told:?}");
        assert_eq!(stage.kisi.group_rows(GROUP).await.len(), left);
        stage.kisi.clear_faults();
    }
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

/// What is to come in its place cannot be written down when the old one is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_was_to_be_replaced_counts_where_the_attempt_breaks_off() {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.moves_no_window();
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 4).await;
    let db = tables(&stage).await;
    let broken = "create trigger broken before insert on applied_grants
        when not exists (select 1 from applied_grants where member_id = new.member_id)
        begin select raise(abort, 'broken'); end";
    db.execute_unprepared(broken).await.unwrap();
    ends(&stage, "m1", 2, in_five_hours()).await;
    let lost = ["m1 explained"];
    eventually("it counts", SOON, async || counted(&db).await == lost).await;
    assert!(!is_in(&stage, stage.kisi.user_of("m1@example.com")).await);
    db.execute_unprepared("drop trigger broken").await.unwrap();
    let told = stage.answer("m1", |told| told.version == 2).await;
    assert_eq!(told.grants.len(), 1);
    assert_eq!(counted(&db).await, lost);
    replica.stop().await;
}

/// However many are replaced at once, and however urgently.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_rights_that_are_replaced_one_at_a_time_is_gone() {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.moves_no_window();
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 12).await;
    let until = in_five_hours();
    for number in 1..=12 {
        let member = format!("m{number}");
        ends(&stage, &member, 2, until).await;
    }
    for number in 1..=12 {
        let member = format!("m{number}");
        let told = stage.answer(&member, |told| told.version == 2).await;
        assert_eq!(told.grants[0].valid_until, Some(until));
    }
    assert_eq!(stage.kisi.most_shut(), 1);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 12);
    replica.stop().await;
}

/// A door that our own repair has shut does not wait behind everything else that a pass repairs.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_a_pass_takes_away_to_give_it_anew_is_given_before_all_that_waits() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage
        .start_with(&[("kisi-requests-per-second", "25")])
        .await;
    stage.in_sync(&mut replica, 30).await;
    stage.kisi.moves_no_window();
    let right_of = async |member: &str| {
        let answer = stage.answer(member, |_| true).await;
        (answer.grants[0].assignment_id, answer.kisi_user_id.unwrap())
    };
    // The pass gives nine back, and takes an end off before them and behind them.
    for number in 2..=10 {
        let (right, _) = right_of(&format!("m{number}")).await;
        stage.kisi.remove_by_hand(right).await;
    }
    let ended = [right_of("m1").await, right_of("m11").await];
    for (right, _) in ended {
        let until = "2099-01-01T00:00:00Z";
        stage.kisi.set_window_by_hand(right, until).await;
    }
    stage.kisi.forget_requests().await;
    assert_eq!(replica.sync().await.state, "done");
    for (right, user) in ended {
        let after = stage
            .kisi
            .write_after(&format!("/role_assignments/{right}"));
        assert_eq!(after["role_assignment"]["assignee_id"], user, "{after}");
    }
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 30);
    replica.stop().await;
}
