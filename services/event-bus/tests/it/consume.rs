use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use event_bus::backoff::Backoff;
use event_bus::{Bus, ConsumerConfig, Delivery, Disposition};
use serde_json::Value;
use testkit::eventually;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::{DEADLINE, publish, start};

fn config() -> ConsumerConfig {
    ConsumerConfig::new("MEMBERSHIP", "kisi-sync", "membership.v1.>").backoff(Backoff::new(
        Duration::from_millis(20),
        Duration::from_millis(100),
    ))
}

async fn unacknowledged(bus: &Bus) -> (usize, u64) {
    let stream = bus.jetstream().get_stream("MEMBERSHIP").await.unwrap();
    let info = stream.consumer_info("kisi-sync").await.unwrap();
    (info.num_ack_pending, info.num_pending)
}

async fn all_acknowledged(bus: &Bus) {
    eventually("every message is acknowledged", DEADLINE, async || {
        unacknowledged(bus).await == (0, 0)
    })
    .await;
}

/// Counts deliveries per message id.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<HashMap<String, usize>>>);

impl Seen {
    async fn note(&self, delivery: &Delivery) -> usize {
        let mut seen = self.0.lock().await;
        let count = seen.entry(delivery.envelope.ce_id.clone()).or_default();
        *count += 1;
        *count
    }

    async fn of(&self, id: &str) -> usize {
        self.0.lock().await.get(id).copied().unwrap_or(0)
    }
}

#[tokio::test]
async fn a_message_that_is_done_does_not_come_again() {
    let (_nats, bus) = start().await;
    let (seen, shutdown) = (Seen::default(), CancellationToken::new());
    let handler = {
        let seen = seen.clone();
        move |message: Value, delivery: Delivery| {
            let seen = seen.clone();
            async move {
                assert_eq!(message["id"], delivery.envelope.ce_id.as_str());
                assert_eq!(delivery.subject, "membership.v1.demo.m_1");
                seen.note(&delivery).await;
                Disposition::Done
            }
        }
    };
    let running = tokio::spawn(bus.consumer(config()).run(handler, shutdown.clone()));
    publish(&bus, "membership.v1.demo.m_1", "a").await;
    eventually("it is handled", DEADLINE, async || seen.of("a").await == 1).await;
    all_acknowledged(&bus).await;
    shutdown.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(seen.of("a").await, 1);
}

#[tokio::test]
async fn a_retry_comes_again_and_a_panic_counts_as_one() {
    let (_nats, bus) = start().await;
    let (seen, shutdown) = (Seen::default(), CancellationToken::new());
    let handler = {
        let seen = seen.clone();
        move |_: Value, delivery: Delivery| {
            let seen = seen.clone();
            async move {
                let count = seen.note(&delivery).await;
                assert_eq!(delivery.attempt, count as u64);
                match count {
                    1 => Disposition::retry("not now"),
                    2 => panic!("a bug in a handler"),
                    _ => Disposition::Done,
                }
            }
        }
    };
    tokio::spawn(bus.consumer(config()).run(handler, shutdown.clone()));
    publish(&bus, "membership.v1.demo.m_1", "a").await;
    eventually("it is done at the third attempt", DEADLINE, async || {
        seen.of("a").await == 3
    })
    .await;
    all_acknowledged(&bus).await;
    shutdown.cancel();
}

#[tokio::test]
async fn a_retry_waits_as_long_as_the_handler_says() {
    let (_nats, bus) = start().await;
    let times = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let times = Arc::clone(&times);
        move |_: Value, _: Delivery| {
            let times = Arc::clone(&times);
            async move {
                let mut times = times.lock().await;
                times.push(std::time::Instant::now());
                match times.len() {
                    1 => Disposition::retry_after("later", Duration::from_millis(600)),
                    _ => Disposition::Done,
                }
            }
        }
    };
    tokio::spawn(
        bus.consumer(config())
            .run(handler, CancellationToken::new()),
    );
    publish(&bus, "membership.v1.demo.m_1", "a").await;
    eventually("it comes again", DEADLINE, async || {
        times.lock().await.len() == 2
    })
    .await;
    let times = times.lock().await;
    assert!(times[1] - times[0] >= Duration::from_millis(550));
}

#[tokio::test]
async fn a_handler_that_outlives_the_ack_wait_is_not_run_twice() {
    const MESSAGES: usize = 40;
    let (_nats, bus) = start().await;
    let (seen, gate) = (Seen::default(), tokio::sync::watch::Sender::new(false));
    let handler = {
        let (seen, gate) = (seen.clone(), gate.clone());
        move |_: Value, delivery: Delivery| {
            let (seen, mut gate) = (seen.clone(), gate.subscribe());
            async move {
                seen.note(&delivery).await;
                let _ = gate.wait_for(|open| *open).await;
                Disposition::Done
            }
        }
    };
    for n in 0..MESSAGES {
        publish(&bus, &format!("membership.v1.demo.m_{n}"), &format!("{n}")).await;
    }
    // Few at a time, so that messages fetched ahead and not yet looked at age as well.
    let config = config().ack_wait(Duration::from_secs(1)).concurrency(4);
    tokio::spawn(bus.consumer(config).run(handler, CancellationToken::new()));
    eventually("the first are in work", DEADLINE, async || {
        seen.0.lock().await.len() == 4
    })
    .await;
    let began = std::time::Instant::now();
    eventually("three ack waits have passed", DEADLINE, async || {
        began.elapsed() > Duration::from_secs(3)
    })
    .await;
    gate.send_replace(true);
    all_acknowledged(&bus).await;
    for n in 0..MESSAGES {
        assert_eq!(seen.of(&n.to_string()).await, 1, "message {n}");
    }
}

#[tokio::test]
async fn one_subject_is_handled_in_order_and_others_beside_it() {
    let (_nats, bus) = start().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for n in 0..40 {
        publish(&bus, &format!("notify.v1.demo.k{}", n % 4), &format!("{n}")).await;
    }
    let handler = {
        let (order, at_once, most) = (Arc::clone(&order), at_once, Arc::clone(&most));
        move |_: Value, delivery: Delivery| {
            let (order, at_once, most) =
                (Arc::clone(&order), Arc::clone(&at_once), Arc::clone(&most));
            async move {
                most.fetch_max(at_once.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                order
                    .lock()
                    .await
                    .push((delivery.subject, delivery.stream_sequence));
                at_once.fetch_sub(1, SeqCst);
                Disposition::Done
            }
        }
    };
    let config = ConsumerConfig::new("NOTIFY", "hooks", "notify.v1.>").concurrency(4);
    tokio::spawn(bus.consumer(config).run(handler, CancellationToken::new()));
    eventually("all are handled", DEADLINE, async || {
        order.lock().await.len() == 40
    })
    .await;
    assert!((2..=4).contains(&most.load(SeqCst)), "{most:?} at once");
    let mut last: HashMap<String, u64> = HashMap::new();
    for (subject, sequence) in order.lock().await.iter() {
        let before = last.insert(subject.clone(), *sequence).unwrap_or(0);
        assert!(before < *sequence, "{subject}: {before} before {sequence}");
    }
}

#[tokio::test]
async fn shutdown_finishes_what_runs_and_gives_back_what_was_fetched_ahead() {
    let (_nats, bus) = start().await;
    let (first, second) = (Seen::default(), Seen::default());
    let (release, shutdown) = (Arc::new(Notify::new()), CancellationToken::new());
    let slow = {
        let (seen, release) = (first.clone(), Arc::clone(&release));
        move |_: Value, delivery: Delivery| {
            let (seen, release) = (seen.clone(), Arc::clone(&release));
            async move {
                seen.note(&delivery).await;
                release.notified().await;
                Disposition::Done
            }
        }
    };
    let running = tokio::spawn(
        bus.consumer(config().concurrency(1))
            .run(slow, shutdown.clone()),
    );
    for n in 0..3 {
        publish(&bus, &format!("membership.v1.demo.m_{n}"), &format!("{n}")).await;
    }
    eventually(
        "the first is in work, the rest fetched",
        DEADLINE,
        async || first.of("0").await == 1 && unacknowledged(&bus).await == (3, 0),
    )
    .await;
    shutdown.cancel();
    release.notify_one();
    running.await.unwrap().unwrap();

    let quick = {
        let seen = second.clone();
        move |_: Value, delivery: Delivery| {
            let seen = seen.clone();
            async move {
                seen.note(&delivery).await;
                Disposition::Done
            }
        }
    };
    // The ack wait is 30 s: only what was given back can arrive before the deadline.
    tokio::spawn(
        bus.consumer(config().ack_wait(Duration::from_secs(30)))
            .run(quick, CancellationToken::new()),
    );
    all_acknowledged(&bus).await;
    assert_eq!(second.of("0").await, 0, "it was done before the shutdown");
    assert_eq!((second.of("1").await, second.of("2").await), (1, 1));
}

#[tokio::test]
async fn a_consumer_of_another_kind_is_refused_and_named() {
    let (_nats, bus) = start().await;
    bus.consumer(config()).declare().await.unwrap();
    bus.consumer(config()).declare().await.unwrap();
    let error = bus
        .consumer(config().start_at(event_bus::StartAt::New))
        .declare()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("kisi-sync"), "{error}");
}

#[tokio::test]
async fn a_consumer_whose_limits_changed_is_put_right() {
    let (_nats, bus) = start().await;
    bus.consumer(config()).declare().await.unwrap();
    bus.consumer(config().max_ack_pending(7))
        .declare()
        .await
        .unwrap();
    let stream = bus.jetstream().get_stream("MEMBERSHIP").await.unwrap();
    let info = stream.consumer_info("kisi-sync").await.unwrap();
    assert_eq!(info.config.max_ack_pending, 7);
}
