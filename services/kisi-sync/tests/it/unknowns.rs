//! What nobody could find out about Kisi: each answer is survived.

use contracts::wire;
use jiff::{SignedDuration, Timestamp};
use kisi_simulator::settings::{DuplicateUser, ExpiredListing};

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
        let report = replica.sync().await.report.unwrap();
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
