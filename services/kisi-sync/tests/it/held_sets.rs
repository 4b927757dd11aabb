//! A held plan is of exactly those whom it holds when it is first shown.

use sea_orm::{ConnectionTrait, DatabaseTransaction, TransactionTrait};
use tonic::Code;

use crate::harness::{GYM, On, PLAN, Running, SOON, Stage};
use crate::kisi::{Fault, GROUP};

async fn whoever_is_entitled_again_before_it_is_shown_is_no_part_of_it(on: On) {
    let stage = Stage::set(on).await;
    let flags = [
        ("brake-explained-min", "1"),
        ("brake-explained-hour-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 5).await;
    let decide = async |member: &str, version: i64, plans: &[&str]| {
        stage.directory.decide(GYM, member, version, plans).await;
        let told = stage.answer(member, |told| told.version == version).await;
        told.outcome
    };
    let plan_shown = async |replica: &mut Running| {
        let shown = replica.integration().await.attention;
        shown.into_iter().find(|matter| matter.what == "plan_held")
    };
    assert_eq!(decide("m1", 2, &[]).await, "revoked");
    assert_eq!(decide("m2", 2, &[]).await, "held");
    assert!(plan_shown(&mut replica).await.is_some());
    assert_eq!(decide("m2", 3, &[PLAN]).await, "unchanged");
    // There is nothing left to decide.
    let plans = replica.held_plans().await;
    assert!(plans.is_empty(), "{plans:?}");
    assert!(plan_shown(&mut replica).await.is_none());

    for member in ["m3", "m4", "m5"] {
        assert_eq!(decide(member, 2, &[]).await, "held", "{member}");
    }
    assert_eq!(decide("m4", 3, &[PLAN]).await, "unchanged");
    let id = plan_shown(&mut replica).await.unwrap().subject;
    // Nobody was shown what it is of.
    let unseen = replica.approve(&id, "").await.unwrap_err();
    assert_eq!(unseen.code(), Code::FailedPrecondition);
    let plan = replica.plan_held().await;
    assert_eq!((plan.id.as_str(), plan.revokes), (id.as_str(), 2));
    // Shown again, it is the same.
    assert_eq!(replica.plan_held().await.digest, plan.digest);
    // What comes later opens another.
    assert_eq!(decide("m4", 4, &[]).await, "held");
    let plans = replica.held_plans().await;
    let sizes: Vec<i64> = plans.iter().map(|plan| plan.revokes).collect();
    assert_eq!(sizes, [1, 2], "newest first: {plans:?}");
    // Whoever is entitled again after it was shown drops out, and it is the one that was shown.
    assert_eq!(decide("m5", 3, &[PLAN]).await, "unchanged");
    let shown = replica.held_plans().await;
    assert_eq!((&shown[1].digest, shown[1].revokes), (&plan.digest, 2));
    replica.approve(&id, &plan.digest).await.unwrap();
    stage.answer("m3", |told| told.outcome == "revoked").await;
    // And nobody else is out, not even by the next pass.
    assert_eq!(replica.sync().await.state, "held");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 3);
    let told = stage.answer("m4", |told| told.version == 4).await;
    assert_eq!(told.outcome, "held");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    whoever_is_entitled_again_before_it_is_shown_is_no_part_of_it(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    whoever_is_entitled_again_before_it_is_shown_is_no_part_of_it(On::Postgres).await;
}

/// Whoever holds somebody waits until this ends.
async fn nobody_is_held_meanwhile(stage: &Stage) -> DatabaseTransaction {
    let db = sea_orm::Database::connect(stage.database_url()).await;
    let txn = db.unwrap().begin().await.unwrap();
    let sql = "select 1 from integrations for update";
    txn.execute_unprepared(sql).await.unwrap();
    txn
}

async fn somebody_is_about_to_be_held(txn: &DatabaseTransaction) {
    testkit::eventually("somebody is about to be held", SOON, async || {
        let waits = "select 1 from pg_stat_activity \
             where wait_event_type = 'Lock' and datname = current_database()";
        let statement = sea_orm::Statement::from_string(txn.get_database_backend(), waits);
        !txn.query_all_raw(statement).await.unwrap().is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_entitled_again_while_she_is_about_to_be_held_is_not() {
    let stage = Stage::set(On::Postgres).await;
    let flags = [
        ("brake-explained-min", "0"),
        ("brake-explained-hour-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 2).await;
    let meanwhile = nobody_is_held_meanwhile(&stage).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    somebody_is_about_to_be_held(&meanwhile).await;
    stage.directory.decide(GYM, "m1", 3, &[PLAN]).await;
    stage.consumed().await;
    meanwhile.rollback().await.unwrap();
    stage.answer("m1", |told| told.version == 3).await;
    let plans = replica.held_plans().await;
    assert!(plans.is_empty(), "{plans:?}");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    replica.stop().await;
}

/// A pass takes its time between its look and what it holds.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_let_in_by_herself_while_a_pass_is_about_to_hold_her_is_not() {
    let stage = Stage::set(On::Postgres).await;
    let flags = [
        ("brake-grants-min", "0"),
        ("brake-grants-percent", "0"),
        ("kisi-request-timeout", "5s"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 1).await;
    for member in ["n1", "n2"] {
        stage.directory.decide(GYM, member, 1, &["new"]).await;
        stage.answer(member, |told| told.version == 1).await;
    }
    // The pass lists the rights of the key's owner first.
    let (get, route) = ("GET", "/role_assignments");
    stage.kisi.fail_after(1, get, route, 1, Fault::Wait).await;
    replica
        .associate(&[(PLAN, GROUP), ("new", GROUP)])
        .await
        .unwrap();
    stage.kisi.one_is_held_back(0).await;
    let meanwhile = nobody_is_held_meanwhile(&stage).await;
    stage.kisi.clear_faults();
    somebody_is_about_to_be_held(&meanwhile).await;
    stage.directory.decide(GYM, "n1", 2, &["new"]).await;
    let told = stage.answer("n1", |told| told.version == 2).await;
    assert_eq!(told.outcome, "granted");
    meanwhile.rollback().await.unwrap();
    let plan = replica.plan_held().await;
    assert_eq!((plan.class.as_str(), plan.grants), ("grants", 1));
    replica.stop().await;
}
