//! What nobody could find out about Kisi: each answer is survived.

use contracts::access::v1::AccessApplied;
use contracts::integration::v1 as api;
use contracts::wire;
use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kisi_simulator::settings::{DuplicateAssignment, DuplicateUser, ExpiredListing};
use serde_json::Value;

use crate::harness::{GYM, On, PLAN, SOON, Stage};
use crate::kisi::{ELSEWHERE, GROUP};

async fn a_duplicate_that_no_search_finds_at_first_is_no_second_user(answer: DuplicateUser) {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.set(|settings| {
        settings.duplicate_users = answer;
        settings.email_lag_ms = 1_500;
    });
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    // Made a moment ago, by somebody else, and in another case.
    stage.kisi.add_by_hand("New@Example.com", ELSEWHERE).await;
    let mut person = stage.directory.put(GYM, "m2", 1, &[PLAN]);
    person.email = "new@example.com".to_owned();
    stage.directory.insert(person.clone());
    stage.directory.publish(&person.state.unwrap()).await;
    let told = stage.answer("m2", |answer| answer.version == 1).await;
    assert_eq!(told.outcome, "granted", "{told:?}");
    assert!(!told.kisi_user_ours);
    let emails = stage.kisi.emails_of_users();
    let same = emails
        .iter()
        .filter(|e| e.eq_ignore_ascii_case("new@example.com"));
    assert_eq!(same.count(), 1, "{emails:?}");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_that_no_search_finds_at_first_is_no_second_user_where_it_is_409() {
    a_duplicate_that_no_search_finds_at_first_is_no_second_user(DuplicateUser::Conflict).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_that_no_search_finds_at_first_is_no_second_user_where_it_is_422() {
    a_duplicate_that_no_search_finds_at_first_is_no_second_user(DuplicateUser::Unprocessable).await;
}

/// Kisi refuses a second user of the e-mail, and its filter finds the first one only as it is spelled
/// there: somebody who has been a member for long is not kept out by that.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_whose_e_mail_is_held_in_another_case_is_found_where_the_filter_minds_it() {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.set(|settings| settings.email_by_case = true);
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let known = stage.kisi.add_user_by_hand("New@Example.com").await;
    // Found by the free text too, and nobody to be let in for her.
    stage.kisi.add_user_by_hand("renew@example.com").await;
    let mut person = stage.directory.put(GYM, "m2", 1, &[PLAN]);
    person.email = "new@example.com".to_owned();
    stage.directory.insert(person.clone());
    stage.directory.publish(&person.state.unwrap()).await;
    let told = stage.answer("m2", |answer| answer.version == 1).await;
    assert_eq!(told.outcome, "granted", "{told:?}");
    assert_eq!(
        (told.kisi_user_id, told.kisi_user_ours),
        (Some(known), false)
    );
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

async fn a_right_past_its_end_is_in_sync(listing: ExpiredListing) {
    let stage = Stage::set(On::Sqlite).await;
    stage
        .kisi
        .set(|settings| settings.expired_listing = listing);
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let end = now.checked_add(SignedDuration::from_secs(4)).unwrap();
    let mut state = stage.directory.put(GYM, "m1", 2, &[PLAN]).state.unwrap();
    state.plans[0].valid_until = Some(wire::timestamp(end));
    let mut person = stage.directory.get(GYM, "m1");
    person.state = Some(state.clone());
    stage.directory.insert(person);
    stage.directory.publish(&state).await;
    let told = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(told.grants[0].valid_until, Some(wire::timestamp(end)));
    testkit::eventually("the end has passed", SOON, async || Timestamp::now() > end).await;

    // Membership-events has not said so yet: nothing is given again, and nothing is missing. What is
    // listed still may be tidied up.
    stage.kisi.forget_requests().await;
    for _ in 0..2 {
        let sync = replica.sync().await;
        assert_eq!(
            (sync.state.as_str(), sync.in_sync),
            ("done", true),
            "{sync:?}"
        );
    }
    let mut writes = stage.kisi.writes().await;
    let ended = told.grants[0].assignment_id;
    writes.retain(|write| *write != format!("DELETE /role_assignments/{ended}"));
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!(replica.integration().await.state, "active");

    // Then it has, and then she comes back.
    stage.directory.decide(GYM, "m1", 3, &[]).await;
    let closed = stage.answer("m1", |answer| answer.version == 3).await;
    assert!(
        closed.grants.is_empty() && closed.failure.is_none(),
        "{closed:?}"
    );
    stage.directory.decide(GYM, "m1", 4, &[PLAN]).await;
    let open = stage.answer("m1", |answer| answer.version == 4).await;
    assert_eq!((open.outcome.as_str(), open.grants.len()), ("granted", 1));
    let rows = stage.kisi.group_rows(GROUP).await;
    let lasting = rows.iter().filter(|row| row["valid_until"].is_null());
    assert_eq!(lasting.count(), 2, "{rows:?}");
    assert!(replica.sync().await.in_sync);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_past_its_end_is_in_sync_where_it_stays_listed() {
    a_right_past_its_end_is_in_sync(ExpiredListing::Stays).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_past_its_end_is_in_sync_where_it_is_deleted() {
    a_right_past_its_end_is_in_sync(ExpiredListing::Deleted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_past_its_end_is_in_sync_where_it_is_hidden() {
    a_right_past_its_end_is_in_sync(ExpiredListing::Hidden).await;
}

/// The member's plan ends at this instant.
async fn decide_until(stage: &Stage, member: &str, version: i64, end: Timestamp) {
    let mut person = stage.directory.put(GYM, member, version, &[PLAN]);
    let state = person.state.as_mut().unwrap();
    state.plans[0].valid_until = Some(wire::timestamp(end));
    stage.directory.insert(person.clone());
    stage.directory.publish(&person.state.unwrap()).await;
}

/// She renews before anybody said that her pass had ended: the row that ended is in the way of another,
/// whether Kisi shows it or not.
async fn who_renews_after_the_end_is_let_in(listing: ExpiredListing) {
    let stage = Stage::set(On::Sqlite).await;
    stage
        .kisi
        .set(|settings| settings.expired_listing = listing);
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 13).await;
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let end = now.checked_add(SignedDuration::from_secs(4)).unwrap();
    // More of them than a listing may lack by accident.
    for i in 1..=12 {
        decide_until(&stage, &format!("m{i}"), 2, end).await;
    }
    for i in 1..=12 {
        let member = format!("m{i}");
        stage.answer(&member, |answer| answer.version == 2).await;
    }
    testkit::eventually("the end has passed", SOON, async || Timestamp::now() > end).await;
    let sync = replica.sync().await;
    assert_eq!(
        (sync.state.as_str(), sync.in_sync),
        ("done", true),
        "{sync:?}"
    );
    stage.kisi.forget_requests().await;
    stage.directory.decide(GYM, "m1", 3, &[PLAN]).await;
    let open = stage.answer("m1", |answer| answer.version == 3).await;
    assert_eq!(open.outcome, "granted", "{open:?}");
    assert_eq!((open.failure.as_deref(), open.grants.len()), (None, 1));
    assert_eq!(open.grants[0].valid_until, None);
    let writes = stage.kisi.writes().await;
    assert_eq!(writes.last().unwrap(), "POST /role_assignments");
    assert!(writes.len() <= 2, "{writes:?}");
    let user = stage.kisi.user_of("m1@example.com");
    let rows = stage.kisi.group_rows(GROUP).await;
    let hers = rows
        .iter()
        .filter(|row| row["assignee_id"].as_i64() == Some(user));
    assert_eq!(hers.count(), 1, "{rows:?}");
    assert!(replica.sync().await.in_sync);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_renews_after_the_end_is_let_in_where_it_stays_listed() {
    who_renews_after_the_end_is_let_in(ExpiredListing::Stays).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_renews_after_the_end_is_let_in_where_it_is_hidden() {
    who_renews_after_the_end_is_let_in(ExpiredListing::Hidden).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_renews_after_the_end_is_let_in_where_it_is_deleted() {
    who_renews_after_the_end_is_let_in(ExpiredListing::Deleted).await;
}

/// Somebody puts an end on a right of ours in Kisi's pages, and Kisi hides it: it is neither listed nor
/// found, and a second one is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_of_ours_that_was_ended_by_hand_and_is_hidden_makes_room_for_another() {
    let stage = Stage::set(On::Sqlite).await;
    stage
        .kisi
        .set(|settings| settings.expired_listing = ExpiredListing::Hidden);
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let told = stage.answer("m1", |answer| answer.version == 1).await;
    let ended = told.grants[0].assignment_id;
    let past = "2020-01-01T00:00:00Z";
    stage.kisi.set_window_by_hand(ended, past).await;
    let sync = replica.sync().await;
    assert_eq!((sync.state.as_str(), sync.in_sync), ("done", true));
    assert_eq!(sync.report.unwrap().granted, 1);
    let told = stage
        .answer("m1", |answer| answer.applied_seq > told.applied_seq)
        .await;
    assert_eq!((told.outcome.as_str(), told.grants.len()), ("granted", 1));
    let writes = stage.kisi.writes().await;
    let (post, delete) = (
        "POST /role_assignments".to_owned(),
        format!("DELETE /role_assignments/{ended}"),
    );
    assert_eq!(writes, [post.clone(), delete, post]);
    let rows = stage.kisi.group_rows(GROUP).await;
    assert!(rows.iter().all(|row| row["valid_until"].is_null()));
    assert_eq!(rows.len(), 2, "{rows:?}");
    replica.stop().await;
}

/// A right that somebody gave by hand after the member was looked at is found when Kisi refuses a
/// second one.
async fn a_right_that_is_there_already_is_found(
    policy: &str,
    refusal: DuplicateAssignment,
    ends: Option<&str>,
) -> (AccessApplied, Vec<Value>) {
    let stage = Stage::set(On::Sqlite).await;
    stage
        .kisi
        .set(|settings| settings.duplicate_assignments = refusal);
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let request = api::SetPoliciesRequest {
        gym_id: GYM.to_owned(),
        policies: Some(api::Policies {
            unmanaged: policy.to_owned(),
            member_resume: "request".to_owned(),
            user_mode: "managed".to_owned(),
        }),
    };
    replica.client.set_policies(request).await.unwrap();
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |answer| answer.version == 2).await;
    let by = stage.kisi.user_of("second@example.com");
    let change = serde_json::json!({
        "action": "add_assignment", "group_id": GROUP, "email": "m1@example.com", "by": by,
        "valid_until": ends,
    });
    stage.kisi.by_hand(change).await;
    stage.kisi.forget_requests().await;
    let mut told = stage.answers("m1").await;
    stage.directory.decide(GYM, "m1", 3, &[PLAN]).await;
    let answer = tokio::time::timeout(SOON, told.next())
        .await
        .unwrap()
        .unwrap();
    // One outcome, and no more of it.
    assert_eq!(answer.version, 3);
    stage.consumed().await;
    let rows = stage.kisi.group_rows(GROUP).await;
    let user = stage.kisi.user_of("m1@example.com");
    let hers = rows
        .into_iter()
        .filter(|row| row["assignee_id"].as_i64() == Some(user))
        .collect();
    let sync = replica.sync().await;
    assert_eq!(sync.in_sync, answer.failure.is_none(), "{sync:?}");
    let newest = stage.answer("m1", |_| true).await;
    assert_eq!(newest.failure, answer.failure);
    assert_eq!(newest.grants, answer.grants);
    replica.stop().await;
    (answer, hers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_there_already_is_adopted_where_the_gym_wants_that() {
    for refusal in [
        DuplicateAssignment::Conflict,
        DuplicateAssignment::Unprocessable,
    ] {
        let (told, rows) = a_right_that_is_there_already_is_found("adopt", refusal, None).await;
        assert_eq!(told.failure, None, "{told:?}");
        assert_ne!(told.outcome, "failed");
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(
            Some(told.grants[0].assignment_id),
            rows[0]["id"].as_i64(),
            "{told:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_there_already_is_left_and_shown_where_the_gym_wants_that() {
    let conflict = DuplicateAssignment::Conflict;
    let (told, rows) = a_right_that_is_there_already_is_found("leave", conflict, None).await;
    assert_eq!(
        (told.outcome.as_str(), told.failure.as_deref()),
        ("unchanged", None)
    );
    assert_eq!(told.groups_opened_by_others, [GROUP]);
    assert!(told.grants.is_empty() && rows.len() == 1);
}

/// It opens nothing, it is not ours to change, and Kisi takes no other: that is said.
#[tokio::test(flavor = "multi_thread")]
async fn an_ended_right_of_others_that_keeps_ours_from_being_given_is_not_called_open() {
    let (conflict, past) = (DuplicateAssignment::Conflict, Some("2020-01-01T00:00:00Z"));
    let (told, rows) = a_right_that_is_there_already_is_found("leave", conflict, past).await;
    assert_eq!(
        (told.outcome.as_str(), told.failure.as_deref()),
        ("failed", Some("kisi_refused"))
    );
    assert_eq!(told.groups_missing, [GROUP]);
    assert!(told.groups_opened_by_others.is_empty() && rows.len() == 1);
}

/// All have one name, by which Kisi sorts: each request has another order, and what one page lacks
/// another repeats.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_changes_with_each_page_removes_nobody_and_gives_nothing_twice() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage
        .start_with(&[("kisi-requests-per-second", "2000")])
        .await;
    for i in 1..=260 {
        let member = format!("m{i}");
        let mut person = stage.directory.put(GYM, &member, 1, &[PLAN]);
        person.name = "One Name".to_owned();
        stage.directory.insert(person.clone());
        stage.directory.publish(&person.state.unwrap()).await;
    }
    stage.consumed().await;
    stage.set_up(&mut replica).await;
    assert_eq!(replica.sync().await.report.unwrap().granted, 260);
    stage.kisi.set(|settings| settings.unstable_order = true);
    stage.kisi.forget_requests().await;
    for _ in 0..3 {
        let sync = replica.sync().await;
        assert_eq!(sync.state, "done", "{sync:?}");
        let report = sync.report.unwrap();
        assert_eq!((report.granted, report.revoked), (0, 0), "{report:?}");
    }
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    // A single change goes on as ever.
    let mut person = stage.directory.get(GYM, "m7");
    let state = person.state.as_mut().unwrap();
    (state.version, state.allowed) = (2, false);
    state.plans.clear();
    stage.directory.insert(person.clone());
    stage.directory.publish(&person.state.unwrap()).await;
    let closed = stage.answer("m7", |answer| answer.version == 2).await;
    assert_eq!(closed.outcome, "revoked");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 259);
    stage.kisi.set(|settings| settings.unstable_order = false);
    let sync = replica.sync().await;
    assert_eq!((sync.state.as_str(), sync.in_sync), ("done", true));
    assert_eq!(replica.integration().await.state, "active");
    replica.stop().await;
}
