//! NATS away, and a stop in the middle: nothing that got a 2xx is lost.

use std::time::Duration;

use testkit::eventually;

use crate::harness::{DEADLINE, Harness, SECRET, fixture};

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
async fn a_stop_lets_open_posts_finish() {
    let harness = Harness::start().await;
    let text =
        String::from_utf8(fixture("stripe/a1_old_invoice.payment_failed.json")).expect("text");
    let bodies: Vec<_> = (0..32)
        .map(|n| {
            text.replace("evt_1QoldA1failed", &format!("evt_{n}"))
                .into_bytes()
        })
        .collect();
    let posts = bodies.iter().map(|body| harness.post_signed(SECRET, body));
    let stop = async {
        tokio::task::yield_now().await;
        harness.shutdown.cancel();
    };
    // Not yet connected ones may be refused; the harness's client then fails, so send them as raw
    // attempts and count only what was accepted.
    let attempts = posts.map(|post| async { post.await.status().as_u16() });
    let first = futures_util::future::join_all(attempts.take(8)).await;
    stop.await;
    let accepted = first.iter().filter(|status| **status == 200).count();
    assert_eq!(harness.billing().await.len(), accepted);
    assert_eq!(accepted, 8);
    harness.stop().await;
}
