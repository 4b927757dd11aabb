//! What is erased is off the streams, and nothing else is.

use std::collections::HashSet;

use event_bus::topology::{BILLING, DEAD_LETTER, MEMBERSHIP};
use event_bus::{Bus, ConsumerConfig, Delivery, Disposition};
use jiff::Timestamp;
use serde_json::Value;
use testkit::eventually;
use tokio_util::sync::CancellationToken;

use crate::{DEADLINE, publish, start};

async fn ids(bus: &Bus, stream: &str) -> Vec<String> {
    let mut stream = bus.jetstream().get_stream(stream).await.unwrap();
    let state = stream.info().await.unwrap().state.clone();
    let mut ids = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        if let Ok(message) = stream.get_raw_message(sequence).await {
            ids.push(message.headers.get("ce-id").unwrap().to_string());
        }
    }
    ids
}

fn set(ids: &[&str]) -> HashSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[tokio::test]
async fn a_subject_keeps_its_last_message_alone() {
    let (_nats, bus) = start().await;
    for n in 1..=2 {
        publish(&bus, "membership.v1.demo.m_1", &format!("demo/m_1/{n}")).await;
        publish(&bus, "membership.v1.demo.m_12", &format!("demo/m_12/{n}")).await;
    }
    let eraser = bus.eraser();
    for _ in 0..2 {
        let subject = "membership.v1.demo.m_1";
        eraser.keep_last(MEMBERSHIP, subject).await.unwrap();
        let left = ids(&bus, MEMBERSHIP).await;
        assert_eq!(left, ["demo/m_12/1", "demo/m_1/2", "demo/m_12/2"]);
    }
    let last = bus
        .last(MEMBERSHIP, "membership.v1.demo.m_1")
        .await
        .unwrap();
    assert!(last.is_some());
    let none = bus
        .last(MEMBERSHIP, "membership.v1.demo.m_9")
        .await
        .unwrap();
    assert!(none.is_none());
}

#[tokio::test]
async fn messages_with_the_ids_go_and_a_repeat_finds_none() {
    let (_nats, bus) = start().await;
    for id in ["a", "b", "c"] {
        publish(&bus, "billing.v1.stripe.acct_a.payment_failed", id).await;
    }
    publish(
        &bus,
        "billing.v1.stripe.acct_b.payment_failed",
        "a/elsewhere",
    )
    .await;
    let erase = async || {
        let filter = "billing.v1.stripe.acct_a.*";
        let ids = set(&["a", "c", "a/elsewhere", "none"]);
        let eraser = bus.eraser();
        let erased = eraser.erase_by_id(BILLING, filter, Timestamp::UNIX_EPOCH, &ids);
        erased.await.unwrap()
    };
    assert_eq!(erase().await, 2);
    assert_eq!(ids(&bus, BILLING).await, ["b", "a/elsewhere"]);
    assert_eq!(erase().await, 0);
}

#[tokio::test]
async fn dead_letters_go_by_what_they_speak_of_and_by_id_replays_included() {
    let (_nats, bus) = start().await;
    let handler = |_: Value, _: Delivery| async { Disposition::reject("no such plan") };
    let consumer = ConsumerConfig::new("MEMBERSHIP", "kisi-sync", "membership.v1.>");
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(bus.consumer(consumer).run(handler, shutdown.clone()));
    for member in ["m_1", "m_2", "m_3"] {
        let subject = format!("membership.v1.demo.{member}");
        publish(&bus, &subject, &format!("demo/{member}/1")).await;
    }
    eventually("three dead letters", DEADLINE, async || {
        ids(&bus, DEAD_LETTER).await.len() == 3
    })
    .await;
    let (eraser, ids_of_two) = (bus.eraser(), set(&["demo/m_2/1"]));
    let erased = eraser.erase_dead_letters("demo/m_3/1", &ids_of_two);
    assert_eq!(erased.await.unwrap(), 2);
    assert_eq!(ids(&bus, DEAD_LETTER).await, ["demo/m_1/1"]);

    let letters = bus.dead_letters();
    let all = letters
        .list(&event_bus::DeadLetterFilter::default(), 0, 10)
        .await
        .unwrap();
    shutdown.cancel();
    running.await.unwrap().unwrap();
    letters.replay(all[0].sequence).await.unwrap();
    let none = HashSet::new();
    let erased = eraser.erase_dead_letters("demo/m_1/1", &none);
    assert_eq!(erased.await.unwrap(), 1, "one that waits for its replay");
    assert_eq!(ids(&bus, DEAD_LETTER).await, [] as [&str; 0]);
}
