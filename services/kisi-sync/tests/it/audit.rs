//! What changed Kisi is written down with who or what caused it; a changed row is named; a member's
//! timeline is read from it.

use contracts::access::v1::{AccessApplied, GetTimelineRequest, TimelineEntry, UnlockRequest};
use kisi_sync::audit::Entry;
use kisi_sync::audit::prune::prune;
use kisi_sync::store::{self, audit};
use sea_orm::{ConnectionTrait, DatabaseConnection};
use secrecy::SecretString;
use testkit::TestDatabase;

use crate::harness::{GYM, On, PLAN, Running, SOON, Stage};
use crate::kisi::{Fault, GROUP, OTHER_GROUP};

/// The program's own verdict: whether it was content, and what it said.
async fn verdict(database_url: &str) -> (bool, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_kisi-sync"))
        .args(["audit", "verify"])
        .env("DATABASE_URL", database_url)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    (output.status.success(), said.trim().to_owned())
}

async fn timeline(replica: &mut Running, member: &str) -> Vec<TimelineEntry> {
    let request = GetTimelineRequest {
        gym_id: GYM.to_owned(),
        member_id: member.to_owned(),
        ..GetTimelineRequest::default()
    };
    let answer = replica.client.get_timeline(request).await.unwrap();
    answer.into_inner().entries
}

fn kinds(entries: &[TimelineEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.kind.as_str()).collect()
}

async fn every_change_is_logged_with_its_cause(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 12).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |answer| answer.version == 2).await;

    let told = timeline(&mut replica, "m1").await;
    assert_eq!(kinds(&told), ["revoked", "granted", "user_created"]);
    let revoked = &told[0];
    assert_eq!(revoked.cause, "call:PutMembership");
    assert_eq!(revoked.actor, "service:test");
    assert_eq!(revoked.version, 2);
    assert!(revoked.message.contains("Members"), "{}", revoked.message);
    assert!(told[1].cause.starts_with("reconcile:sync_"), "{told:?}");
    assert!(told[1].actor.starts_with("service:"), "{told:?}");

    // One row for each request that changed Kisi, and none that holds a person's name or e-mail.
    let db = store::connect(&SecretString::from(stage.database_url()))
        .await
        .unwrap();
    let rows = store::audit::list_after(&db, GYM, 0, 1_000).await.unwrap();
    assert_eq!(rows.len(), 12 * 2 + 1);
    for row in &rows {
        assert!(!row.entry.contains("example.com"), "{}", row.entry);
        assert!(!row.entry.contains("Member m"), "{}", row.entry);
    }
    let last: Entry = serde_json::from_str(&rows.last().unwrap().entry).unwrap();
    assert_eq!(last.request, "DELETE /role_assignments/{id}");
    assert_eq!(last.group, Some(GROUP));
    let stages = [
        last.received_at,
        last.decided_at,
        last.sent_at,
        last.answered_at,
    ];
    assert!(stages.iter().all(Option::is_some), "{stages:?}");
    assert!(last.sent_at <= last.answered_at && last.received_at <= last.sent_at);
    let entries = rows
        .iter()
        .map(|row| serde_json::from_str::<Entry>(&row.entry).unwrap());
    let granted: Vec<Entry> = entries.filter(|entry| entry.action == "granted").collect();
    assert_eq!(granted.len(), 12);
    assert!(
        granted
            .iter()
            .all(|entry| entry.fields.contains(&"role_id".to_owned()))
    );

    let (whole, said) = verdict(&stage.database_url()).await;
    assert!(whole, "{said}");
    assert!(
        said.starts_with("gym iron: rows 1 to 25 are whole"),
        "{said}"
    );
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_logged_with_its_cause_on_sqlite() {
    every_change_is_logged_with_its_cause(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_logged_with_its_cause_on_postgres() {
    every_change_is_logged_with_its_cause(On::Postgres).await;
}

/// Who changed the mapping, and who approved what it takes.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_decided_for_many_names_the_person() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [
        ("brake-unexplained-min", "1"),
        ("brake-unexplained-hour-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 2).await;
    let by = timeline(&mut replica, "m1").await[0].actor.clone();
    replica.associate(&[(PLAN, OTHER_GROUP)]).await.unwrap();
    let moved = |told: &contracts::access::v1::AccessApplied| {
        told.grants
            .iter()
            .map(|right| right.group_id)
            .eq([OTHER_GROUP])
    };
    stage.answer("m1", moved).await;
    let told = timeline(&mut replica, "m1").await;
    assert_eq!(kinds(&told)[..2], ["revoked", "granted"]);
    for entry in &told[..2] {
        assert!(entry.cause.starts_with("reconcile:sync_"), "{entry:?}");
        assert_eq!(entry.actor, by);
    }
    replica.associate(&[]).await.unwrap();
    let plan = replica.plan_held().await;
    replica.approve(&plan.id, &plan.digest).await.unwrap();
    stage.answer("m2", |told| told.grants.is_empty()).await;
    let told = timeline(&mut replica, "m2").await;
    assert_eq!(told[0].kind, "revoked");
    assert_eq!(told[0].cause, format!("held_plan:{}", plan.id));
    assert_eq!(told[0].actor, by);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_a_refusal_and_unlocks_are_on_the_timeline() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    stage
        .kisi
        .fail("POST", "/role_assignments", 1, Fault::ResetAfterApplying)
        .await;
    stage.directory.decide(GYM, "m2", 1, &[PLAN]).await;
    stage
        .answer("m2", |answer| answer.outcome == "granted")
        .await;
    let told = timeline(&mut replica, "m2").await;
    assert_eq!(
        kinds(&told),
        ["granted", "failed", "unanswered", "user_created"]
    );
    let mut twin = stage.directory.put(GYM, "m3", 1, &[PLAN]);
    twin.email = "m1@example.com".to_owned();
    stage.directory.insert(twin.clone());
    stage.directory.publish(&twin.state.unwrap()).await;
    stage.answer("m3", |answer| answer.version == 1).await;
    let told = timeline(&mut replica, "m3").await;
    assert_eq!(kinds(&told), ["failed"]);
    assert!(told[0].message.contains("identity_conflict"));

    let door = replica.integration().await.groups[0].doors[0].lock_id;
    let unlock = UnlockRequest {
        gym_id: GYM.to_owned(),
        member_id: "m1".to_owned(),
        lock_id: door,
        location: None,
        proximity_proof: None,
    };
    replica.client.unlock(unlock.clone()).await.unwrap();
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |answer| answer.version == 2).await;
    replica.client.unlock(unlock).await.unwrap();
    let told = timeline(&mut replica, "m1").await;
    assert_eq!(
        kinds(&told)[..4],
        ["unlock_refused", "revoked", "unlocked", "login_made"]
    );
    assert_eq!(told[2].message, "Front door was opened.");
    let missing = GetTimelineRequest {
        gym_id: GYM.to_owned(),
        member_id: "nobody".to_owned(),
        ..GetTimelineRequest::default()
    };
    let refused = replica.client.get_timeline(missing).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_timeline_stay_what_they_are_while_more_happens() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    for version in 2..=5 {
        let plans: &[&str] = if version % 2 == 0 { &[] } else { &[PLAN] };
        stage.directory.decide(GYM, "m1", version, plans).await;
        stage.answer("m1", |answer| answer.version == version).await;
    }
    let whole = timeline(&mut replica, "m1").await;
    let mut paged = Vec::new();
    let mut request = GetTimelineRequest {
        gym_id: GYM.to_owned(),
        member_id: "m1".to_owned(),
        page_size: 2,
        page_token: String::new(),
    };
    loop {
        let page = replica.client.get_timeline(request.clone()).await.unwrap();
        let page = page.into_inner();
        paged.extend(page.entries);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        // Something new stands at the front meanwhile.
        let version = 4 + paged.len() as i64;
        stage.directory.decide(GYM, "m1", version, &[]).await;
        stage.answer("m1", |answer| answer.version == version).await;
    }
    assert_eq!(paged, whole);
    request.page_token = "yesterday".to_owned();
    let refused = replica.client.get_timeline(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    replica.stop().await;
}

/// Ten rows of a gym's log in a database of their own.
async fn ten_rows(on: On) -> (DatabaseConnection, String, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = match on {
        On::Sqlite => format!("sqlite://{}", folder.path().join("audit.db").display()),
        On::Postgres => TestDatabase::create().await.unwrap().url().to_owned(),
    };
    let db = store::open(&SecretString::from(url.clone())).await.unwrap();
    for i in 1..=10 {
        let entry = Entry::new("granted").about("m1").group(i);
        write(&db, entry, i * DAY).await;
    }
    (db, url, folder)
}

const DAY: i64 = 86_400_000_000;

async fn write(db: &DatabaseConnection, entry: Entry, now: i64) {
    use sea_orm::TransactionTrait;
    let txn = db.begin().await.unwrap();
    kisi_sync::audit::append(&txn, GYM, &[entry], now)
        .await
        .unwrap();
    txn.commit().await.unwrap();
}

async fn a_changed_row_is_named(on: On) {
    // What somebody with the database's password does, and what is said of it.
    let rewritten = "update audit set entry = replace(entry, '4', '9') where seq = 4";
    let moved = "update audit set member_id = 'm2' where seq = 6";
    let gone = "delete from audit where seq = 5";
    let front = "delete from audit where seq <= 3";
    let end = "delete from audit where seq = 10";
    for (act, said) in [
        (rewritten, "row 4 was changed"),
        (moved, "row 6 was changed"),
        (gone, "row 5 is missing"),
        (front, "row 3 is missing"),
        (end, "row 10 is missing"),
    ] {
        let (db, url, _folder) = ten_rows(on).await;
        db.execute_unprepared(act).await.unwrap();
        assert_eq!(verdict(&url).await, (false, format!("gym iron: {said}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_row_is_named_on_sqlite() {
    a_changed_row_is_named(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_row_is_named_on_postgres() {
    a_changed_row_is_named(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_changed_together_with_its_own_hash_is_named() {
    for seq in [4, 10] {
        let (db, url, _folder) = ten_rows(On::Sqlite).await;
        let rows = store::audit::list_after(&db, GYM, seq - 1, 1)
            .await
            .unwrap();
        let mut row = rows.into_iter().next().unwrap();
        row.entry = row.entry.replace("granted", "revoked");
        let hash = kisi_sync::audit::chain::hash(&row);
        let act = format!(
            "update audit set entry = '{}', hash = '{hash}' where seq = {seq}",
            row.entry
        );
        db.execute_unprepared(&act).await.unwrap();
        let said = format!("gym iron: row {seq} was changed");
        assert_eq!(verdict(&url).await, (false, said));
    }
}

async fn thirteen_months_are_kept_and_what_is_left_can_be_verified(on: On) {
    let (db, url, _folder) = ten_rows(on).await;
    // 1971-02-05 less 13 months is 1970-01-05: rows of days 1 to 3 are older.
    let now = 400 * DAY;
    assert_eq!(prune(&db, GYM, now).await.unwrap(), 3);
    let rows = store::audit::list_after(&db, GYM, 0, 100).await.unwrap();
    let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
    assert_eq!(seqs, [4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(prune(&db, GYM, now).await.unwrap(), 0);
    let (whole, said) = verdict(&url).await;
    assert!(whole, "{said}");
    assert!(said.contains("rows 4 to 11 are whole"), "{said}");
    // Removed by hand after that: no checkpoint says so.
    db.execute_unprepared("delete from audit where seq = 4")
        .await
        .unwrap();
    let said = "gym iron: row 4 is missing".to_owned();
    assert_eq!(verdict(&url).await, (false, said));
    // Everything may be too old at once.
    let (db, url, _folder) = ten_rows(on).await;
    assert_eq!(prune(&db, GYM, 1_000 * DAY).await.unwrap(), 10);
    assert!(verdict(&url).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn thirteen_months_are_kept_and_what_is_left_can_be_verified_on_sqlite() {
    thirteen_months_are_kept_and_what_is_left_can_be_verified(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thirteen_months_are_kept_and_what_is_left_can_be_verified_on_postgres() {
    thirteen_months_are_kept_and_what_is_left_can_be_verified(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_at_once_leave_no_gap() {
    let (db, url, _folder) = ten_rows(On::Postgres).await;
    let mut writers = Vec::new();
    for i in 0..8 {
        let db = db.clone();
        writers.push(tokio::spawn(async move {
            for j in 0..5 {
                write(&db, Entry::new("revoked").about("m2").group(j), i * DAY).await;
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let (whole, said) = verdict(&url).await;
    assert!(whole && said.contains("rows 1 to 50 are whole"), "{said}");
}

/// Kisi gave a right, whoever asked died before the answer, and a hand took it away before anybody looked.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nobody_lived_to_hear_the_answer_of_is_in_the_log() {
    let stage = Stage::set(On::Postgres).await;
    let flags = [("kisi-request-timeout", "8s"), ("lease-ttl", "10s")];
    let mut replica = stage.spawn(&flags).await;
    stage.in_sync(&mut replica.running, 1).await;
    let silent = Fault::HangAfterApplying;
    stage
        .kisi
        .fail("POST", "/role_assignments", 1, silent)
        .await;
    stage.directory.decide(GYM, "m2", 1, &[PLAN]).await;
    testkit::eventually("the right is given", SOON, async || {
        stage.kisi.group_rows(GROUP).await.len() == 2
    })
    .await;
    stage.consumed().await;
    replica.kill().await;
    let user = stage.kisi.user_of("m2@example.com");
    let rows = stage.kisi.group_rows(GROUP).await;
    let given = rows.iter().find(|row| row["assignee_id"] == user);
    let given = given.and_then(|row| row["id"].as_i64()).unwrap();
    stage.kisi.remove_by_hand(given).await;
    stage.kisi.clear_faults();
    let replica = stage.spawn(&flags).await;
    let granted = |answer: &AccessApplied| answer.outcome == "granted";
    let told = stage.answer("m2", granted).await;
    assert_ne!(told.grants[0].assignment_id, given);
    let db = crate::brake::tables(&stage).await;
    let log = audit::list_of_member(&db, GYM, "m2", i64::MAX, 20).await;
    let log = log.unwrap().into_iter().rev();
    let log: Vec<Entry> = log
        .map(|row| serde_json::from_str(&row.entry).unwrap())
        .collect();
    let of_rights = log.iter().filter(|entry| entry.group == Some(GROUP));
    let told: Vec<&str> = of_rights.map(|entry| entry.action.as_str()).collect();
    assert_eq!(told, ["unanswered", "granted"]);
    replica.kill().await;
}
