//! Kisi answers, and fails for long at what changes something; or it does not answer at all when a worker
//! begins.

use std::time::{Duration, Instant};

use crate::harness::{GYM, On, PLAN, Running, SOON, Stage};
use crate::kisi::{Fault, GROUP};

/// For as long as the test lasts.
const ALWAYS: u64 = 1_000_000;
const FAILS: Fault = Fault::Status(500);
const REVOKE: &str = "/role_assignments/{id}";

async fn asked(stage: &Stage, request: &str) -> usize {
    let requests = stage.kisi.requests().await;
    let asked = requests.iter().filter(|sent| sent.starts_with(request));
    asked.count()
}

async fn is_shown(replica: &mut Running, what: &str) -> bool {
    let attention = replica.integration().await.attention;
    attention.iter().any(|matter| matter.what == what)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_revokes_that_kisi_fails_keep_nobody_at_a_door_waiting() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 20).await;
    stage.kisi.fail("DELETE", REVOKE, ALWAYS, FAILS).await;
    for i in 1..=20 {
        stage.directory.decide(GYM, &format!("m{i}"), 2, &[]).await;
    }
    stage.answer("m1", |told| told.version == 2).await;
    stage.directory.decide(GYM, "n1", 1, &[PLAN]).await;
    let told = stage.answer("n1", |told| told.version == 1).await;
    assert_eq!(told.outcome, "granted");
    stage.kisi.clear_faults();
    for i in 1..=20 {
        let member = format!("m{i}");
        stage
            .answer(&member, |told| told.outcome == "revoked")
            .await;
    }
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}

/// Reads go well all the while.
#[tokio::test(flavor = "multi_thread")]
async fn what_kisi_fails_to_write_is_tried_again_alone_and_drains_when_it_does_not() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 6).await;
    let began = Instant::now();
    stage.kisi.fail("DELETE", REVOKE, ALWAYS, FAILS).await;
    for route in ["/role_assignments", "/users"] {
        stage.kisi.fail("POST", route, ALWAYS, FAILS).await;
    }
    for i in 1..=4 {
        let (member, new) = (format!("m{i}"), format!("n{i}"));
        stage.directory.decide(GYM, &member, 2, &[]).await;
        stage.directory.decide(GYM, &new, 1, &[PLAN]).await;
    }
    let is_told = async |member: &str, version: i64| {
        let told = stage.answer(member, |told| told.version == version).await;
        assert_eq!(told.failure.as_deref(), Some("kisi_unreachable"));
    };
    for i in 1..=4 {
        is_told(&format!("m{i}"), 2).await;
        is_told(&format!("n{i}"), 1).await;
    }
    // A revoke that comes then is tried at once.
    stage.directory.decide(GYM, "m5", 2, &[]).await;
    let (soon, version) = (Duration::from_secs(5), 2);
    let tried = stage.answer_within(soon, "m5", |told| told.version == version);
    assert_eq!(tried.await.failure.as_deref(), Some("kisi_unreachable"));
    // One answer tells them all that it is no outage.
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    let logins = asked(&stage, "GET /login").await;
    assert!(
        (1..=seconds + 2).contains(&logins),
        "{logins} in {seconds} s"
    );

    stage.kisi.clear_faults();
    for i in 1..=5 {
        let member = format!("m{i}");
        stage
            .answer(&member, |told| told.outcome == "revoked")
            .await;
    }
    for i in 1..=4 {
        let member = format!("n{i}");
        stage
            .answer(&member, |told| told.outcome == "granted")
            .await;
    }
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 5);
    assert!(!is_shown(&mut replica, "kisi_unreachable").await);
    replica.stop().await;
}

/// No answer to the question whether Kisi answers keeps a right for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_kisi_that_does_not_say_whose_the_key_is_answers_all_the_same() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let refused = Fault::Status(403);
    stage.kisi.fail("GET", "/login", ALWAYS, refused).await;
    stage.kisi.fail("DELETE", REVOKE, 3, FAILS).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |told| told.outcome == "revoked").await;
    assert!(asked(&stage, "GET /login").await > 0);
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

/// Kisi fails at one member, and at the question whether it answers; it does everything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_kisi_fails_for_good_keeps_nobody_at_a_door_waiting() {
    let stage = Stage::set(On::Sqlite).await;
    let replica = in_which_one_fails(&stage).await;
    stage.kisi.fail("GET", "/login", ALWAYS, FAILS).await;
    let before = asked(&stage, "POST /users").await;
    testkit::eventually("she is tried all the same", SOON, async || {
        asked(&stage, "POST /users").await > before
    })
    .await;
    let soon = Duration::from_secs(5);
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.directory.decide(GYM, "m2", 3, &[PLAN]).await;
    for (member, outcome) in [("m1", "revoked"), ("m2", "granted")] {
        let told = stage.answer_within(soon, member, |told| told.outcome == outcome);
        told.await;
    }
    replica.stop().await;
}

/// Kisi makes no user, so that one member fails for good; another has none of her rights any more.
async fn in_which_one_fails(stage: &Stage) -> Running {
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 4).await;
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    stage.answer("m2", |told| told.version == 2).await;
    stage.kisi.fail("POST", "/users", ALWAYS, FAILS).await;
    stage.directory.decide(GYM, "n1", 1, &[PLAN]).await;
    // From the fifth on she is tried at distances of four seconds and more.
    testkit::eventually("she fails again and again", SOON, async || {
        asked(stage, "POST /users").await >= 5
    })
    .await;
    replica
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_is_one_request_while_kisi_fails_at_somebody_else() {
    let stage = Stage::set(On::Sqlite).await;
    let replica = in_which_one_fails(&stage).await;
    let last = Instant::now();
    testkit::eventually("no answer holds any more", SOON, async || {
        last.elapsed() > Duration::from_millis(1_200)
    })
    .await;
    stage.kisi.forget_requests().await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |told| told.outcome == "revoked").await;
    let requests = stage.kisi.requests().await;
    let is_one = requests.len() == 1 && requests[0].starts_with("DELETE /role_assignments/");
    assert!(is_one, "{requests:?}");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_lasts_already_when_a_worker_begins_is_shown_until_it_ends() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    replica.stop().await;
    for (method, route) in [("DELETE", REVOKE), ("GET", REVOKE), ("GET", "/login")] {
        stage.kisi.fail(method, route, ALWAYS, FAILS).await;
    }
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let flags = [("kisi-outage-shows-after", "2s")];
    let mut replica = stage.start_with(&flags).await;
    let began = Instant::now();
    testkit::eventually("the outage is shown", SOON, async || {
        is_shown(&mut replica, "kisi_unreachable").await
    })
    .await;
    assert!(began.elapsed() >= Duration::from_secs(1), "not at once");
    let shown = replica.integration().await.attention;
    assert_eq!((shown.len(), shown[0].who.as_str()), (1, "kisi"));
    stage.kisi.clear_faults();
    let told = stage.answer("m1", |told| told.version == 2 && told.grants.is_empty());
    assert_eq!(told.await.outcome, "revoked");
    testkit::eventually("it is shown no more", SOON, async || {
        !is_shown(&mut replica, "kisi_unreachable").await
    })
    .await;
    replica.stop().await;
}
