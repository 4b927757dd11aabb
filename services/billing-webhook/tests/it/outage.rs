//! NATS away, and a stop in the middle: nothing that got a 2xx is lost.

use std::time::Duration;

use testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{DEADLINE, Harness, SECRET, fixture, now, signed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_a_webhook_is_refused_for_now_and_accepted_on_retry() {
    let mut harness = Harness::start_with(|config| {
        config.publish_timeout = Duration::from_millis(500);
    })
    .await;
    let body = fixture("stripe/a1_old_invoice.payment_failed.json");
    harness.nats.stop().await.expect("stopped");
    let answer = harness.post_signed(SECRET, &body).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));

    harness.nats.restart().await.expect("restarted");
    eventually("the retry is accepted", DEADLINE, async || {
        harness.post_signed(SECRET, &body).await.status() == 200
    })
    .await;
    assert_eq!(harness.billing().await.len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_an_open_post_finish() {
    let harness = Harness::start_with(|config| config.max_in_flight = 1).await;
    let body = fixture("stripe/a1_old_invoice.payment_failed.json");
    let (first, rest) = body.split_at(body.len() / 2);
    let head = format!(
        "POST /webhooks/stripe/main HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         stripe-signature: {}\r\ncontent-length: {}\r\n\r\n",
        signed(SECRET, &body, now()),
        body.len()
    );
    let mut post = TcpStream::connect(harness.address)
        .await
        .expect("a connection");
    post.write_all(head.as_bytes()).await.expect("the head");
    post.write_all(first).await.expect("half of the body");
    eventually("the post is under way", DEADLINE, async || {
        harness.post_signed(SECRET, &body).await.status() == 503
    })
    .await;
    harness.shutdown.cancel();
    eventually("the stop is under way", DEADLINE, async || {
        matches!(harness.http.get(format!("http://{}/readyz", harness.health)).send().await, Ok(answer) if answer.status() == 503)
    })
    .await;
    post.write_all(rest).await.expect("the rest");
    let mut answer = vec![0; 64];
    let read = tokio::time::timeout(DEADLINE, post.read(&mut answer))
        .await
        .expect("in time");
    let text = String::from_utf8_lossy(&answer[..read.expect("an answer")]).into_owned();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(harness.billing().await.len(), 1);
    harness.stop().await;
}
