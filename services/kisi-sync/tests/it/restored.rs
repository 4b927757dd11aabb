//! The tables of yesterday: what was told since must not be overtaken by what is told now.

use sea_orm::ConnectionTrait;

use crate::harness::{GYM, On, PLAN, Stage};

/// Every answer is numbered above those that were told before, whoever remembers them: the streams
/// and the readers' projections do, and the tables do not.
#[tokio::test(flavor = "multi_thread")]
async fn answers_after_a_restored_backup_are_numbered_above_those_before_it() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    replica.stop().await;
    let backup = stage.back_up().await;

    let replica = stage.start().await;
    for version in 2..=7 {
        let plans = if version % 2 == 0 {
            &[][..]
        } else {
            &[PLAN][..]
        };
        stage.directory.decide(GYM, "m1", version, plans).await;
        stage.answer("m1", |answer| answer.version == version).await;
    }
    let before = stage.answer("m1", |answer| answer.version == 7).await;
    replica.stop().await;

    stage.restore(&backup);
    let mut replica = stage.start().await;
    // Heard of again by the pass, which compares versions.
    assert_eq!(replica.sync().await.state, "done");
    stage.directory.decide(GYM, "m1", 8, &[]).await;
    let after = stage.answer("m1", |answer| answer.version == 8).await;
    assert!(
        after.applied_seq > before.applied_seq,
        "{} after {}",
        after.applied_seq,
        before.applied_seq
    );
    replica.stop().await;
}

/// The same on PostgreSQL, where what was restored is one row.
#[tokio::test(flavor = "multi_thread")]
async fn answers_after_a_restored_row_are_numbered_above_those_before_it_on_postgres() {
    let stage = Stage::set(On::Postgres).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    for version in [2, 3, 4] {
        let plans = if version % 2 == 0 {
            &[][..]
        } else {
            &[PLAN][..]
        };
        stage.directory.decide(GYM, "m1", version, plans).await;
        stage.answer("m1", |answer| answer.version == version).await;
    }
    let before = stage.answer("m1", |answer| answer.version == 4).await;
    let url = secrecy::SecretString::from(stage.database_url());
    let db = kisi_sync::store::connect(&url).await.unwrap();
    db.execute_unprepared("update members set applied_seq = 1")
        .await
        .unwrap();
    stage.directory.decide(GYM, "m1", 5, &[PLAN]).await;
    let after = stage.answer("m1", |answer| answer.version == 5).await;
    assert!(after.applied_seq > before.applied_seq);
    replica.stop().await;
}
