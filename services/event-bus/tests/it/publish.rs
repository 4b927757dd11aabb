use std::time::Duration;

use event_bus::{GroupPublisher, PublishError};
use serde_json::json;
use testkit::eventually;

use crate::{envelope, start};

#[tokio::test]
async fn the_same_id_twice_is_stored_once_and_acked_twice() {
    let (_nats, bus) = start().await;
    let publisher = bus.publisher();
    let subject = "billing.v1.stripe.acct_a.payment_failed";
    let first = publisher
        .publish(subject, &envelope("evt_1"), &json!({}))
        .await
        .unwrap();
    let second = publisher
        .publish(subject, &envelope("evt_1"), &json!({}))
        .await
        .unwrap();
    assert!(!first.duplicate && second.duplicate);
    assert_eq!(first.sequence, second.sequence);
}

#[tokio::test]
async fn many_can_be_under_way_at_once() {
    let (_nats, bus) = start().await;
    let publisher = bus.publisher();
    let mut pending = Vec::new();
    for n in 0..200 {
        let subject = format!("membership.v1.demo.m_{n}");
        let id = format!("demo/m_{n}/1");
        let ack = publisher
            .publish_start(&subject, &envelope(&id), &json!({}))
            .await
            .unwrap();
        pending.push(ack);
    }
    let mut sequences = Vec::new();
    for ack in pending {
        sequences.push(ack.await.unwrap().sequence);
    }
    assert_eq!(sequences, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_given_up_without_a_connection_is_not_sent_when_there_is_one() {
    let (mut nats, bus) = start().await;
    let subject = "membership.v1.demo.m_1";
    nats.stop().await.unwrap();
    eventually(
        "the connection is gone",
        Duration::from_secs(10),
        async || !bus.is_connected(),
    )
    .await;
    let publisher = bus.publisher().with_time_limit(Duration::from_millis(200));
    let groups = GroupPublisher::new(publisher.clone());
    let given_up = [
        publisher
            .publish(subject, &envelope("old"), &json!({}))
            .await,
        groups
            .publish(subject, &envelope("older"), &json!({}))
            .await,
    ];
    for answer in given_up {
        assert!(matches!(answer, Err(PublishError::Unavailable(_))));
    }
    nats.restart().await.unwrap();
    let publisher = bus.publisher().with_time_limit(Duration::from_secs(10));
    let new = publisher
        .publish(subject, &envelope("new"), &json!({}))
        .await;
    assert_eq!(new.unwrap().sequence, 1);
}

#[tokio::test]
async fn a_message_carries_cloud_events_headers_and_a_trace() {
    let (_nats, bus) = start().await;
    let subject = "integration.v1.demo";
    let ack = bus
        .publisher()
        .publish(subject, &envelope("demo/1"), &json!({ "gymId": "demo" }))
        .await
        .unwrap();
    let stream = bus.jetstream().get_stream("INTEGRATION").await.unwrap();
    let stored = stream.get_raw_message(ack.sequence).await.unwrap();
    let header = |name: &str| stored.headers.get(name).unwrap().as_str();
    assert_eq!(header("ce-id"), "demo/1");
    assert_eq!(header("Nats-Msg-Id"), "demo/1");
    assert_eq!(header("ce-specversion"), "1.0");
    assert_eq!(header("ce-time"), "1970-01-01T00:00:00Z");
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("traceparent").len(), 55);
    assert_eq!(stored.payload, r#"{"gymId":"demo"}"#.as_bytes());
}

#[tokio::test]
async fn an_expected_sequence_keeps_an_older_writer_out_but_not_its_own_repeat() {
    let (_nats, bus) = start().await;
    let publisher = bus.publisher();
    let subject = "membership.v1.demo.m_1";
    let first = publisher
        .publish_expecting(subject, &envelope("v1"), &json!({}), 0)
        .await
        .unwrap();
    let again = publisher
        .publish_expecting(subject, &envelope("v1"), &json!({}), 0)
        .await
        .unwrap();
    assert!(again.duplicate);
    let late = publisher
        .publish_expecting(subject, &envelope("v0"), &json!({}), 0)
        .await;
    assert!(
        matches!(late, Err(PublishError::WrongLastSequence)),
        "{late:?}"
    );
    publisher
        .publish_expecting(subject, &envelope("v2"), &json!({}), first.sequence)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_message_too_large_for_its_stream_is_not_tried_again() {
    let (_nats, bus) = start().await;
    let body = json!({ "metadata": "x".repeat(300 * 1024) });
    let refused = bus
        .publisher()
        .publish("integration.v1.demo", &envelope("big"), &body)
        .await
        .unwrap_err();
    assert!(matches!(refused, PublishError::TooLarge), "{refused:?}");
    assert!(!refused.is_retryable());
}

#[tokio::test]
async fn without_an_ack_in_time_the_caller_is_told_to_come_back() {
    let (mut nats, bus) = start().await;
    nats.kill().await.unwrap();
    let publisher = bus.publisher().with_time_limit(Duration::from_millis(300));
    let subject = "billing.v1.stripe.acct_a.payment_failed";
    let refused = publisher
        .publish(subject, &envelope("evt_1"), &json!({}))
        .await
        .unwrap_err();
    assert!(refused.is_retryable(), "{refused:?}");

    nats.restart().await.unwrap();
    let publisher = bus.publisher();
    publisher
        .publish(subject, &envelope("evt_1"), &json!({}))
        .await
        .unwrap();
    let mut stream = bus.jetstream().get_stream("BILLING").await.unwrap();
    assert_eq!(
        stream.info().await.unwrap().state.messages,
        1,
        "nothing twice"
    );
}

#[tokio::test]
async fn a_publish_outlives_a_short_restart() {
    let (mut nats, bus) = start().await;
    nats.stop().await.unwrap();
    let publishing = {
        let publisher = bus.publisher();
        tokio::spawn(async move {
            publisher
                .publish("integration.v1.demo", &envelope("demo/1"), &json!({}))
                .await
        })
    };
    nats.restart().await.unwrap();
    publishing.await.unwrap().unwrap();
}
