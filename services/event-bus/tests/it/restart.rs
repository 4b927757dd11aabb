//! Nobody restarts a service because NATS was restarted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_bus::{Bus, ConsumerConfig, Delivery, Disposition};
use serde_json::Value;
use testkit::eventually;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{DEADLINE, publish, start};

/// What "within a few seconds" means here.
const SOON: Duration = Duration::from_secs(4);

type Seen = Arc<Mutex<HashSet<String>>>;

fn consume(bus: &Bus) -> Seen {
    let seen = Seen::default();
    let handler = {
        let seen = Arc::clone(&seen);
        move |_: Value, delivery: Delivery| {
            let seen = Arc::clone(&seen);
            async move {
                seen.lock().await.insert(delivery.envelope.ce_id);
                Disposition::Done
            }
        }
    };
    let config = ConsumerConfig::new("BILLING", "membership-events", "billing.v1.>");
    tokio::spawn(bus.consumer(config).run(handler, CancellationToken::new()));
    seen
}

async fn arrives(seen: &Seen, id: &str, within: Duration) {
    eventually(&format!("{id} arrives"), within, async || {
        seen.lock().await.contains(id)
    })
    .await;
}

const SUBJECT: &str = "billing.v1.stripe.acct_a.payment_failed";

#[tokio::test]
async fn consumption_resumes_by_itself_after_nats_was_restarted() {
    let (mut nats, bus) = start().await;
    let seen = consume(&bus);
    publish(&bus, SUBJECT, "before").await;
    arrives(&seen, "before", DEADLINE).await;

    for round in 0..3 {
        if round % 2 == 0 {
            nats.kill().await.unwrap();
        }
        nats.restart().await.unwrap();
        let id = format!("after {round}");
        publish(&bus, SUBJECT, &id).await;
        arrives(&seen, &id, SOON).await;
    }
}

#[tokio::test]
async fn consumption_resumes_after_a_long_absence() {
    let (mut nats, bus) = start().await;
    let seen = consume(&bus);
    publish(&bus, SUBJECT, "before").await;
    arrives(&seen, "before", DEADLINE).await;

    nats.stop().await.unwrap();
    let gone = Instant::now();
    eventually("a while has passed", DEADLINE, async || {
        gone.elapsed() > Duration::from_secs(3)
    })
    .await;
    nats.restart().await.unwrap();

    publish(&bus, SUBJECT, "after").await;
    arrives(&seen, "after", SOON).await;
}

#[tokio::test]
async fn a_consumer_that_somebody_deleted_is_made_again() {
    let (_nats, bus) = start().await;
    let seen = consume(&bus);
    publish(&bus, SUBJECT, "before").await;
    arrives(&seen, "before", DEADLINE).await;

    let stream = bus.jetstream().get_stream("BILLING").await.unwrap();
    stream.delete_consumer("membership-events").await.unwrap();

    publish(&bus, SUBJECT, "after").await;
    arrives(&seen, "after", SOON).await;
}

#[tokio::test]
async fn a_server_that_hangs_and_comes_back_loses_nothing() {
    let (nats, bus) = start().await;
    let seen = consume(&bus);
    publish(&bus, SUBJECT, "before").await;
    arrives(&seen, "before", DEADLINE).await;

    nats.pause().unwrap();
    let publishing = {
        let bus = bus.clone();
        tokio::spawn(async move { publish(&bus, SUBJECT, "while it hung").await })
    };
    let hung = Instant::now();
    eventually("it has hung for a while", DEADLINE, async || {
        hung.elapsed() > Duration::from_secs(2)
    })
    .await;
    nats.resume().unwrap();

    publishing.await.unwrap();
    arrives(&seen, "while it hung", SOON).await;
}

#[tokio::test]
async fn nothing_is_lost_while_the_server_is_killed_again_and_again() {
    const MESSAGES: usize = 200;
    let (mut nats, bus) = start().await;
    let seen = Seen::default();
    let handler = {
        let seen = Arc::clone(&seen);
        move |_: Value, delivery: Delivery| {
            let seen = Arc::clone(&seen);
            async move {
                seen.lock().await.insert(delivery.envelope.ce_id);
                Disposition::Done
            }
        }
    };
    // A short ack wait, because what was out when the server died comes again only after it.
    let config = ConsumerConfig::new("BILLING", "membership-events", "billing.v1.>")
        .ack_wait(Duration::from_secs(1));
    tokio::spawn(bus.consumer(config).run(handler, CancellationToken::new()));
    let publishing = {
        let bus = bus.clone();
        tokio::spawn(async move {
            for n in 0..MESSAGES {
                // As a provider does: the same event again until it is accepted.
                while bus
                    .publisher()
                    .publish(SUBJECT, &crate::envelope(&format!("{n}")), &n)
                    .await
                    .is_err()
                {}
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    for n in [20, 80, 140] {
        let id = format!("{n}");
        arrives(&seen, &id, DEADLINE).await;
        nats.kill().await.unwrap();
        nats.restart().await.unwrap();
    }
    publishing.await.unwrap();
    eventually("every message was handled", DEADLINE, async || {
        seen.lock().await.len() == MESSAGES
    })
    .await;
    let mut stream = bus.jetstream().get_stream("BILLING").await.unwrap();
    let stored = stream.info().await.unwrap().state.messages;
    assert_eq!(
        stored, MESSAGES as u64,
        "an acked message is there, and once"
    );
}
