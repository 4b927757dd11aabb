//! Kisi fails in its ways, and the doors end right.

use std::sync::Arc;

use contracts::integration::v1 as api;
use kisi_simulator::settings::DuplicateAssignment;
use sea_orm::{ConnectionTrait, TransactionTrait};

use crate::brake_days::Later;
use crate::harness::{GYM, On, PLAN, SOON, Stage};
use crate::kisi::{Fault, GROUP};

async fn a_failing_kisi_delays_and_loses_nothing(on: On, fault: Fault) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    stage
        .kisi
        .fail("DELETE", "/role_assignments/{id}", 2, fault)
        .await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    for member in ["m1", "m2"] {
        let revoked = stage
            .answer(member, |answer| {
                answer.version == 2 && answer.outcome == "revoked"
            })
            .await;
        assert!(revoked.grants.is_empty());
    }
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kisi_that_answers_500_delays_and_loses_nothing() {
    a_failing_kisi_delays_and_loses_nothing(On::Sqlite, Fault::Status(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kisi_that_answers_500_delays_and_loses_nothing_on_postgres() {
    a_failing_kisi_delays_and_loses_nothing(On::Postgres, Fault::Status(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kisi_that_answers_429_delays_and_loses_nothing() {
    a_failing_kisi_delays_and_loses_nothing(On::Sqlite, Fault::Status(429)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kisi_that_hangs_delays_and_loses_nothing() {
    a_failing_kisi_delays_and_loses_nothing(On::Sqlite, Fault::Hang).await;
}

async fn a_lost_answer_to_a_grant_is_settled_by_a_look(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |answer| answer.version == 2).await;
    stage.kisi.forget_requests().await;

    stage
        .kisi
        .fail("POST", "/role_assignments", 1, Fault::ResetAfterApplying)
        .await;
    stage.directory.decide(GYM, "m1", 3, &[PLAN]).await;
    let granted = stage
        .answer("m1", |answer| {
            answer.version == 3 && answer.outcome == "granted"
        })
        .await;
    assert_eq!(granted.grants.len(), 1);
    let rows = stage.kisi.group_rows(GROUP).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        rows[0]["id"].as_i64(),
        Some(granted.grants[0].assignment_id)
    );
    let requests = stage.kisi.requests().await;
    assert_eq!(
        requests,
        ["POST /role_assignments", "GET /role_assignments"]
    );

    // And the row is ours: it is taken back by one request.
    stage.kisi.forget_requests().await;
    stage.directory.decide(GYM, "m1", 4, &[]).await;
    stage.answer("m1", |answer| answer.version == 4).await;
    assert_eq!(stage.kisi.requests().await.len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_a_grant_is_settled_by_a_look_on_sqlite() {
    a_lost_answer_to_a_grant_is_settled_by_a_look(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_a_grant_is_settled_by_a_look_on_postgres() {
    a_lost_answer_to_a_grant_is_settled_by_a_look(On::Postgres).await;
}

/// The grant's answer was lost with the process, and before the next look a key of somebody else came.
async fn a_lost_answer_is_settled_under_another_owner_s_key(twice: DuplicateAssignment) {
    let stage = Stage::set(On::Sqlite).await;
    stage
        .kisi
        .set(|settings| settings.duplicate_assignments = twice);
    let mut process = stage.spawn(&[]).await;
    stage.in_sync(&mut process.running, 1).await;
    let fault = Fault::HangAfterApplying;
    stage.kisi.fail("POST", "/role_assignments", 1, fault).await;
    stage.directory.decide(GYM, "m2", 1, &[PLAN]).await;
    testkit::eventually("Kisi has given it", SOON, async || {
        stage.kisi.group_rows(GROUP).await.len() == 2
    })
    .await;
    process.kill().await;
    let api_key = stage.kisi.revoke_key().await;
    let mut replica = stage.start().await;
    let request = api::EnableIntegrationRequest {
        gym_id: GYM.to_owned(),
        api_key,
    };
    replica.client.rotate_api_key(request).await.unwrap();
    let found = stage
        .answer("m2", |answer| answer.outcome == "granted")
        .await;
    assert_eq!(found.grants.len(), 1, "{found:?}");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    let gone = stage.answer("m2", |answer| answer.version == 2).await;
    assert_eq!(gone.outcome, "revoked");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_settled_under_another_owner_s_key_where_a_second_is_refused() {
    a_lost_answer_is_settled_under_another_owner_s_key(DuplicateAssignment::Conflict).await;
}

/// The second would be ours, and the first stay for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_settled_under_another_owner_s_key_where_a_second_is_given() {
    a_lost_answer_is_settled_under_another_owner_s_key(DuplicateAssignment::NewRow).await;
}

/// What Kisi answers to a key that was deleted nobody knows.
async fn a_dead_key_makes_work_wait_until_it_is_replaced(answer: u16, status: &str, what: &str) {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.set(|settings| settings.revoked_key = answer);
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let key = stage.kisi.revoke_key().await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let failed = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(failed.outcome, "failed");
    assert_eq!(failed.failure.as_deref(), Some("key_invalid"));
    testkit::eventually("the integration needs attention", SOON, async || {
        let shown = replica.integration().await;
        shown.state == "needs_attention"
            && shown.key.unwrap().status == status
            && shown
                .attention
                .iter()
                .any(|a| a.what == what && a.who == "staff")
    })
    .await;
    // What comes meanwhile waits as well.
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    stage
        .answer("m2", |answer| answer.version == 2 || answer.version == 1)
        .await;

    let request = api::EnableIntegrationRequest {
        gym_id: GYM.to_owned(),
        api_key: key,
    };
    replica.client.rotate_api_key(request).await.unwrap();
    for member in ["m1", "m2"] {
        stage
            .answer(member, |answer| {
                answer.version == 2 && answer.outcome == "revoked"
            })
            .await;
    }
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    testkit::eventually("the integration is active", SOON, async || {
        replica.integration().await.state == "active"
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_key_makes_work_wait_until_it_is_replaced_where_it_is_401() {
    a_dead_key_makes_work_wait_until_it_is_replaced(401, "invalid", "key_invalid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_key_makes_work_wait_until_it_is_replaced_where_it_is_403() {
    a_dead_key_makes_work_wait_until_it_is_replaced(403, "insufficient", "key_rights").await;
}

/// The database fails just when the passes are due.
#[tokio::test(flavor = "multi_thread")]
async fn passes_that_were_due_when_the_database_failed_are_queued_when_it_is_back() {
    let stage = Stage::set(On::Postgres).await;
    let clock = Later::default();
    let mut replica = stage.start_at(Arc::new(clock.clone()), &[]).await;
    stage.in_sync(&mut replica, 1).await;
    let db = sea_orm::Database::connect(stage.database_url()).await;
    let db = db.unwrap();
    let ask = async |sql: &str| {
        let statement = sea_orm::Statement::from_string(db.get_database_backend(), sql);
        db.query_all_raw(statement).await.unwrap().len()
    };
    let lock = db.begin().await.unwrap();
    let sql = "lock table held_plans in access exclusive mode";
    lock.execute_unprepared(sql).await.unwrap();
    clock.by_an_hour();
    testkit::eventually(
        "whoever waits for the table loses its connection",
        SOON,
        async || {
            let waits = "select pg_terminate_backend(pid) from pg_stat_activity \
                     where wait_event_type = 'Lock' and datname = current_database()";
            ask(waits).await > 0
        },
    )
    .await;
    lock.rollback().await.unwrap();
    testkit::eventually("the pass is queued all the same", SOON, async || {
        ask("select 1 from syncs where activation = 'schedule'").await > 0
    })
    .await;
    replica.stop().await;
}
