//! Kisi refuses one thing that a member needs: the rest is done, what may be counted is, and what must
//! not be left for good is tried again.

use contracts::access::v1::EnrolDeviceRequest;
use contracts::integration::v1 as api;
use futures_util::StreamExt;
use sea_orm::{ConnectionTrait, DatabaseConnection};
use testkit::eventually;

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, Running, SOON, Stage};
use crate::kisi::{Fault, GATE_ONLY, GROUP, OTHER_GROUP};

pub(crate) const REFUSED: Fault = Fault::Status(409);
/// A request that is held back is not given up.
const PATIENT: &[(&str, &str)] = &[("kisi-request-timeout", "5s")];

pub(crate) async fn tables(stage: &Stage) -> DatabaseConnection {
    let url = secrecy::SecretString::from(stage.database_url());
    kisi_sync::store::connect(&url).await.unwrap()
}

/// How many rows the statement gives.
pub(crate) async fn rows(db: &DatabaseConnection, sql: &str) -> usize {
    let statement = sea_orm::Statement::from_string(db.get_database_backend(), sql.to_owned());
    db.query_all_raw(statement).await.unwrap().len()
}

fn renamed(stage: &Stage, member: &str, email: &str, name: &str) {
    let mut person = stage.directory.get(GYM, member);
    person.email = email.to_owned();
    person.name = name.to_owned();
    stage.directory.insert(person);
}

pub(crate) async fn look_at(replica: &mut Running, member: &str) {
    let request = api::SyncMemberRequest {
        gym_id: GYM.to_owned(),
        member_id: member.to_owned(),
    };
    replica.client.sync_member(request).await.unwrap();
}

pub(crate) async fn erase(stage: &Stage, member: &str, version: i64) {
    let mut person = stage.directory.put(GYM, member, version, &[]);
    person.erased = true;
    let mut state = person.state.clone().unwrap();
    state.erased = true;
    person.state = Some(state.clone());
    stage.directory.insert(person);
    stage.directory.publish(&state).await;
}

/// Her e-mail is one of Kisi's staff from now on, and her plan moves to another group.
async fn who_has_somebody_else_s_e_mail_loses_what_is_not_wanted(staff: &str) {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    renamed(&stage, "m1", staff, "Member m1");
    replica.sync().await;
    let conflict = Some("identity_conflict");
    stage
        .answer("m1", |told| told.failure.as_deref() == conflict)
        .await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    stage.directory.decide_as(GYM, "m1", 2, &[OTHER_PLAN]).await;
    let told = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(told.failure.as_deref(), conflict);
    assert_eq!(told.groups_missing, [OTHER_GROUP]);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    assert!(stage.kisi.group_rows(OTHER_GROUP).await.is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_owner_s_e_mail_loses_what_is_not_wanted() {
    who_has_somebody_else_s_e_mail_loses_what_is_not_wanted("owner@example.com").await;
}

/// Who is staff is only seen by the rights.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_an_administrator_s_e_mail_loses_what_is_not_wanted() {
    who_has_somebody_else_s_e_mail_loses_what_is_not_wanted("second@example.com").await;
}

/// Nor is what Kisi refused to take from her left, though a pass finds her no other user.
#[tokio::test(flavor = "multi_thread")]
async fn a_pass_takes_back_what_is_left_to_who_has_somebody_else_s_e_mail() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&[("reconcile-every", "2s")]).await;
    stage.in_sync(&mut replica, 2).await;
    renamed(&stage, "m1", "owner@example.com", "Member m1");
    replica.sync().await;
    let conflict = Some("identity_conflict");
    stage
        .answer("m1", |told| told.failure.as_deref() == conflict)
        .await;
    let route = "/role_assignments/{id}";
    stage.kisi.fail("DELETE", route, 1, REFUSED).await;
    stage.directory.decide_as(GYM, "m1", 2, &[OTHER_PLAN]).await;
    eventually("her former right is gone", SOON, async || {
        stage.kisi.group_rows(GROUP).await.len() == 1
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_kisi_refuses_keeps_nobody_out_and_nobody_in() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    stage
        .kisi
        .fail("PATCH", "/users/{id}", u64::MAX, REFUSED)
        .await;
    renamed(&stage, "m1", "m1@example.com", "Ada E. Example");
    replica.sync().await;
    let told = stage.answer("m1", |told| told.outcome == "failed").await;
    assert_eq!(told.grants.len(), 1);
    stage.directory.decide_as(GYM, "m1", 2, &[OTHER_PLAN]).await;
    let told = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(told.grants[0].group_id, OTHER_GROUP, "{told:?}");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    assert_eq!(stage.kisi.group_rows(OTHER_GROUP).await.len(), 1);
    // It follows as soon as Kisi takes it.
    stage.kisi.clear_faults();
    replica.sync().await;
    assert_eq!(stage.kisi.name_of("m1@example.com"), "Ada E. Example");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_that_kisi_refuses_keeps_no_other_from_going_out() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let both = [PLAN, OTHER_PLAN];
    stage.directory.decide(GYM, "m1", 2, &both).await;
    stage.answer("m1", |answer| answer.grants.len() == 2).await;
    let route = "/role_assignments/{id}";
    stage.kisi.fail("DELETE", route, 1, REFUSED).await;
    stage.directory.decide(GYM, "m1", 3, &[]).await;
    let told = stage.answer("m1", |answer| answer.version == 3).await;
    assert_eq!(told.failure.as_deref(), Some("kisi_refused"));
    assert_eq!(told.grants.len(), 1);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    assert!(stage.kisi.group_rows(OTHER_GROUP).await.is_empty());
    replica.sync().await;
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    replica.stop().await;
}

async fn an_erased_member_is_answered_though_kisi_refused_at_first(on: On) {
    let stage = Stage::set(on).await;
    // The user was there before, and stays: the logins are taken back.
    stage.kisi.add_by_hand("m1@example.com", GATE_ONLY).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    for model in ["One", "Two", "Three"] {
        let phone = EnrolDeviceRequest {
            gym_id: GYM.to_owned(),
            member_id: "m1".to_owned(),
            brand: "Fair".to_owned(),
            model: model.to_owned(),
            os_name: "Android".to_owned(),
        };
        replica.client.enrol_device(phone).await.unwrap();
    }
    assert_eq!(stage.kisi.logins("m1@example.com").len(), 3);
    stage.kisi.fail("DELETE", "/logins/{id}", 1, REFUSED).await;
    stage.kisi.fail("DELETE", "/users/{id}", 1, REFUSED).await;
    for member in ["m1", "m2"] {
        erase(&stage, member, 2).await;
        let told = stage.answer(member, |answer| answer.version == 2).await;
        assert_eq!(told.failure.as_deref(), Some("kisi_refused"), "{member}");
    }
    assert_eq!(stage.kisi.logins("m1@example.com").len(), 1);
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    stage.kisi.forget_requests().await;
    replica.sync().await;
    for member in ["m1", "m2"] {
        stage.answer(member, |told| told.outcome == "erased").await;
    }
    let emails = stage.kisi.emails_of_users();
    assert!(emails.contains(&"m1@example.com".to_owned()));
    assert!(!emails.contains(&"m2@example.com".to_owned()));
    let writes = stage.kisi.writes().await;
    assert_eq!(writes.len(), 2, "{writes:?}");
    assert!(stage.kisi.logins("m1@example.com").is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_member_is_answered_though_kisi_refused_at_first_on_sqlite() {
    an_erased_member_is_answered_though_kisi_refused_at_first(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_member_is_answered_though_kisi_refused_at_first_on_postgres() {
    an_erased_member_is_answered_though_kisi_refused_at_first(On::Postgres).await;
}

/// Staff removed the user, and Kisi answers 404 to what is asked about its rights.
#[tokio::test(flavor = "multi_thread")]
async fn an_erased_member_whose_user_is_gone_is_answered() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let user = stage.kisi.user_of("m1@example.com");
    let gone = serde_json::json!({ "action": "delete_user", "user_id": user });
    stage.kisi.by_hand(gone).await;
    let missing = Fault::Status(404);
    stage
        .kisi
        .fail("GET", "/role_assignments", u64::MAX, missing)
        .await;
    erase(&stage, "m1", 2).await;
    stage.answer("m1", |told| told.outcome == "erased").await;
    // Whoever is there stays until her rights can be told.
    erase(&stage, "m2", 2).await;
    stage
        .answer("m2", |told| told.failure.as_deref() == Some("kisi_refused"))
        .await;
    let m2 = "m2@example.com".to_owned();
    assert!(stage.kisi.emails_of_users().contains(&m2));
    stage.kisi.clear_faults();
    replica.sync().await;
    stage.answer("m2", |told| told.outcome == "erased").await;
    assert!(!stage.kisi.emails_of_users().contains(&m2));
    replica.stop().await;
}

/// The user of a new e-mail is not found for a moment; the former one's right is still ours to take.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_user_who_is_not_found_at_once_leaves_no_right_to_the_former_one() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let missing = Fault::Status(404);
    stage
        .kisi
        .fail("POST", "/role_assignments", 1, missing)
        .await;
    // The first asks whether the e-mail is still hers.
    stage
        .kisi
        .fail_after(1, "GET", "/users/{id}", 1, missing)
        .await;
    renamed(&stage, "m1", "new@example.com", "Member m1");
    look_at(&mut replica, "m1").await;
    let new = || {
        stage
            .kisi
            .emails_of_users()
            .contains(&"new@example.com".to_owned())
    };
    eventually("the new user is there", SOON, async || new()).await;
    let user = stage.kisi.user_of("new@example.com");
    let told = stage
        .answer("m1", |told| told.kisi_user_id == Some(user))
        .await;
    assert_eq!(told.grants.len(), 1, "{told:?}");
    let left = stage.kisi.group_rows(GROUP).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["assignee_id"].as_i64(), Some(user));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_that_has_to_wait_counts_once() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let route = "/role_assignments/{id}";
    let wait = Fault::Status(429);
    stage.kisi.fail("DELETE", route, 2, wait).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let told = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(told.outcome, "revoked");
    assert_eq!(told.timings.unwrap().requests, 3);
    let db = tables(&stage).await;
    assert_eq!(rows(&db, "select id from losses").await, 1);
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_e_mail_that_has_to_wait_moves_the_right() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let wait = Fault::Status(429);
    stage.kisi.fail("POST", "/users", 1, wait).await;
    renamed(&stage, "m1", "new@example.com", "Member m1");
    replica.sync().await;
    let told = stage
        .answer("m1", |told| !told.grants.is_empty() && told.version == 1)
        .await;
    let new = || stage.kisi.emails_of_users();
    assert!(new().contains(&"new@example.com".to_owned()), "{told:?}");
    let user = stage.kisi.user_of("new@example.com");
    let left = stage.kisi.group_rows(GROUP).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["assignee_id"].as_i64(), Some(user));
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

/// Told to wait and then refused, she is still who she was.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_e_mail_that_has_to_wait_and_is_refused_leaves_her_the_former_user() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    for fault in [429, 403].map(Fault::Status) {
        stage.kisi.fail("POST", "/users", 1, fault).await;
    }
    renamed(&stage, "m1", "new@example.com", "Member m1");
    replica.sync().await;
    let user = stage.kisi.user_of("m1@example.com");
    let told = stage.answer("m1", |told| told.outcome == "failed").await;
    assert_eq!((told.grants.len(), told.kisi_user_id), (1, Some(user)));
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

/// Staff removed the user of somebody who is to be let in, and Kisi refuses to list its rights.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_user_any_more_is_made_one_though_rights_cannot_be_listed() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let user = stage.kisi.user_of("m1@example.com");
    let gone = serde_json::json!({ "action": "delete_user", "user_id": user });
    stage.kisi.by_hand(gone).await;
    let missing = Fault::Status(404);
    stage
        .kisi
        .fail("GET", "/role_assignments", 1, missing)
        .await;
    look_at(&mut replica, "m1").await;
    let is_new = |row: &serde_json::Value| row["assignee_id"].as_i64() != Some(user);
    eventually("she is let in again", SOON, async || {
        stage.kisi.group_rows(GROUP).await.iter().any(is_new)
    })
    .await;
    replica.stop().await;
}

/// The last steps of an erasure are asked for again, and nobody is told that Kisi does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_has_to_wait_is_no_outage() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let wait = Fault::Status(429);
    stage.kisi.fail("DELETE", "/users/{id}", 2, wait).await;
    let mut answers = stage.answers("m1").await;
    erase(&stage, "m1", 2).await;
    let told = tokio::time::timeout(SOON, answers.next()).await;
    let told = told.unwrap().unwrap();
    assert_eq!((told.version, told.outcome.as_str()), (2, "erased"));
    let emails = stage.kisi.emails_of_users();
    assert!(!emails.contains(&"m1@example.com".to_owned()));
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_name_that_no_attempt_has_told_is_told_by_a_pass() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    renamed(&stage, "m1", "m1@example.com", "Ada E. Example");
    let db = tables(&stage).await;
    // As a pass marks her while an attempt ends that knows nothing of it.
    let changed = "update members set person_digest = 'changed' where member_id = 'm1'";
    db.execute_unprepared(changed).await.unwrap();
    replica.sync().await;
    assert_eq!(stage.kisi.name_of("m1@example.com"), "Ada E. Example");
    replica.stop().await;
}

/// Both plans' rights are taken by hand, the second while the first is given back.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_asked_for_during_another_is_made() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(PATIENT).await;
    stage.in_sync(&mut replica, 1).await;
    let both = [PLAN, OTHER_PLAN];
    stage.directory.decide(GYM, "m1", 2, &both).await;
    let told = stage.answer("m1", |answer| answer.grants.len() == 2).await;
    stage
        .kisi
        .fail("POST", "/role_assignments", 1, Fault::Wait)
        .await;
    for (nth, grant) in told.grants.iter().enumerate() {
        stage.kisi.remove_by_hand(grant.assignment_id).await;
        look_at(&mut replica, "m1").await;
        if nth == 0 {
            stage.kisi.one_is_held_back(0).await;
        }
    }
    stage.kisi.clear_faults();
    eventually("both rights are back", SOON, async || {
        let first = stage.kisi.group_rows(GROUP).await;
        first.len() + stage.kisi.group_rows(OTHER_GROUP).await.len() == 2
    })
    .await;
    replica.stop().await;
}

async fn a_mapping_made_during_an_attempt_counts_for_it(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start_with(PATIENT).await;
    stage.in_sync(&mut replica, 2).await;
    let told = stage.answer("m1", |_| true).await;
    stage.directory.decide(GYM, "m1", 2, &[PLAN, "pool"]).await;
    stage.answer("m1", |answer| answer.version == 2).await;
    stage
        .kisi
        .fail("POST", "/role_assignments", 1, Fault::Wait)
        .await;
    let right = told.grants[0].assignment_id;
    stage.kisi.remove_by_hand(right).await;
    look_at(&mut replica, "m1").await;
    stage.kisi.one_is_held_back(0).await;
    let with_pool = [
        (PLAN, GROUP),
        (OTHER_PLAN, OTHER_GROUP),
        ("pool", OTHER_GROUP),
    ];
    replica.associate(&with_pool).await.unwrap();
    let db = tables(&stage).await;
    // Its members are marked before it is kept that there are any.
    let marked =
        "select 1 from syncs where activation = 'associations' and report like '%members%'";
    eventually("the pass has marked her", SOON, async || {
        rows(&db, marked).await == 1
    })
    .await;
    stage.kisi.clear_faults();
    eventually("she is in the new group", SOON, async || {
        stage.kisi.group_rows(OTHER_GROUP).await.len() == 1
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_made_during_an_attempt_counts_for_it_on_sqlite() {
    a_mapping_made_during_an_attempt_counts_for_it(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_made_during_an_attempt_counts_for_it_on_postgres() {
    a_mapping_made_during_an_attempt_counts_for_it(On::Postgres).await;
}
