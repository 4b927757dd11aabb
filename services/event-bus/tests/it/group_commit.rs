//! Publishes that share a flush: every ack is as good as alone, and every failure too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use event_bus::topology::{self, BILLING};
use event_bus::{Ack, Bus, GroupPublisher, PublishError};
use futures_util::future::join_all;
use serde_json::{Value, json};
use testkit::eventually;

use crate::{DEADLINE, envelope, start};

const SUBJECT: &str = "billing.v1.stripe.acct_a.payment_failed";

fn grouped(bus: &Bus) -> GroupPublisher {
    GroupPublisher::new(bus.publisher().with_time_limit(DEADLINE))
}

async fn send(
    publisher: &GroupPublisher,
    subject: &str,
    id: &str,
    body: Value,
) -> Result<Ack, PublishError> {
    publisher.publish(subject, &envelope(id), &body).await
}

/// All at the same time: the first finds nobody under way, the rest wait for it.
async fn send_all(publisher: &GroupPublisher, ids: &[String]) -> Vec<Result<Ack, PublishError>> {
    join_all(ids.iter().map(|id| send(publisher, SUBJECT, id, json!({})))).await
}

fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}_{n}")).collect()
}

/// By sequence: the id of the message, and whether it came in a batch.
async fn stored(bus: &Bus, stream: &str) -> BTreeMap<u64, (String, bool)> {
    let mut stream = bus.jetstream().get_stream(stream).await.unwrap();
    let last = stream.info().await.unwrap().state.last_sequence;
    let mut all = BTreeMap::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let id = message.headers.get("ce-id").unwrap().to_string();
        let batched = message.headers.get("Nats-Batch-Id").is_some();
        all.insert(sequence, (id, batched));
    }
    all
}

#[tokio::test]
async fn a_lone_message_goes_alone_and_what_waits_together_goes_together() {
    let (_nats, bus) = start().await;
    let publisher = grouped(&bus);
    let ids = ids("evt", 300);
    let acks = send_all(&publisher, &ids).await;
    let stored = stored(&bus, BILLING).await;
    assert_eq!(stored.len(), 300);
    for (id, ack) in ids.iter().zip(acks) {
        let ack = ack.unwrap();
        assert!(!ack.duplicate);
        assert_eq!(stored[&ack.sequence].0, *id, "the ack of its own message");
    }
    let batched = stored.values().filter(|(_, batched)| *batched).count();
    assert_eq!((stored[&1].1, batched), (false, 299));

    // Nothing is under way again.
    let ack = send(&publisher, SUBJECT, "later", json!({})).await.unwrap();
    assert_eq!(ack.sequence, 301);
    assert!(!crate::group_commit::stored(&bus, BILLING).await[&301].1);
}

#[tokio::test]
async fn the_same_id_many_times_in_a_group_is_stored_once_and_acked_each_time() {
    let (_nats, bus) = start().await;
    let publisher = grouped(&bus);
    let ids: Vec<String> = (0..240).map(|n| format!("evt_{}", n % 60)).collect();
    let acks = send_all(&publisher, &ids).await;
    let stored = stored(&bus, BILLING).await;
    assert_eq!(stored.len(), 60);
    let acks: Vec<Ack> = acks.into_iter().map(Result::unwrap).collect();
    assert_eq!(acks.iter().filter(|ack| !ack.duplicate).count(), 60);
    for (id, ack) in ids.iter().zip(acks) {
        assert_eq!(stored[&ack.sequence].0, *id);
    }
    let batched = stored.values().filter(|(_, batched)| *batched).count();
    assert_eq!(batched, 59, "a repeat spoils no batch");
}

#[tokio::test]
async fn an_id_that_another_replica_sent_costs_a_batch_and_no_message() {
    let (_nats, bus) = start().await;
    let (publisher, other) = (grouped(&bus), bus.publisher());
    let ids = ids("evt", 100);
    let earlier = other
        .publish(SUBJECT, &envelope("evt_50"), &json!({}))
        .await
        .unwrap();
    let acks = send_all(&publisher, &ids).await;
    for (id, ack) in ids.iter().zip(acks) {
        let ack = ack.unwrap();
        assert_eq!(ack.duplicate, id == "evt_50");
        assert_eq!(ack.sequence == earlier.sequence, id == "evt_50");
    }
    let stored = stored(&bus, BILLING).await;
    assert_eq!(stored.len(), 100);
    assert!(stored.values().all(|(_, batched)| !batched));
    // A refusal makes it careful for a while and not for ever.
    let mut batched = 0;
    for round in 0..5 {
        let before = stored_count(&bus).await;
        let acks = send_all(&publisher, &self::ids(&format!("round_{round}"), 40)).await;
        assert!(acks.iter().all(Result::is_ok));
        assert_eq!(stored_count(&bus).await, before + 40);
        batched = self::stored(&bus, BILLING)
            .await
            .values()
            .filter(|(_, batched)| *batched)
            .count();
    }
    assert!(batched > 0);
}

async fn stored_count(bus: &Bus) -> u64 {
    let mut stream = bus.jetstream().get_stream(BILLING).await.unwrap();
    stream.info().await.unwrap().state.messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cannot_be_stored_fails_alone_and_keeps_nobody_waiting() {
    let (nats, bus) = start().await;
    let publisher = GroupPublisher::new(bus.publisher().with_time_limit(6 * DEADLINE));
    let spawn = |subject: &'static str, id: String, body: Value| {
        let publisher = publisher.clone();
        tokio::spawn(async move { send(&publisher, subject, &id, body).await })
    };
    // All of them in one group: they wait for the one that is under way.
    nats.pause().unwrap();
    let first = spawn(SUBJECT, "first".into(), json!({}));
    // Nobody's subject, which is tried again and again; in a batch it spoils the whole.
    let lost = spawn("nobody.listens", "lost".into(), json!({}));
    let large = spawn(SUBJECT, "large".into(), json!("x".repeat(300 * 1024)));
    let good: Vec<_> = ids("evt", 60)
        .into_iter()
        .map(|id| spawn(SUBJECT, id, json!({})))
        .collect();
    nats.resume().unwrap();
    first.await.unwrap().unwrap();
    for ack in join_all(good).await {
        ack.unwrap().unwrap();
    }
    let refused = large.await.unwrap();
    assert!(
        matches!(refused, Err(PublishError::TooLarge)),
        "{refused:?}"
    );
    assert!(!lost.is_finished(), "it waits for a stream to come up");
    lost.abort();
    assert_eq!(stored_count(&bus).await, 61);
}

#[tokio::test]
async fn a_stream_that_takes_no_batches_takes_all_messages_singly() {
    let (_nats, bus) = start().await;
    let publisher = grouped(&bus);
    let ids = ids("evt", 60);
    let sending = ids
        .iter()
        .map(|id| send(&publisher, "notify.v1.demo.access_lost", id, json!({})));
    let acks = join_all(sending).await;
    assert!(acks.iter().all(Result::is_ok), "{acks:?}");
    assert_eq!(stored(&bus, "NOTIFY").await.len(), 60);
}

#[tokio::test]
async fn a_stream_from_before_learns_to_take_batches() {
    let (_nats, bus) = start().await;
    let wanted = || {
        let streams = topology::streams(1);
        streams.into_iter().find(|s| s.name == BILLING).unwrap()
    };
    assert!(wanted().allow_atomic_publish);
    let js = bus.jetstream();
    js.delete_stream(BILLING).await.unwrap();
    let mut before = wanted();
    before.allow_atomic_publish = false;
    js.create_stream(before).await.unwrap();
    topology::declare_stream(js, wanted()).await.unwrap();
    let stream = js.get_stream(BILLING).await.unwrap();
    assert!(stream.cached_info().config.allow_atomic_publish);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_keep_nobody_else_waiting() {
    let (_nats, bus) = start().await;
    let publisher = grouped(&bus);
    for round in 0..20 {
        let tasks: Vec<_> = ids(&format!("round_{round}"), 40)
            .into_iter()
            .map(|id| {
                let publisher = publisher.clone();
                tokio::spawn(async move { send(&publisher, SUBJECT, &id, json!({})).await })
            })
            .collect();
        // The first may hold the turn.
        for task in tasks.iter().step_by(3) {
            task.abort();
        }
        for (n, task) in tasks.into_iter().enumerate() {
            let ended = tokio::time::timeout(DEADLINE, task).await.unwrap();
            match ended {
                Ok(ack) => drop(ack.unwrap()),
                Err(aborted) => assert!(aborted.is_cancelled() && n % 3 == 0),
            }
        }
    }
}

/// What 48 senders do that send again until they have an ack.
async fn storm(
    publisher: GroupPublisher,
    sender: usize,
    acked: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
) -> Vec<(String, Ack)> {
    let mut acks = Vec::new();
    let mut n = 0;
    while !over.load(Ordering::Relaxed) {
        let id = format!("evt_{sender}_{n}");
        match send(&publisher, SUBJECT, &id, json!({})).await {
            Ok(ack) => {
                acked.fetch_add(1, Ordering::Relaxed);
                acks.push((id, ack));
                n += 1;
            }
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }
    acks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle_of_batches_loses_nothing_that_was_acked() {
    let (mut nats, bus) = start().await;
    let publisher = GroupPublisher::new(bus.publisher().with_time_limit(Duration::from_secs(1)));
    let (acked, over) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let senders: Vec<_> = (0..48)
        .map(|sender| {
            let (acked, over) = (Arc::clone(&acked), Arc::clone(&over));
            tokio::spawn(storm(publisher.clone(), sender, acked, over))
        })
        .collect();
    for _ in 0..3 {
        let before = acked.load(Ordering::Relaxed);
        eventually("the storm goes on", Duration::from_secs(30), async || {
            acked.load(Ordering::Relaxed) > before + 200
        })
        .await;
        nats.kill().await.unwrap();
        nats.restart().await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let acks: Vec<_> = join_all(senders)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    let stored = stored(&bus, BILLING).await;
    for (id, ack) in &acks {
        assert_eq!(stored[&ack.sequence].0, *id, "acked and not stored");
    }
    let distinct: BTreeSet<_> = stored.values().map(|(id, _)| id).collect();
    assert_eq!(distinct.len(), stored.len(), "stored twice");
    assert!(stored.values().any(|(_, batched)| *batched));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_ack_is_late_is_stored_once_beside_its_repeats() {
    let (nats, bus) = start().await;
    let publisher = GroupPublisher::new(bus.publisher().with_time_limit(3 * DEADLINE));
    let sent = bus.jetstream().client().statistics();
    let sent = || sent.out_messages.load(Ordering::Relaxed);
    let before = sent();
    nats.pause().unwrap();
    let sending = {
        let publisher = publisher.clone();
        tokio::spawn(async move {
            let ids = ids("evt", 100);
            (send_all(&publisher, &ids).await, ids)
        })
    };
    // The first one alone; of the others the batch, and, as its ack is late, each by itself.
    eventually("all of it is under way", DEADLINE, async || {
        sent() >= before + 1 + 99 + 99
    })
    .await;
    nats.resume().unwrap();
    let (acks, ids) = sending.await.unwrap();
    let stored = stored(&bus, BILLING).await;
    assert_eq!(stored.len(), 100);
    for (id, ack) in ids.iter().zip(acks) {
        assert_eq!(stored[&ack.unwrap().sequence].0, *id);
    }
}
