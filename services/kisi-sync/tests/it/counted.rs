//! A loss counts for the brake whatever became of the process, the lease or the answer: once, in its
//! class, and with the row that it takes away.

use contracts::wire;
use jiff::{SignedDuration, Timestamp};
use kisi_simulator::settings::{DuplicateAssignment, PatchWindow};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use testkit::eventually;

use crate::brake::tables;
use crate::harness::{GYM, On, PLAN, Process, SOON, Stage};
use crate::kisi::{Fault, GROUP};

const ROUTE: &str = "/role_assignments/{id}";

/// Three may go in an hour; a request that hangs does so for the rest of its process's life.
const FLAGS: [(&str, &str); 5] = [
    ("brake-explained-min", "3"),
    ("brake-explained-hour-percent", "0"),
    ("kisi-request-timeout", "8s"),
    // A request is sent only while the lease is sure to outlast it.
    ("lease-ttl", "10s"),
    ("lease-renew-every", "500ms"),
];

/// Who is counted, and in which class.
async fn counted(db: &DatabaseConnection) -> Vec<String> {
    let sql = "select distinct member_id || ' ' || class as loss from losses order by loss";
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let rows = db.query_all_raw(statement).await.unwrap();
    let rows = rows.iter();
    rows.map(|row| row.try_get("", "loss").unwrap()).collect()
}

async fn out(stage: &Stage, member: &str, version: i64) {
    stage.directory.decide(GYM, member, version, &[]).await;
}

async fn is_in(stage: &Stage, user: i64) -> bool {
    let rows = stage.kisi.group_rows(GROUP).await;
    rows.iter().any(|row| row["assignee_id"] == user)
}

/// The member's right is gone at Kisi, and the replica is killed before it hears of that.
async fn taken_and_killed(stage: &Stage, replica: Process, member: &str) {
    let user = stage.kisi.user_of(&format!("{member}@example.com"));
    let silent = Fault::HangAfterApplying;
    stage.kisi.fail("DELETE", ROUTE, 1, silent).await;
    out(stage, member, 2).await;
    eventually("the right is gone", SOON, async || {
        !is_in(stage, user).await
    })
    .await;
    stage.consumed().await;
    replica.kill().await;
    stage.kisi.clear_faults();
}

async fn a_loss_that_nobody_lived_to_write_down_counts(on: On) {
    let stage = Stage::set(on).await;
    let mut first = stage.spawn(&FLAGS).await;
    stage.in_sync(&mut first.running, 6).await;
    let db = tables(&stage).await;
    taken_and_killed(&stage, first, "m1").await;
    assert!(counted(&db).await.is_empty());
    // The DELETE is repeated, and Kisi knows of no such right.
    let second = stage.spawn(&FLAGS).await;
    let told = stage.answer("m1", |told| told.version == 2).await;
    assert_eq!(told.outcome, "revoked");
    assert_eq!(counted(&db).await, ["m1 explained"]);

    // She is let in again meanwhile: who has lost it is found by the look before that.
    taken_and_killed(&stage, second, "m2").await;
    stage.directory.decide(GYM, "m2", 3, &[PLAN]).await;
    let third = stage.spawn(&FLAGS).await;
    let told = stage.answer("m2", |told| told.version == 3).await;
    assert_eq!(told.outcome, "granted");
    assert_eq!(counted(&db).await, ["m1 explained", "m2 explained"]);
    third.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_nobody_lived_to_write_down_counts_on_sqlite() {
    a_loss_that_nobody_lived_to_write_down_counts(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_nobody_lived_to_write_down_counts_on_postgres() {
    a_loss_that_nobody_lived_to_write_down_counts(On::Postgres).await;
}

/// When it is to be repeated others have taken the room that it had.
async fn what_is_gone_already_counts_and_is_not_held(on: On) {
    let stage = Stage::set(on).await;
    let mut first = stage.spawn(&FLAGS).await;
    stage.in_sync(&mut first.running, 6).await;
    let db = tables(&stage).await;
    for member in ["m1", "m2"] {
        out(&stage, member, 2).await;
        let told = stage.answer(member, |told| told.version == 2).await;
        assert_eq!(told.outcome, "revoked");
    }
    taken_and_killed(&stage, first, "m3").await;
    let fewer = [&FLAGS[1..], &[("brake-explained-min", "2")]].concat();
    let mut second = stage.spawn(&fewer).await;
    let told = stage.answer("m3", |told| told.version == 2).await;
    assert_eq!((told.outcome.as_str(), told.grants.len()), ("revoked", 0));
    let all = ["m1", "m2", "m3"].map(|member| format!("{member} explained"));
    assert_eq!(counted(&db).await, all);
    assert!(second.running.held_plans().await.is_empty());
    out(&stage, "m4", 2).await;
    let told = stage.answer("m4", |told| told.version == 2).await;
    assert_eq!(told.outcome, "held");
    assert!(is_in(&stage, stage.kisi.user_of("m4@example.com")).await);
    second.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_already_counts_and_is_not_held_on_sqlite() {
    what_is_gone_already_counts_and_is_not_held(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_already_counts_and_is_not_held_on_postgres() {
    what_is_gone_already_counts_and_is_not_held(On::Postgres).await;
}

/// What is repeated after a kill comes before what is new, and finds its room.
#[tokio::test(flavor = "multi_thread")]
async fn kills_in_a_row_let_nobody_past_the_line() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.spawn(&FLAGS).await;
    stage.in_sync(&mut replica.running, 8).await;
    let db = tables(&stage).await;
    for number in 1..=3 {
        taken_and_killed(&stage, replica, &format!("m{number}")).await;
        replica = stage.spawn(&FLAGS).await;
    }
    for number in 4..=6 {
        let member = format!("m{number}");
        out(&stage, &member, 2).await;
        let told = stage.answer(&member, |told| told.version == 2).await;
        assert_eq!(told.outcome, "held");
        replica.kill().await;
        replica = stage.spawn(&FLAGS).await;
    }
    // Each process may have died before the answer to what it repeated.
    let all = ["m1", "m2", "m3"].map(|member| format!("{member} explained"));
    eventually("all three are counted", SOON, async || {
        counted(&db).await == all
    })
    .await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 5);
    let plan = replica.running.plan_held().await;
    assert_eq!((plan.class.as_str(), plan.revokes), ("explained", 3));
    replica.kill().await;
}

/// Whoever may have lost her right counts until that is known, or others would go in her place.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_without_an_answer_counts_before_it_is_known() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&FLAGS[..2]).await;
    stage.in_sync(&mut replica, 8).await;
    let db = tables(&stage).await;
    for member in ["m1", "m2"] {
        out(&stage, member, 2).await;
        stage.answer(member, |told| told.version == 2).await;
    }
    // Kisi does it and fails, again and again: nobody else waits for her.
    let lost = Fault::ResetAfterApplying;
    stage.kisi.fail("DELETE", ROUTE, u64::MAX, lost).await;
    out(&stage, "m3", 2).await;
    let third = stage.kisi.user_of("m3@example.com");
    eventually("her right is gone", SOON, async || {
        !is_in(&stage, third).await
    })
    .await;
    let all = ["m1", "m2", "m3"].map(|member| format!("{member} explained"));
    eventually("it counts", SOON, async || counted(&db).await == all).await;
    for number in 4..=7 {
        let member = format!("m{number}");
        out(&stage, &member, 2).await;
        let told = stage.answer(&member, |told| told.version == 2);
        assert_eq!(told.await.outcome, "held", "{member}");
    }
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 5);
    stage.kisi.clear_faults();
    let told = stage.answer("m3", |told| told.outcome == "revoked").await;
    assert!(told.grants.is_empty());
    assert_eq!(counted(&db).await, all);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 5);
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

/// The DELETE of a replica that stands still arrives after another one has the gym.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_by_a_request_that_outlived_its_lease_counts_once() {
    let stage = Stage::set(On::Postgres).await;
    let flags = [
        FLAGS[0],
        FLAGS[1],
        ("kisi-request-timeout", "30s"),
        ("lease-ttl", "32s"),
        ("lease-renew-every", "200ms"),
    ];
    let mut first = stage.spawn(&flags).await;
    stage.in_sync(&mut first.running, 4).await;
    let second = stage.spawn(&flags).await;
    let db = tables(&stage).await;
    let user = stage.kisi.user_of("m1@example.com");
    stage.kisi.fail("DELETE", ROUTE, 1, Fault::Wait).await;
    out(&stage, "m1", 2).await;
    stage.kisi.one_is_held_back(0).await;
    first.freeze();
    // She is let in again, and by the time that others have the gym has what she should have.
    stage.directory.decide(GYM, "m1", 3, &[PLAN]).await;
    stage.consumed().await;
    let over = "update leases set expires_at = 0";
    db.execute_unprepared(over).await.unwrap();
    let told = stage.answer("m1", |told| told.version == 3).await;
    assert_eq!((told.outcome.as_str(), told.grants.len()), ("unchanged", 1));
    assert!(counted(&db).await.is_empty());
    stage.kisi.clear_faults();
    eventually("the late request is carried out", SOON, async || {
        !is_in(&stage, user).await
    })
    .await;
    first.thaw();
    let told = stage.answer("m1", |told| told.outcome == "granted").await;
    assert_eq!((told.version, told.grants.len()), (3, 1));
    assert!(is_in(&stage, user).await);
    assert_eq!(counted(&db).await.len(), 1);
    first.kill().await;
    second.kill().await;
}

/// Kisi moves no window and takes no second row, and refuses the new one when the old one is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_was_to_be_replaced_and_is_not_given_anew_counts() {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.set(|settings| {
        settings.patch_window = PatchWindow::Ignore;
        settings.duplicate_assignments = DuplicateAssignment::Conflict;
    });
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 4).await;
    let db = tables(&stage).await;
    let until = Timestamp::now().checked_add(SignedDuration::from_hours(5));
    let until = wire::timestamp(until.unwrap());
    for (member, refused) in [("m1", false), ("m2", true)] {
        if refused {
            let refusal = Fault::Status(403);
            let route = "/role_assignments";
            stage.kisi.fail_after(1, "POST", route, 1, refusal).await;
        }
        let mut state = stage.directory.put(GYM, member, 2, &[PLAN]).state.unwrap();
        state.plans[0].valid_until = Some(until);
        stage.directory.publish(&state).await;
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
    stage.kisi.set(|settings| {
        settings.patch_window = PatchWindow::Ignore;
        settings.duplicate_assignments = DuplicateAssignment::Conflict;
    });
    let line = [
        ("brake-explained-min", "2"),
        ("brake-explained-hour-percent", "0"),
    ];
    let mut replica = stage.start_with(&line).await;
    stage.in_sync(&mut replica, 6).await;
    let db = tables(&stage).await;
    let until = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let until = until.checked_add(SignedDuration::from_hours(5)).unwrap();
    let route = "/role_assignments";
    for (member, is_lost) in [("m1", true), ("m2", true), ("m3", false), ("m4", false)] {
        let refusal = Fault::Status(403);
        stage.kisi.fail_after(1, "POST", route, 1, refusal).await;
        stage.kisi.forget_requests().await;
        let mut state = stage.directory.put(GYM, member, 2, &[PLAN]).state.unwrap();
        state.plans[0].valid_until = Some(wire::timestamp(until));
        stage.directory.publish(&state).await;
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
    let ends = rows.iter().filter_map(|row| row["valid_until"].as_str());
    let moved = ends.filter(|end| end.parse().ok() == Some(until)).count();
    assert_eq!((rows.len(), moved), (6, 4), "{rows:?}");
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

/// Of the same Kisi, and without any room: whoever is extended keeps the end that she has. Her door shuts then
/// by itself, and opens again at once and not with the next pass.
#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_an_end_that_was_moved_is_let_in_anew_when_it_comes() {
    let stage = Stage::set(On::Sqlite).await;
    let line = [
        ("brake-explained-min", "0"),
        ("brake-explained-hour-percent", "0"),
    ];
    let mut replica = stage.start_with(&line).await;
    stage.in_sync(&mut replica, 4).await;
    let ends_at = async |version, end| {
        let mut state = stage.directory.put(GYM, "m1", version, &[PLAN]);
        let state = state.state.as_mut().unwrap();
        state.plans[0].valid_until = Some(end);
        stage.directory.publish(state).await;
        stage.answer("m1", |told| told.version == version).await
    };
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let end_in = |seconds| {
        let end = now.checked_add(SignedDuration::from_secs(seconds));
        wire::timestamp(end.unwrap())
    };
    let (soon, later) = (end_in(8), end_in(18_000));
    let told = ends_at(2, soon).await;
    assert_eq!(told.grants[0].valid_until, Some(soon), "{told:?}");
    stage.kisi.set(|settings| {
        settings.patch_window = PatchWindow::Ignore;
        settings.duplicate_assignments = DuplicateAssignment::Conflict;
    });
    let told = ends_at(3, later).await;
    assert_eq!(told.failure.as_deref(), Some("kisi_refused"), "{told:?}");
    assert_eq!(told.grants[0].valid_until, Some(soon));
    let told = stage.answer("m1", |told| told.failure.is_none()).await;
    assert_eq!(told.grants[0].valid_until, Some(later), "{told:?}");
    assert!(is_in(&stage, stage.kisi.user_of("m1@example.com")).await);
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

/// These get an end, all at once.
async fn end_in_five_hours(stage: &Stage, members: &[&str]) {
    let until = Timestamp::now().checked_add(SignedDuration::from_hours(5));
    let until = wire::timestamp(until.unwrap());
    for member in members {
        let mut state = stage.directory.put(GYM, member, 2, &[PLAN]).state.unwrap();
        state.plans[0].valid_until = Some(until);
        stage.directory.publish(&state).await;
    }
}

/// Kisi says of each new right that there is one already, whether there is or not: what became of the old
/// one is only known after some looks, and until then its member is on the way out.
#[tokio::test(flavor = "multi_thread")]
async fn whose_new_right_is_doubtful_takes_room_from_the_next() {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.set(|settings| {
        settings.patch_window = PatchWindow::Ignore;
        settings.duplicate_assignments = DuplicateAssignment::Conflict;
    });
    let line = [
        ("brake-explained-min", "2"),
        ("brake-explained-hour-percent", "0"),
    ];
    let mut replica = stage.start_with(&line).await;
    stage.in_sync(&mut replica, 8).await;
    let db = tables(&stage).await;
    let conflict = Fault::Status(409);
    let route = "/role_assignments";
    stage.kisi.fail("POST", route, u64::MAX, conflict).await;
    let members = ["m1", "m2", "m3", "m4", "m5", "m6"];
    end_in_five_hours(&stage, &members).await;
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
    stage.kisi.set(|settings| {
        settings.patch_window = PatchWindow::Ignore;
        settings.duplicate_assignments = DuplicateAssignment::Conflict;
    });
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 4).await;
    let db = tables(&stage).await;
    let lost = Fault::ResetAfterApplying;
    stage.kisi.fail("DELETE", ROUTE, 1, lost).await;
    // She is not looked for while Kisi says nothing.
    stage
        .kisi
        .fail("GET", "/role_assignments", u64::MAX, Fault::Hang)
        .await;
    end_in_five_hours(&stage, &["m1"]).await;
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
    stage.kisi.set(|settings| {
        settings.patch_window = PatchWindow::Ignore;
        settings.duplicate_assignments = DuplicateAssignment::Conflict;
    });
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 8).await;
    let route = "/role_assignments";
    for (number, left) in [(1, 7), (2, 6), (3, 5), (4, 5), (5, 5)] {
        let refusal = Fault::Status(403);
        stage.kisi.fail_after(1, "POST", route, 1, refusal).await;
        let member = format!("m{number}");
        end_in_five_hours(&stage, &[&member]).await;
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
    stage.kisi.set(|settings| {
        settings.patch_window = PatchWindow::Ignore;
        settings.duplicate_assignments = DuplicateAssignment::Conflict;
    });
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 4).await;
    let db = tables(&stage).await;
    let broken = "create trigger broken before insert on applied_grants
        when not exists (select 1 from applied_grants where member_id = new.member_id)
        begin select raise(abort, 'broken'); end";
    db.execute_unprepared(broken).await.unwrap();
    let until = Timestamp::now().checked_add(SignedDuration::from_hours(5));
    let mut state = stage.directory.put(GYM, "m1", 2, &[PLAN]).state.unwrap();
    state.plans[0].valid_until = Some(wire::timestamp(until.unwrap()));
    stage.directory.publish(&state).await;
    let lost = ["m1 explained"];
    eventually("it counts", SOON, async || counted(&db).await == lost).await;
    assert!(!is_in(&stage, stage.kisi.user_of("m1@example.com")).await);
    db.execute_unprepared("drop trigger broken").await.unwrap();
    let told = stage.answer("m1", |told| told.version == 2).await;
    assert_eq!(told.grants.len(), 1);
    assert_eq!(counted(&db).await, lost);
    replica.stop().await;
}

/// Kisi refuses the DELETE, and does not answer whether the key may do that at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_loss_counts_for_nothing_where_another_answer_is_lost() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 4).await;
    let db = tables(&stage).await;
    let (refused, down) = (Fault::Status(403), Fault::Status(500));
    stage.kisi.fail("DELETE", ROUTE, u64::MAX, refused).await;
    stage
        .kisi
        .fail("GET", "/role_assignments", u64::MAX, down)
        .await;
    out(&stage, "m1", 2).await;
    let told = stage
        .answer("m1", |told| {
            told.failure.as_deref() == Some("kisi_unreachable")
        })
        .await;
    assert_eq!(told.version, 2);
    assert!(counted(&db).await.is_empty());
    assert!(is_in(&stage, stage.kisi.user_of("m1@example.com")).await);
    stage.kisi.clear_faults();
    stage.answer("m1", |told| told.outcome == "revoked").await;
    assert_eq!(counted(&db).await, ["m1 explained"]);
    stage.kisi.overlook_refusals();
    replica.stop().await;
}
