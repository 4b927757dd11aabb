//! NATS away, and a stop in the middle: nothing that got a 2xx is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use billing_webhook::intake::Intake;
use contracts::billing::v1::BillingEvent;
use contracts::subjects;
use event_bus::{Bus, NatsSettings};
use hmac::{Hmac, KeyInit, Mac};
use service_runtime::clock::{Clock, SystemClock};
use sha2::Sha256;
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
async fn a_start_without_nats_answers_for_now_and_accepts_when_nats_comes() {
    let mut harness = Harness::start_without_nats().await;
    let body = fixture("stripe/a1_old_invoice.payment_failed.json");
    eventually("it listens", DEADLINE, async || {
        TcpStream::connect(harness.address).await.is_ok()
    })
    .await;
    let answer = harness.post_signed(SECRET, &body).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    // What is wrong for good is told at once.
    assert_eq!(
        harness.post_signed("whsec_other", &body).await.status(),
        400
    );

    harness.nats.restart().await.expect("started");
    harness.until_ready().await;
    assert_eq!(harness.post_signed(SECRET, &body).await.status(), 200);
    assert_eq!(harness.billing().await.len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_half_published_in_groups_is_refused_and_safe_to_send_again() {
    const EVENTS: usize = 3_000;
    let mut harness = Harness::start().await;
    let settings = NatsSettings::for_testing(&harness.nats.url(), &harness.nats.monitor_url());
    let bus = Bus::connect(&settings, "test").await.expect("NATS");
    let publisher = bus.publisher().with_time_limit(Duration::from_secs(1));
    let intake = Intake::in_groups(publisher);
    let now = SystemClock.now();
    let mut cut_in_the_middle = false;
    for round in 0..10 {
        let events: Vec<_> = (0..EVENTS)
            .map(|n| event(&format!("{round}_{n}")))
            .collect();
        let before = stored(&bus).await;
        let publishing = {
            let (intake, events) = (intake.clone(), events.clone());
            tokio::spawn(async move { intake.publish(&events, now).await })
        };
        eventually("some are stored", DEADLINE, async || {
            stored(&bus).await > before
        })
        .await;
        harness.nats.kill().await.expect("killed");
        let first = publishing.await.expect("no panic");
        harness.nats.restart().await.expect("restarted");
        let half = stored(&bus).await - before;
        if half == EVENTS {
            // It was too quick for us.
            continue;
        }
        assert!(first.is_err(), "{half} of {EVENTS} stored and yet accepted");
        cut_in_the_middle = true;
        eventually("sent again, it is accepted", DEADLINE, async || {
            intake.publish(&events, now).await.is_ok()
        })
        .await;
        let ids: BTreeSet<_> = harness
            .billing()
            .await
            .into_iter()
            .map(|(_, event)| event["eventId"].as_str().expect("an id").to_owned())
            .collect();
        assert!(events.iter().all(|event| ids.contains(&event.event_id)));
        break;
    }
    assert!(cut_in_the_middle);
    harness.stop().await;
}

async fn stored(bus: &Bus) -> usize {
    loop {
        // It may be on its way up.
        if let Ok(mut stream) = bus.jetstream().get_stream(subjects::BILLING).await
            && let Ok(info) = stream.info().await
        {
            return usize::try_from(info.state.messages).expect("a size");
        }
    }
}

fn event(id: &str) -> BillingEvent {
    BillingEvent {
        event_id: format!("evt_{id}"),
        provider: "standard".into(),
        account: "acct_desk".into(),
        kind: "payment_failed".into(),
        invoice_id: Some(format!("in_{id}")),
        ..BillingEvent::default()
    }
}

const GC_SECRET: &str = "a_secret_of_gocardless";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_many_events_is_accepted_whole_or_not_at_all() {
    let mut harness = Harness::start_with(|config| {
        let text = format!(
            "endpoints:\n- {{ id: gym, provider: gocardless, account: OR1, secrets: [{GC_SECRET}] }}\n"
        );
        std::fs::write(&config.billing_endpoints_file, text).expect("endpoints");
        config.publish_timeout = Duration::from_secs(1);
        // In one batch they would mostly be stored together, or none.
        config.group_commit = false;
    })
    .await;
    let settings = NatsSettings::for_testing(&harness.nats.url(), &harness.nats.monitor_url());
    let bus = Bus::connect(&settings, "test").await.expect("NATS");
    for round in 0.. {
        assert!(round < 20, "it was never cut in the middle");
        let body = many_events(round);
        let before = stored(&bus).await;
        let post = post_gocardless(&harness, body.clone());
        let posting = tokio::spawn(post);
        eventually("some are stored", DEADLINE, async || {
            stored(&bus).await > before
        })
        .await;
        harness.nats.kill().await.expect("killed");
        let first = posting.await.expect("no panic");
        harness.nats.restart().await.expect("restarted");
        let half = stored(&bus).await - before;
        if half == MANY {
            // It was too quick for us.
            continue;
        }
        assert_eq!(first, 503, "{half} of {MANY} stored");
        eventually("sent again, it is accepted", DEADLINE, async || {
            post_gocardless(&harness, body.clone()).await == 204
        })
        .await;
        let kept = harness.billing().await;
        let of_this_body = |id: &&str| id.starts_with(&format!("EV{round}_"));
        let ids: Vec<_> = kept
            .iter()
            .filter_map(|(_, event)| event["eventId"].as_str())
            .filter(of_this_body)
            .collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), MANY);
        break;
    }
    harness.stop().await;
}

/// The most that GoCardless puts in one body.
const MANY: usize = 250;

fn many_events(round: usize) -> Vec<u8> {
    let events: Vec<_> = (0..MANY)
        .map(|n| {
            serde_json::json!({ "id": format!("EV{round}_{n}"),
                "created_at": "2026-10-08T13:30:10.004Z", "resource_type": "payments",
                "action": "failed", "links": { "payment": format!("PM{round}_{n}") },
                "details": { "origin": "bank", "cause": "refer_to_payer",
                    "will_attempt_retry": false } })
        })
        .collect();
    serde_json::json!({ "events": events })
        .to_string()
        .into_bytes()
}

fn post_gocardless(harness: &Harness, body: Vec<u8>) -> impl Future<Output = u16> + use<> {
    let mut mac = Hmac::<Sha256>::new_from_slice(GC_SECRET.as_bytes()).expect("a key");
    mac.update(&body);
    let post = harness
        .http
        .post(harness.url("/webhooks/gocardless/gym"))
        .header(
            "Webhook-Signature",
            hex::encode(mac.finalize().into_bytes()),
        )
        .body(body);
    async move { post.send().await.expect("an answer").status().as_u16() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_an_open_post_finish() {
    let harness = Harness::start().await;
    let body = fixture("stripe/a1_old_invoice.payment_failed.json");
    let (first, rest) = body.split_at(body.len() / 2);
    let mut post = open_post(&harness, &body).await;
    post.write_all(first).await.expect("half of the body");
    harness.shutdown.cancel();
    until_stopping(&harness).await;
    post.write_all(rest).await.expect("the rest");
    let text = answer(&mut post).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(harness.billing().await.len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_a_body_that_does_not_come() {
    let harness = Harness::start_with(|config| {
        config.read_timeout = Duration::from_secs(3600);
        config.lifecycle.drain_time = Duration::from_millis(500);
    })
    .await;
    let body = fixture("stripe/a1_old_invoice.payment_failed.json");
    let mut post = open_post(&harness, &body).await;
    harness.shutdown.cancel();
    until_stopping(&harness).await;
    let text = answer(&mut post).await;
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    assert!(text.contains("retry-after"), "{text}");
    harness.stop().await;
}

/// A post whose head is read and whose body is waited for.
async fn open_post(harness: &Harness, body: &[u8]) -> TcpStream {
    let head = format!(
        "POST /webhooks/stripe/main HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         stripe-signature: {}\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        signed(SECRET, body, now()),
        body.len()
    );
    let mut post = TcpStream::connect(harness.address)
        .await
        .expect("a connection");
    post.write_all(head.as_bytes()).await.expect("the head");
    let text = answer(&mut post).await;
    assert!(text.starts_with("HTTP/1.1 100"), "{text}");
    post
}

async fn until_stopping(harness: &Harness) {
    let url = format!("http://{}/readyz", harness.health);
    eventually("the stop is under way", DEADLINE, async || {
        matches!(harness.http.get(&url).send().await, Ok(answer) if answer.status() == 503)
    })
    .await;
}

async fn answer(post: &mut TcpStream) -> String {
    let mut answer = vec![0; 1024];
    let read = tokio::time::timeout(DEADLINE, post.read(&mut answer))
        .await
        .expect("in time");
    String::from_utf8_lossy(&answer[..read.expect("an answer")]).into_owned()
}
