//! Killed and restarted, and two at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use contracts::access::v1::AccessApplied;
use contracts::integration::v1 as api;
use futures_util::{FutureExt, Stream, StreamExt};
use sea_orm::ConnectionTrait;

use crate::harness::{GYM, On, PLAN, Process, SOON, Stage};
use crate::kisi::{Fault, GROUP};
use crate::two_gyms;

async fn a_kill_between_intent_and_request_loses_nothing(on: On) {
    let stage = Stage::set(on).await;
    let mut first = stage.spawn(&[]).await;
    stage.in_sync(&mut first.running, 4).await;
    stage.directory.decide(GYM, "m4", 2, &[]).await;
    stage.answer("m4", |answer| answer.version == 2).await;
    // One request hangs, so that the others stand decided, and written, and not sent.
    stage
        .kisi
        .fail("DELETE", "/role_assignments/{id}", 1, Fault::Hang)
        .await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    testkit::eventually("a request hangs", SOON, async || {
        stage.kisi.requests().await.len() >= 2
    })
    .await;
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    stage.directory.decide(GYM, "m4", 3, &[PLAN]).await;
    stage.consumed().await;
    first.kill().await;

    let second = stage.spawn(&[]).await;
    for member in ["m1", "m2"] {
        stage
            .answer(member, |answer| {
                answer.version == 2 && answer.outcome == "revoked"
            })
            .await;
    }
    stage
        .answer("m4", |answer| {
            answer.version == 3 && answer.outcome == "granted"
        })
        .await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    second.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_intent_and_request_loses_nothing_on_sqlite() {
    a_kill_between_intent_and_request_loses_nothing(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_intent_and_request_loses_nothing_on_postgres() {
    a_kill_between_intent_and_request_loses_nothing(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_takes_a_killed_one_s_gyms_within_fifteen_seconds() {
    let stage = Stage::set(On::Postgres).await;
    let mut first = stage.spawn(&[]).await;
    let mut second = stage.spawn(&[]).await;
    stage.in_sync(&mut first.running, 3).await;
    // Through either: the call reaches the gym's owner.
    assert!(second.running.sync().await.in_sync);
    for version in 2..6 {
        // Whichever replica reads the message, the owner hears of it.
        let plans: &[&str] = if version % 2 == 0 { &[] } else { &[PLAN] };
        stage.directory.decide(GYM, "m1", version, plans).await;
        stage.answer("m1", |answer| answer.version == version).await;
    }
    first.kill().await;
    let killed = Instant::now();
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    stage
        .answer("m2", |answer| {
            answer.version == 2 && answer.outcome == "revoked"
        })
        .await;
    assert!(
        killed.elapsed() < Duration::from_secs(15),
        "{:?}",
        killed.elapsed()
    );
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    assert!(second.running.sync().await.in_sync);
    second.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_gives_the_gyms_back_at_once() {
    let stage = Stage::set(On::Postgres).await;
    let mut first = stage.start().await;
    let second = stage.start().await;
    stage.in_sync(&mut first, 2).await;
    first.stop().await;
    let stopped = Instant::now();
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage
        .answer("m1", |answer| {
            answer.version == 2 && answer.outcome == "revoked"
        })
        .await;
    assert!(
        stopped.elapsed() < Duration::from_secs(3),
        "{:?}",
        stopped.elapsed()
    );
    second.stop().await;
}

/// Whether a lease is held, and until when, by its gym.
async fn leases(db: &sea_orm::DatabaseConnection) -> BTreeMap<String, (bool, i64)> {
    let sql = "select gym_id, holder, expires_at from integrations join leases using (lease_key)";
    let statement = sea_orm::Statement::from_string(db.get_database_backend(), sql);
    let rows = db.query_all_raw(statement).await.unwrap();
    let read = |row: &sea_orm::QueryResult| {
        let holder: String = row.try_get("", "holder").unwrap();
        let until = row.try_get("", "expires_at").unwrap();
        (
            row.try_get("", "gym_id").unwrap(),
            (!holder.is_empty(), until),
        )
    };
    rows.iter().map(read).collect()
}

/// Which replica works on each gym.
pub async fn holders(db: &sea_orm::DatabaseConnection) -> BTreeMap<String, String> {
    let sql = "select gym_id, holder from integrations join leases using (lease_key)";
    let statement = sea_orm::Statement::from_string(db.get_database_backend(), sql);
    let rows = db.query_all_raw(statement).await.unwrap();
    let text = |row: &sea_orm::QueryResult, column: &str| row.try_get("", column).unwrap();
    rows.iter()
        .map(|row| (text(row, "gym_id"), text(row, "holder")))
        .collect()
}

/// One gym's worker waits for a write, and another's for a read, which nobody wants any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stops_gives_each_gym_back_as_soon_as_its_last_request_is_answered() {
    const OTHER: &str = "steel";
    let stage = Stage::set(On::Postgres).await;
    let flags = [
        ("lease-ttl", "40s"),
        ("lease-renew-every", "200ms"),
        ("kisi-request-timeout", "30s"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 1).await;
    stage.directory.decide(OTHER, "s1", 1, &[PLAN]).await;
    two_gyms::in_sync(&mut replica, OTHER, &stage.kisi.second_key()).await;
    let route = "/role_assignments/{id}";
    stage.kisi.fail("DELETE", route, 1, Fault::Wait).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.kisi.one_is_held_back(0).await;
    stage.kisi.hold_listings_back(0);
    let look = api::SyncMemberRequest {
        gym_id: OTHER.to_owned(),
        member_id: "s1".to_owned(),
    };
    replica.client.sync_member(look).await.unwrap();
    stage.kisi.one_is_held_back(1).await;

    let db = sea_orm::Database::connect(stage.database_url()).await;
    let db = db.unwrap();
    let stopping = tokio::spawn(replica.stop());
    let mut held_until = 0;
    testkit::eventually(
        "the one gym is free, and the other not yet",
        SOON,
        async || {
            let leases = leases(&db).await;
            held_until = leases[GYM].1;
            leases[GYM].0 && !leases[OTHER].0
        },
    )
    .await;
    testkit::eventually("what is not given back yet is renewed", SOON, async || {
        leases(&db).await[GYM].1 > held_until
    })
    .await;
    assert!(leases(&db).await[GYM].0 && !stopping.is_finished());
    stage.kisi.clear_faults();
    stopping.await.unwrap();
    assert!(leases(&db).await.values().all(|(held, _)| !held));
}

/// The gym is no longer worked on here, and before its last request is answered the process is to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_ends_waits_for_a_worker_that_was_stopping_before() {
    let stage = Stage::set(On::Postgres).await;
    let flags = [
        ("lease-ttl", "60s"),
        ("lease-renew-every", "30s"),
        ("kisi-request-timeout", "30s"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 1).await;
    let route = "/role_assignments/{id}";
    stage.kisi.fail("DELETE", route, 1, Fault::Wait).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.kisi.one_is_held_back(0).await;
    let db = sea_orm::Database::connect(stage.database_url()).await;
    let db = db.unwrap();
    // As another replica tells that something has changed.
    for sql in [
        "update integrations set enabled = false",
        "select pg_notify('kisi_sync', 'leases')",
    ] {
        db.execute_unprepared(sql).await.unwrap();
    }
    testkit::eventually("the gym is let go", SOON, async || {
        !leases(&db).await[GYM].0
    })
    .await;
    let mut stopping = tokio::spawn(replica.stop());
    let waited = tokio::time::timeout(Duration::from_secs(2), &mut stopping).await;
    assert!(waited.is_err(), "its last request is not answered yet");
    stage.kisi.clear_faults();
    stopping.await.unwrap();
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
}

/// The owner of a key is asked at the pace of the replica that speaks for her already.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_checked_by_the_replica_that_speaks_for_its_owner() {
    let stage = Stage::set(On::Postgres).await;
    let mut first = stage.start().await;
    let mut second = stage.start().await;
    stage.in_sync(&mut first, 1).await;
    for (replica, gym, asked) in [(&mut second, "steel", 2), (&mut first, "copper", 1)] {
        stage.kisi.forget_requests().await;
        let enable = api::EnableIntegrationRequest {
            gym_id: gym.to_owned(),
            api_key: stage.kisi.api_key(),
        };
        let enabled = replica.client.enable_integration(enable).await.unwrap();
        assert_eq!(enabled.into_inner().key.unwrap().status, "ok");
        let requests = stage.kisi.requests().await;
        // Whose it is, is not known before it was asked.
        let logins = requests.iter().filter(|it| it.ends_with("/login"));
        assert_eq!(logins.count(), asked, "{gym}: {requests:?}");
        let users = requests.iter().filter(|it| it.ends_with("/user"));
        assert_eq!(users.count(), 1, "{gym}: {requests:?}");
    }
    first.stop().await;
    second.stop().await;
}

/// A key of another owner takes the place of the gym's, and goes with the gym to who speaks for her.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_checked_by_the_replica_that_speaks_for_its_owner() {
    let stage = Stage::set(On::Postgres).await;
    let mut first = stage.start().await;
    let mut second = stage.start().await;
    stage.in_sync(&mut first, 1).await;
    let key = stage.kisi.second_key();
    two_gyms::in_sync(&mut second, "steel", &key).await;
    let db = sea_orm::Database::connect(stage.database_url()).await;
    let holders = holders(&db.unwrap()).await;
    assert_ne!(holders[GYM], holders["steel"], "{holders:?}");
    for (replica, asked) in [(&mut first, 2), (&mut second, 1)] {
        stage.kisi.forget_requests().await;
        let rotate = api::EnableIntegrationRequest {
            gym_id: GYM.to_owned(),
            api_key: key.clone(),
        };
        let shown = replica.client.rotate_api_key(rotate).await.unwrap();
        assert_eq!(shown.into_inner().key.unwrap().status, "ok");
        let requests = stage.kisi.requests().await;
        // Whose it is, is not known before it was asked.
        let logins = requests.iter().filter(|it| it.ends_with("/login"));
        assert_eq!(logins.count(), asked, "{requests:?}");
    }
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let told = |answer: &AccessApplied| answer.version == 2 && answer.outcome == "revoked";
    stage.answer("m1", told).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_stopped_past_its_lease_does_no_harm_when_it_wakes() {
    let stage = Stage::set(On::Postgres).await;
    let flags = [("lease-ttl", "3s"), ("lease-renew-every", "1s")];
    let mut first = stage.spawn(&flags).await;
    let second = stage.spawn(&flags).await;
    stage.in_sync(&mut first.running, 3).await;
    first.freeze();
    // Whatever the frozen one has fetched comes again to the other.
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    stage.directory.decide(GYM, "m2", 3, &[PLAN]).await;
    for (member, version) in [("m1", 2), ("m2", 3)] {
        stage
            .answer_within(Duration::from_secs(60), member, |answer| {
                answer.version == version
            })
            .await;
    }
    first.thaw();
    stage.directory.decide(GYM, "m3", 2, &[]).await;
    stage.answer("m3", |answer| answer.version == 2).await;
    stage.consumed().await;
    let rows = stage.kisi.group_rows(GROUP).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    // Both agree, whichever is asked.
    assert!(first.running.sync().await.in_sync);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    first.kill().await;
    second.kill().await;
}

/// The first of two replicas is held still with a request on its way, and the second has settled the
/// member another way by the time that Kisi hears of it.
async fn a_request_comes_after_its_lease(
    method: &str,
    route: &str,
    then: &[&str],
    wanted: &[&str],
) -> (Stage, Process, Process) {
    let stage = Stage::set(On::Postgres).await;
    // However busy the machine is, the request is still on its way when its sender is held.
    let flags = [
        ("lease-ttl", "12s"),
        ("lease-renew-every", "1s"),
        ("kisi-request-timeout", "8s"),
    ];
    let mut first = stage.spawn(&flags).await;
    let second = stage.spawn(&flags).await;
    stage.in_sync(&mut first.running, 2).await;
    if !then.is_empty() {
        stage.directory.decide(GYM, "m1", 2, &[]).await;
        stage.answer("m1", |answer| answer.version == 2).await;
    }
    stage.kisi.fail(method, route, 1, Fault::Wait).await;
    stage.directory.decide(GYM, "m1", 3, then).await;
    stage.kisi.one_is_held_back(0).await;
    first.freeze();
    stage.directory.decide(GYM, "m1", 4, wanted).await;
    let settled = |answer: &AccessApplied| answer.version == 4 && answer.failure.is_none();
    let within = Duration::from_secs(60);
    stage.answer_within(within, "m1", settled).await;
    stage.kisi.clear_faults();
    testkit::eventually("Kisi hears of it", SOON, async || {
        let requests = stage.kisi.writes().await;
        requests.iter().any(|request| request.starts_with(method))
    })
    .await;
    (stage, first, second)
}

/// The version that the successor has answered stays the last one.
async fn nothing_older_was_told(answers: &mut (impl Stream<Item = AccessApplied> + Unpin)) {
    let mut told = 0;
    while let Some(Some(answer)) = answers.next().now_or_never() {
        assert_eq!(answer.version, 4, "{answer:?}");
        told += 1;
    }
    assert!(told > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_a_late_request_took_is_given_again_without_a_pass() {
    let route = "/role_assignments/{id}";
    let (stage, first, second) =
        a_request_comes_after_its_lease("DELETE", route, &[], &[PLAN]).await;
    // The tables say that it stands.
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    let mut answers = stage.answers("m1").await;
    first.thaw();
    testkit::eventually("m1 is let in again", SOON, async || {
        stage.kisi.group_rows(GROUP).await.len() == 2
    })
    .await;
    let told = |answer: &AccessApplied| answer.version == 4 && answer.outcome == "granted";
    stage.answer("m1", told).await;
    nothing_older_was_told(&mut answers).await;
    first.kill().await;
    second.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_a_late_request_gave_is_taken_back_without_a_pass() {
    let (stage, first, second) =
        a_request_comes_after_its_lease("POST", "/role_assignments", &[PLAN], &[]).await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    let mut answers = stage.answers("m1").await;
    first.thaw();
    testkit::eventually("m1 is out again", SOON, async || {
        stage.kisi.group_rows(GROUP).await.len() == 1
    })
    .await;
    // Found, and taken back.
    let told = |answer: &AccessApplied| {
        answer.version == 4 && answer.outcome != "unchanged" && answer.grants.is_empty()
    };
    stage.answer("m1", told).await;
    nothing_older_was_told(&mut answers).await;
    first.kill().await;
    second.kill().await;
}

/// The gym changed hands while it was set up, so that its owner read the integration just before.
async fn a_gym_set_up_through_another_replica_is_worked_on(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let db = sea_orm::Database::connect(stage.database_url()).await;
    let db = db.unwrap();
    let key_is = async |status: &str| {
        let sql = format!("update integrations set key_status = '{status}'");
        db.execute_unprepared(&sql).await.unwrap();
    };
    key_is("invalid").await;
    replica.stop().await;
    let mut replica = stage.start().await;
    // Its worker has begun: without a key that works, the change waits.
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.consumed().await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    key_is("ok").await;
    let told = |answer: &AccessApplied| answer.version == 2 && answer.outcome == "revoked";
    stage.answer("m1", told).await;
    assert!(replica.sync().await.in_sync);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gym_set_up_through_another_replica_is_worked_on_on_sqlite() {
    a_gym_set_up_through_another_replica_is_worked_on(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gym_set_up_through_another_replica_is_worked_on_on_postgres() {
    a_gym_set_up_through_another_replica_is_worked_on(On::Postgres).await;
}
