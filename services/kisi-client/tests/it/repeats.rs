//! Lost answers, refusals and failures: what is sent again, and what never is.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kisi_client::{Deletion, KisiError, KisiRead, KisiWrite, Lane};
use serde_json::json;
use tokio::net::TcpListener;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::scripted::{answering, client, grant, losing_answers, requests};

#[tokio::test]
async fn a_lost_answer_to_a_write_is_an_unknown_outcome_and_is_not_sent_again() {
    let (url, came) = losing_answers(usize::MAX).await;
    let error = client(&url)
        .create_role_assignment(Lane::Grant.into(), &grant())
        .await
        .expect_err("no whole answer");
    assert!(
        error.is_outcome_unknown() && error.is_transient(),
        "{error:?}"
    );
    assert_eq!(came.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_lost_answer_to_a_read_is_read_again() {
    let (url, came) = losing_answers(1).await;
    let found = client(&url)
        .find_role_assignment(Lane::Reconcile, 900_001)
        .await
        .expect("the second answer");
    assert_eq!(found.map(|row| row.id), Some(900_001));
    assert_eq!(came.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_server_that_is_not_there_has_certainly_applied_nothing() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let error = client(&url)
        .create_role_assignment(Lane::Grant.into(), &grant())
        .await
        .expect_err("nobody listens");
    assert!(
        error.is_transient() && !error.is_outcome_unknown(),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_an_unknown_outcome() {
    let late = ResponseTemplate::new(204).set_delay(Duration::from_secs(30));
    let (_server, kisi) = answering("DELETE", "/role_assignments/1", late).await;
    let error = kisi
        .delete_role_assignment(Lane::Revoke.into(), 1)
        .await
        .expect_err("too late");
    assert!(error.is_outcome_unknown(), "{error:?}");
}

#[tokio::test]
async fn a_refused_write_is_sent_again_after_the_time_that_kisi_named() {
    let server = MockServer::start().await;
    Mock::given(method("DELETE"))
        .respond_with(ResponseTemplate::new(429).insert_header("retry-after", "1"))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    Mock::given(method("DELETE"))
        .respond_with(ResponseTemplate::new(204))
        .mount(&server)
        .await;
    let began = Instant::now();
    let deletion = client(&server.uri())
        .delete_role_assignment(Lane::Revoke.into(), 1)
        .await
        .expect("accepted the second time");
    assert_eq!(deletion, Deletion::Deleted);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(requests(&server).await.len(), 2);
}

#[tokio::test]
async fn a_write_in_a_held_turn_comes_back_refused_and_the_pacer_pauses() {
    let refusal = ResponseTemplate::new(429)
        .insert_header("retry-after", "40")
        .set_body_string("<html>Too many</html>");
    let (server, kisi) = answering("DELETE", "/role_assignments/1", refusal).await;
    let turn = kisi.pacer().turn(Lane::Revoke).await;
    let error = kisi
        .delete_role_assignment(turn.into(), 1)
        .await
        .expect_err("429");
    let forty = Duration::from_secs(40);
    assert!(
        matches!(error, KisiError::RateLimited { retry_after: Some(wait), .. } if wait == forty)
    );
    assert!(!error.is_outcome_unknown());
    assert_eq!(requests(&server).await.len(), 1);
    assert!(kisi.pacer().expected_wait(Lane::Revoke) > Duration::from_secs(30));
}

#[tokio::test]
async fn a_failing_kisi_is_read_again_but_never_written_again() {
    let gateway = || ResponseTemplate::new(502).set_body_string("<html>Bad Gateway</html>");
    let (server, kisi) = answering("GET", "/login", gateway()).await;
    let error = kisi.current_login(Lane::SetUp).await.expect_err("502");
    assert_eq!((error.status(), error.code()), (Some(502), None));
    assert_eq!(requests(&server).await.len(), 3);

    let (server, kisi) = answering("DELETE", "/users/5001", gateway()).await;
    let error = kisi
        .delete_user(Lane::Reconcile.into(), 5001)
        .await
        .expect_err("502");
    assert!(error.is_outcome_unknown());
    assert_eq!(requests(&server).await.len(), 1);
}

#[tokio::test]
async fn a_refusal_is_not_hammered_and_not_followed_elsewhere() {
    for status in [400, 401, 403, 409, 422, 301] {
        let answer = ResponseTemplate::new(status).insert_header("location", "/login?again");
        let (server, kisi) = answering("GET", "/login", answer).await;
        let error = kisi.current_login(Lane::SetUp).await.expect_err("refused");
        assert_eq!(error.status(), Some(status));
        assert_eq!(error.is_key_dead(), matches!(status, 401 | 403));
        assert_eq!(requests(&server).await.len(), 1, "{status}");
    }
}

#[tokio::test]
async fn what_is_gone_is_a_value() {
    let gone = || {
        ResponseTemplate::new(404).set_body_json(json!({"code": "000404", "error": "Not found."}))
    };
    let (_server, kisi) = answering("GET", "/users/5001", gone()).await;
    assert_eq!(
        kisi.find_user(Lane::SetUp, 5001).await.expect("an answer"),
        None
    );
    let (_server, kisi) = answering("DELETE", "/role_assignments/1", gone()).await;
    let deletion = kisi.delete_role_assignment(Lane::Revoke.into(), 1).await;
    assert_eq!(deletion.expect("an answer"), Deletion::AlreadyGone);
    let (_server, kisi) = answering("POST", "/role_assignments", gone()).await;
    let error = kisi
        .create_role_assignment(Lane::Grant.into(), &grant())
        .await
        .expect_err("no such user");
    assert!(error.is_not_found() && !error.is_outcome_unknown());
}
