//! What Kisi has done and the database would not keep: it is looked for, and not done again.

use sea_orm::{ColumnTrait, ConnectionTrait, TransactionTrait};
use testkit::eventually;

use crate::harness::{GYM, On, PLAN, SOON, Stage};
use crate::kisi::GROUP;
use kisi_sync::store::members;

/// No row of ours can be written as standing.
const FULL: [&str; 2] = [
    "create trigger disk_is_full before update on applied_grants when new.state = 'standing' \
     begin select raise(abort, 'the disk is full'); end",
    "create function disk_is_full() returns trigger language plpgsql as \
     $$ begin raise exception 'the disk is full'; end $$; \
     create trigger disk_is_full before update on applied_grants for each row \
     when (new.state = 'standing') execute function disk_is_full()",
];
const EMPTIED: [&str; 2] = [
    "drop trigger disk_is_full",
    "drop trigger disk_is_full on applied_grants",
];

async fn a_grant_that_could_not_be_written_down_is_looked_for(on: On) {
    let stage = Stage::set(on).await;
    // A second one would be taken.
    stage.kisi.set(|settings| {
        settings.duplicate_assignments = kisi_simulator::settings::DuplicateAssignment::NewRow;
    });
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |answer| answer.version == 2).await;
    stage.kisi.forget_requests().await;
    let url = secrecy::SecretString::from(stage.database_url());
    let db = kisi_sync::store::connect(&url).await.unwrap();
    let dialect = match on {
        On::Sqlite => 0,
        On::Postgres => 1,
    };
    db.execute_unprepared(FULL[dialect]).await.unwrap();
    stage.directory.decide(GYM, "m1", 3, &[PLAN]).await;
    eventually("it is tried again", SOON, async || {
        stage.kisi.requests().await.len() >= 2
    })
    .await;
    db.execute_unprepared(EMPTIED[dialect]).await.unwrap();
    let granted = stage
        .answer("m1", |answer| {
            answer.version == 3 && answer.outcome == "granted"
        })
        .await;
    let requests = stage.kisi.requests().await;
    let (first, looks) = requests.split_first().unwrap();
    assert_eq!(first, "POST /role_assignments");
    let all_look = looks
        .iter()
        .all(|request| request == "GET /role_assignments");
    assert!(all_look, "{requests:?}");
    let rows = stage.kisi.group_rows(GROUP).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let told = granted.grants[0].assignment_id;
    assert_eq!(rows[0]["id"].as_i64(), Some(told));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_could_not_be_written_down_is_looked_for_on_sqlite() {
    a_grant_that_could_not_be_written_down_is_looked_for(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_could_not_be_written_down_is_looked_for_on_postgres() {
    a_grant_that_could_not_be_written_down_is_looked_for(On::Postgres).await;
}

/// No row of ours can be removed.
const STUCK: [&str; 2] = [
    "create trigger disk_is_full before delete on applied_grants \
     begin select raise(abort, 'the disk is full'); end",
    "create function disk_is_full() returns trigger language plpgsql as \
     $$ begin raise exception 'the disk is full'; end $$; \
     create trigger disk_is_full before delete on applied_grants for each row \
     execute function disk_is_full()",
];

/// The tables say that she has what she should have, and she has not.
async fn a_revoke_that_could_not_be_written_down_is_looked_for_and_counts(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let url = secrecy::SecretString::from(stage.database_url());
    let db = kisi_sync::store::connect(&url).await.unwrap();
    let dialect = match on {
        On::Sqlite => 0,
        On::Postgres => 1,
    };
    db.execute_unprepared(STUCK[dialect]).await.unwrap();
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    eventually("the right is gone", SOON, async || {
        stage.kisi.group_rows(GROUP).await.len() == 1
    })
    .await;
    let postponed = "select member_id from members where pending and retry_at is not null";
    eventually("it could not be kept", SOON, async || {
        crate::brake::rows(&db, postponed).await == 1
    })
    .await;
    stage.directory.decide(GYM, "m1", 3, &[PLAN]).await;
    stage.consumed().await;
    db.execute_unprepared(EMPTIED[dialect]).await.unwrap();
    let told = stage.answer("m1", |told| told.version == 3).await;
    assert_eq!((told.outcome.as_str(), told.grants.len()), ("granted", 1));
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    let lost = "select id from losses where member_id = 'm1'";
    assert_eq!(crate::brake::rows(&db, lost).await, 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_that_could_not_be_written_down_is_looked_for_and_counts_on_sqlite() {
    a_revoke_that_could_not_be_written_down_is_looked_for_and_counts(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_that_could_not_be_written_down_is_looked_for_and_counts_on_postgres() {
    a_revoke_that_could_not_be_written_down_is_looked_for_and_counts(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_are_held_at_once_are_in_one_plan() {
    let stage = Stage::set(On::Postgres).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 12).await;
    let url = secrecy::SecretString::from(stage.database_url());
    let db = kisi_sync::store::connect(&url).await.unwrap();
    let held = (1..=12).map(|number| {
        let db = db.clone();
        tokio::spawn(async move {
            let txn = db.begin().await.unwrap();
            let member = [format!("m{number}")];
            let who = (&member[..], members::Column::Version.eq(1));
            let held = kisi_sync::held::hold(&txn, GYM, "explained", "call", who, 1);
            let (id, held) = held.await.unwrap().unwrap();
            txn.commit().await.unwrap();
            assert_eq!(held, 1);
            id
        })
    });
    let ids: Vec<_> = futures_util::future::join_all(held).await;
    let ids: std::collections::BTreeSet<String> = ids.into_iter().map(Result::unwrap).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let plans = kisi_sync::held::show(&db, GYM, 1).await.unwrap();
    let revokes: Vec<i64> = plans.iter().map(|plan| plan.revokes).collect();
    assert_eq!(revokes, [12]);
    replica.stop().await;
}

/// A replica whose lease had gone wrote down what it gave, and the next one found it at Kisi.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_was_written_down_twice_is_not_taken_back_as_its_own_duplicate() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let url = secrecy::SecretString::from(stage.database_url());
    let db = kisi_sync::store::connect(&url).await.unwrap();
    let columns = "organization_id, gym_id, member_id, group_id, kisi_user_id, assignment_id, state, \
         epoch, valid_from, valid_until, intended_at, updated_at";
    let sql = format!(
        "insert into applied_grants ({columns}) select {columns} from applied_grants \
         where member_id = 'm1'"
    );
    db.execute_unprepared(&sql).await.unwrap();
    let request = contracts::integration::v1::SyncMemberRequest {
        gym_id: GYM.to_owned(),
        member_id: "m1".to_owned(),
    };
    replica.client.sync_member(request).await.unwrap();
    let rows = "select 1 from applied_grants where member_id = 'm1'";
    let rows = sea_orm::Statement::from_string(db.get_database_backend(), rows);
    eventually("one row names it", SOON, async || {
        db.query_all_raw(rows.clone()).await.unwrap().len() == 1
    })
    .await;
    assert_eq!(stage.kisi.writes().await, [""; 0]);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    replica.stop().await;
}
