//! The tables of yesterday: what was told since must not be overtaken by what is told now.

use contracts::access::v1::AccessApplied;
use sea_orm::{ConnectionTrait, Statement};

use crate::harness::{GYM, On, PLAN, SOON, Stage};
use crate::kisi::GROUP;

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

/// What was given and taken since the backup was made: what stands is ours as before, to be taken back
/// by one request, and nothing of it is given twice or taken for a stranger's.
#[tokio::test(flavor = "multi_thread")]
async fn rights_given_and_taken_since_the_backup_are_known_after_it_is_restored() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.directory.decide(GYM, "m4", 1, &[]).await;
    stage.in_sync(&mut replica, 3).await;
    replica.stop().await;
    let backup = stage.back_up().await;

    let replica = stage.start().await;
    let decided: [(&str, i64, &[&str]); 5] = [
        ("m1", 2, &[]),
        ("m1", 3, &[PLAN]),
        ("m2", 2, &[]),
        ("m4", 2, &[PLAN]),
        ("m5", 1, &[PLAN]),
    ];
    for (member, version, plans) in decided {
        stage.directory.decide(GYM, member, version, plans).await;
        let told = stage
            .answer(member, |answer| answer.version == version)
            .await;
        assert_eq!(told.grants.len(), plans.len(), "{told:?}");
    }
    replica.stop().await;
    let standing = stage.kisi.group_rows(GROUP).await;
    stage.restore(&backup);
    stage.kisi.forget_requests().await;

    // What they should have is not heard of yet: nothing is changed by what the backup says of it.
    stage.directory.be_silent(true);
    let mut replica = stage.start().await;
    let sync = replica.sync().await;
    assert_eq!(sync.state, "done_with_failures");
    assert_eq!(sync.report.unwrap().unmanaged, 0);
    stage.directory.be_silent(false);
    let sync = replica.sync().await;
    assert_eq!(
        (sync.state.as_str(), sync.in_sync),
        ("done", true),
        "{sync:?}"
    );
    assert_eq!(sync.report.unwrap().unmanaged, 0);
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!(stage.kisi.group_rows(GROUP).await, standing);

    // The right of each is taken back as ours.
    for (member, version) in [("m1", 4), ("m3", 2), ("m4", 3), ("m5", 2)] {
        stage.directory.decide(GYM, member, version, &[]).await;
        let told = stage
            .answer(member, |answer| answer.version == version)
            .await;
        assert_eq!(told.outcome, "revoked", "{told:?}");
    }
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    assert_eq!(stage.kisi.writes().await.len(), 4);
    replica.stop().await;
}

/// Membership-events has lost the same time as we have: what it says is the newest there is.
#[tokio::test(flavor = "multi_thread")]
async fn where_both_are_restored_what_was_decided_before_holds_again() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    replica.stop().await;
    let backup = stage.back_up().await;
    let before = stage.directory.get(GYM, "m1");
    let replica = stage.start().await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |answer| answer.version == 2).await;
    replica.stop().await;
    stage.restore(&backup);
    stage.directory.insert(before);
    let mut replica = stage.start().await;
    let sync = replica.sync().await;
    assert_eq!((sync.state.as_str(), sync.in_sync), ("done", true));
    assert_eq!(sync.report.unwrap().granted, 1);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    replica.stop().await;
}

/// An answer that the backup holds as not told yet was told long ago: it does not become the last one.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_before_is_not_told_again_after_newer_ones() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let first = stage.answer("m1", |answer| answer.version == 1).await;
    replica.stop().await;
    let backup = stage.back_up().await;
    let replica = stage.start().await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let last = stage.answer("m1", |answer| answer.version == 2).await;
    replica.stop().await;
    stage.restore(&backup);
    let url = secrecy::SecretString::from(stage.database_url());
    let db = kisi_sync::store::connect(&url).await.unwrap();
    let waiting = AccessApplied {
        applied_seq: first.applied_seq + 1,
        ..first
    };
    let body = serde_json::to_string(&waiting).unwrap();
    db.execute_unprepared(&format!(
        "insert into outbox (kind, body, created_at) values ('access', '{body}', 1)"
    ))
    .await
    .unwrap();
    db.close().await.unwrap();
    let replica = stage.start().await;
    let db = kisi_sync::store::connect(&url).await.unwrap();
    testkit::eventually("nothing waits to be told", SOON, async || {
        let sql = "select id from outbox";
        let waiting = Statement::from_string(db.get_database_backend(), sql);
        db.query_all_raw(waiting).await.unwrap().is_empty()
    })
    .await;
    let newest = stage.answer("m1", |_| true).await;
    assert_eq!(newest.applied_seq, last.applied_seq, "{newest:?}");
    replica.stop().await;
}

/// The same of what is told of the integration: readers keep the highest version.
#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_changed_after_a_restored_backup_is_told_above_those_before_it() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    replica.stop().await;
    let backup = stage.back_up().await;
    let mut replica = stage.start().await;
    for mapping in [&[(PLAN, GROUP)][..], &[], &[(PLAN, GROUP)], &[]] {
        replica.associate(mapping).await.unwrap();
    }
    let before = replica.integration().await.version;
    replica.stop().await;
    stage.restore(&backup);
    let mut replica = stage.start().await;
    replica.associate(&[(PLAN, GROUP)]).await.unwrap();
    let after = replica.integration().await.version;
    assert!(after > before, "{after} after {before}");
    replica.stop().await;
}

/// The same on PostgreSQL, where what is of yesterday is what the rows say.
#[tokio::test(flavor = "multi_thread")]
async fn rights_that_the_tables_of_yesterday_lack_are_known_on_postgres() {
    let stage = Stage::set(On::Postgres).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    replica.stop().await;
    let url = secrecy::SecretString::from(stage.database_url());
    let db = kisi_sync::store::connect(&url).await.unwrap();
    for yesterday in [
        "update members set applied_seq = 1, answered_version = 0, version = 0, plans = '[]'",
        "delete from applied_grants where member_id <> 'm3'",
        "update members set kisi_user_id = null, looked = false where member_id = 'm2'",
    ] {
        db.execute_unprepared(yesterday).await.unwrap();
    }
    let (one, other) = tokio::join!(stage.start(), stage.start());
    let mut replica = one;
    let sync = replica.sync().await;
    assert_eq!(
        (sync.state.as_str(), sync.in_sync),
        ("done", true),
        "{sync:?}"
    );
    assert_eq!(sync.report.unwrap().unmanaged, 0);
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    let told = stage.answer("m2", |answer| answer.version == 2).await;
    assert_eq!(told.outcome, "revoked");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    other.stop().await;
    replica.stop().await;
}
