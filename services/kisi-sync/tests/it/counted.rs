//! A loss counts for the brake whatever became of the process, the lease or the answer: once, in its
//! class, and with the row that it takes away.

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
pub async fn counted(db: &DatabaseConnection) -> Vec<String> {
    let sql = "select distinct member_id || ' ' || class as loss from losses order by loss";
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let rows = db.query_all_raw(statement).await.unwrap();
    let rows = rows.iter();
    rows.map(|row| row.try_get("", "loss").unwrap()).collect()
}

async fn out(stage: &Stage, member: &str, version: i64) {
    stage.directory.decide(GYM, member, version, &[]).await;
}

pub async fn is_in(stage: &Stage, user: i64) -> bool {
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
