//! Requests that leave only while something holds, down to the socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kisi_client::{Deletion, HttpKisi, KisiError, KisiRead, KisiWrite, Lane, Turn};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use wiremock::ResponseTemplate;

use crate::scripted::{answering, assignment, client, grant, requests};

async fn turn(kisi: &HttpKisi) -> Turn {
    kisi.pacer().turn(Lane::Grant).await
}

/// Whether the error says that nothing was sent, and nothing else.
fn is_withheld(error: &KisiError) -> bool {
    matches!(error, KisiError::Withheld { .. })
        && !error.is_outcome_unknown()
        && !error.is_transient()
        && error.status().is_none()
}

#[tokio::test]
async fn not_a_byte_leaves_once_the_condition_is_over_and_the_next_request_does() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let kisi = client(&format!("http://{address}"));
    let received = tokio::spawn(async move {
        let mut of_each = Vec::new();
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut bytes = Vec::new();
            let _ = socket.read_to_end(&mut bytes).await;
            of_each.push(bytes.len());
        }
        of_each
    });
    let deleted = turn(&kisi).await.only_while(|| false);
    let error = kisi.delete_role_assignment(deleted.into(), 7).await;
    assert!(is_withheld(&error.expect_err("nothing is sent")));
    let granted = turn(&kisi).await.only_while(|| false);
    let error = kisi.create_role_assignment(granted.into(), &grant()).await;
    assert!(is_withheld(&error.expect_err("nothing is sent")));
    assert_eq!(received.await.expect("no panic"), [0, 0]);

    let (server, kisi) = answering("GET", "/login", ResponseTemplate::new(404)).await;
    let deleted = turn(&kisi).await.only_while(|| false);
    let error = kisi.delete_role_assignment(deleted.into(), 7).await;
    assert!(is_withheld(&error.expect_err("nothing is sent")));
    let answer = kisi.current_login(Lane::Grant).await;
    assert_eq!(answer.expect_err("nobody").status(), Some(404));
    assert_eq!(requests(&server).await.len(), 1);
}

/// A condition that holds so often, and a count of how often it was asked.
fn holding(times: usize) -> (impl Fn() -> bool + Send + Sync + 'static, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let holds = move || count.fetch_add(1, Ordering::SeqCst) < times;
    (holds, asked)
}

#[tokio::test]
async fn the_last_answer_before_the_write_is_the_one_that_counts() {
    let answer = ResponseTemplate::new(200).set_body_json(assignment(7));
    let (server, kisi) = answering("POST", "/role_assignments", answer).await;
    let (always, asked) = holding(usize::MAX);
    let granted = turn(&kisi).await.only_while(always);
    let made = kisi.create_role_assignment(granted.into(), &grant()).await;
    assert_eq!(made.expect("a row").id, 7);
    let (until_last, _) = holding(asked.load(Ordering::SeqCst) - 1);
    let granted = turn(&kisi).await.only_while(until_last);
    let error = kisi.create_role_assignment(granted.into(), &grant()).await;
    assert!(is_withheld(&error.expect_err("nothing is sent")));
    assert_eq!(requests(&server).await.len(), 1);

    let gone = ResponseTemplate::new(204);
    let (server, kisi) = answering("DELETE", "/role_assignments/7", gone).await;
    let (always, asked) = holding(usize::MAX);
    let deleted = turn(&kisi).await.only_while(always);
    let deleted = kisi.delete_role_assignment(deleted.into(), 7).await;
    assert_eq!(deleted.expect("204"), Deletion::Deleted);
    let (until_last, _) = holding(asked.load(Ordering::SeqCst) - 1);
    let deleted = turn(&kisi).await.only_while(until_last);
    let error = kisi.delete_role_assignment(deleted.into(), 7).await;
    assert!(is_withheld(&error.expect_err("nothing is sent")));
    assert_eq!(requests(&server).await.len(), 1);
}

#[tokio::test]
async fn what_may_leave_leaves_as_it_would_without_a_condition() {
    let answer = ResponseTemplate::new(200).set_body_json(assignment(7));
    let (server, kisi) = answering("POST", "/role_assignments", answer).await;
    let conditional = turn(&kisi).await.only_while(|| true);
    for slot in [conditional.into(), Lane::Grant.into()] {
        let made = kisi.create_role_assignment(slot, &grant()).await;
        assert_eq!(made.expect("a row").id, 7);
    }
    let sent = requests(&server).await;
    assert_eq!(sent[0].headers, sent[1].headers);
    assert_eq!(sent[0].body, sent[1].body);

    let gone = ResponseTemplate::new(204);
    let (server, kisi) = answering("DELETE", "/role_assignments/7", gone).await;
    let conditional = turn(&kisi).await.only_while(|| true);
    for slot in [conditional.into(), Lane::Grant.into()] {
        let deleted = kisi.delete_role_assignment(slot, 7).await;
        assert_eq!(deleted.expect("204"), Deletion::Deleted);
    }
    let sent = requests(&server).await;
    assert_eq!(sent[0].headers, sent[1].headers);
    assert_eq!(sent[0].body, sent[1].body);
}
