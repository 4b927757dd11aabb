use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use event_bus::backoff::Backoff;
use event_bus::{Bus, ConsumerConfig, DeadLetter, DeadLetterFilter, Delivery, Disposition};
use serde::Deserialize;
use serde_json::{Value, json};
use testkit::{eventually, eventually_some};
use tokio_util::sync::CancellationToken;

use crate::{DEADLINE, envelope, publish, start};

fn config(name: &str) -> ConsumerConfig {
    ConsumerConfig::new("MEMBERSHIP", name, "membership.v1.>").backoff(Backoff::new(
        Duration::from_millis(10),
        Duration::from_millis(20),
    ))
}

async fn the_letter(bus: &Bus) -> DeadLetter {
    eventually_some("there is a dead letter", DEADLINE, async || {
        let mut letters = bus
            .dead_letters()
            .list(&DeadLetterFilter::default(), 0, 10)
            .await
            .unwrap();
        assert!(letters.len() <= 1, "more than one: {letters:?}");
        letters.pop()
    })
    .await
}

async fn nothing_is_left(bus: &Bus, consumer: &str) {
    let stream = bus.jetstream().get_stream("MEMBERSHIP").await.unwrap();
    eventually("the message is gone", DEADLINE, async || {
        let info = stream.consumer_info(consumer).await.unwrap();
        (info.num_ack_pending, info.num_pending) == (0, 0)
    })
    .await;
}

#[tokio::test]
async fn a_rejected_message_is_set_aside_with_its_cause_and_does_not_come_again() {
    let (_nats, bus) = start().await;
    let handler = |_: Value, _: Delivery| async { Disposition::reject("no such\nplan") };
    tokio::spawn(
        bus.consumer(config("kisi-sync"))
            .run(handler, CancellationToken::new()),
    );
    publish(&bus, "membership.v1.demo.m_1", "demo/m_1/7").await;

    let letter = the_letter(&bus).await;

    assert_eq!(
        (&*letter.stream, &*letter.consumer),
        ("MEMBERSHIP", "kisi-sync")
    );
    assert_eq!(letter.gym.as_deref(), Some("demo"));
    assert_eq!(letter.cause, "no such plan");
    assert_eq!(letter.attempts, 1);
    assert_eq!(letter.subject, "membership.v1.demo.m_1");
    assert_eq!(letter.envelope.ce_id, "demo/m_1/7");
    assert_eq!(letter.body, r#"{"id":"demo/m_1/7"}"#.as_bytes());
    nothing_is_left(&bus, "kisi-sync").await;
}

#[tokio::test]
async fn a_body_that_is_not_the_message_is_set_aside_without_being_quoted() {
    #[derive(Deserialize)]
    struct Wanted {
        #[serde(rename = "version")]
        _version: u64,
    }
    let (_nats, bus) = start().await;
    let handler = |_: Wanted, _: Delivery| async { Disposition::Done };
    tokio::spawn(
        bus.consumer(config("kisi-sync"))
            .run(handler, CancellationToken::new()),
    );
    bus.publisher()
        .publish(
            "membership.v1.demo.m_1",
            &envelope("a"),
            &json!({ "version": "Ada Lovelace" }),
        )
        .await
        .unwrap();
    let letter = the_letter(&bus).await;
    assert!(letter.cause.contains("Wanted"), "{}", letter.cause);
    assert!(!letter.cause.contains("Lovelace"), "{}", letter.cause);
    nothing_is_left(&bus, "kisi-sync").await;
}

#[tokio::test]
async fn a_message_that_keeps_failing_is_set_aside_after_its_attempts() {
    let (_nats, bus) = start().await;
    let count = Arc::new(AtomicUsize::new(0));
    let handler = {
        let count = Arc::clone(&count);
        move |_: Value, _: Delivery| {
            count.fetch_add(1, SeqCst);
            async { Disposition::retry("still broken") }
        }
    };
    let config = config("kisi-sync").max_attempts(Some(3));
    tokio::spawn(bus.consumer(config).run(handler, CancellationToken::new()));
    publish(&bus, "membership.v1.demo.m_1", "a").await;
    let letter = the_letter(&bus).await;
    assert_eq!((letter.attempts, &*letter.cause), (3, "still broken"));
    nothing_is_left(&bus, "kisi-sync").await;
    assert_eq!(count.load(SeqCst), 3);
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_written_leaves_the_message_where_it_is() {
    let (_nats, bus) = start().await;
    bus.jetstream().delete_stream("DEAD_LETTER").await.unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let handler = {
        let count = Arc::clone(&count);
        move |_: Value, _: Delivery| {
            count.fetch_add(1, SeqCst);
            async { Disposition::reject("no such plan") }
        }
    };
    tokio::spawn(
        bus.consumer(config("kisi-sync"))
            .run(handler, CancellationToken::new()),
    );
    publish(&bus, "membership.v1.demo.m_1", "a").await;
    eventually("it was tried", DEADLINE, async || count.load(SeqCst) >= 1).await;

    let dead_letter = event_bus::topology::streams(1).pop().unwrap();
    event_bus::topology::declare_stream(bus.jetstream(), dead_letter)
        .await
        .unwrap();

    assert_eq!(the_letter(&bus).await.cause, "no such plan");
    nothing_is_left(&bus, "kisi-sync").await;
}

#[tokio::test]
async fn a_replay_reaches_its_own_consumer_alone_under_a_new_id() {
    let (_nats, bus) = start().await;
    let repaired = Arc::new(AtomicBool::new(false));
    let replayed = Arc::new(tokio::sync::Mutex::new(None));
    let others = Arc::new(AtomicUsize::new(0));
    let handler = {
        let (repaired, replayed) = (Arc::clone(&repaired), Arc::clone(&replayed));
        move |_: Value, delivery: Delivery| {
            let (repaired, replayed) = (Arc::clone(&repaired), Arc::clone(&replayed));
            async move {
                if !repaired.load(SeqCst) {
                    return Disposition::reject("no such plan");
                }
                *replayed.lock().await = Some(delivery);
                Disposition::Done
            }
        }
    };
    let bystander = {
        let others = Arc::clone(&others);
        move |_: Value, _: Delivery| {
            others.fetch_add(1, SeqCst);
            async { Disposition::Done }
        }
    };
    tokio::spawn(
        bus.consumer(config("kisi-sync"))
            .run(handler, CancellationToken::new()),
    );
    tokio::spawn(
        bus.consumer(config("other"))
            .run(bystander, CancellationToken::new()),
    );
    publish(&bus, "membership.v1.demo.m_1", "a").await;
    let letter = the_letter(&bus).await;
    eventually("the bystander has it", DEADLINE, async || {
        others.load(SeqCst) == 1
    })
    .await;

    repaired.store(true, SeqCst);
    let letters = bus.dead_letters();
    assert!(letters.replay(letter.sequence).await.unwrap().is_some());

    let delivery = eventually_some("the replay arrives", DEADLINE, async || {
        replayed.lock().await.take()
    })
    .await;
    assert!(delivery.replayed);
    assert_eq!(delivery.subject, "membership.v1.demo.m_1");
    assert_eq!(
        delivery.envelope.ce_id,
        format!("a~replay-{}", letter.sequence)
    );
    assert_eq!(delivery.body, letter.body);
    assert_eq!(others.load(SeqCst), 1, "nobody else gets it");
    assert!(letters.find(letter.sequence).await.unwrap().is_none());
    assert!(
        letters.replay(letter.sequence).await.unwrap().is_none(),
        "only once"
    );
}

#[tokio::test]
async fn dead_letters_are_listed_by_gym_in_pages() {
    let (_nats, bus) = start().await;
    let handler = |_: Value, _: Delivery| async { Disposition::reject("no") };
    tokio::spawn(
        bus.consumer(config("kisi-sync"))
            .run(handler, CancellationToken::new()),
    );
    for (gym, n) in [("demo", 1), ("two", 2), ("demo", 3)] {
        publish(&bus, &format!("membership.v1.{gym}.m_{n}"), &format!("{n}")).await;
    }
    let letters = bus.dead_letters();
    let demo = DeadLetterFilter {
        gym: Some("demo".to_owned()),
        ..Default::default()
    };
    let ids = |page: &[DeadLetter]| -> Vec<String> {
        let mut ids: Vec<_> = page.iter().map(|l| l.envelope.ce_id.clone()).collect();
        ids.sort();
        ids
    };
    eventually("both of demo are there", DEADLINE, async || {
        letters.list(&demo, 0, 10).await.unwrap().len() == 2
    })
    .await;
    assert_eq!(ids(&letters.list(&demo, 0, 10).await.unwrap()), ["1", "3"]);
    let first = letters.list(&demo, 0, 1).await.unwrap();
    let second = letters.list(&demo, first[0].sequence, 10).await.unwrap();
    assert_eq!((first.len(), second.len()), (1, 1));
    let wild = DeadLetterFilter {
        gym: Some(">".to_owned()),
        ..Default::default()
    };
    assert!(letters.list(&wild, 0, 10).await.is_err());
}
