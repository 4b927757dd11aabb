use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use event_bus::{Bus, Entry, Projection};
use serde_json::Value;
use testkit::eventually;
use tokio_util::sync::CancellationToken;

use crate::{DEADLINE, publish, start};

type Model = Arc<Mutex<BTreeMap<String, String>>>;

fn run(
    bus: &Bus,
) -> (
    Model,
    tokio::sync::watch::Receiver<event_bus::ProjectionStatus>,
) {
    let model = Model::default();
    let projection: Projection = bus.projection("MEMBERSHIP", "membership.v1.>");
    let status = projection.status();
    let apply = {
        let model = Arc::clone(&model);
        move |entry: Entry| {
            let body: Value = entry.parse().unwrap();
            let id = body["id"].as_str().unwrap().to_owned();
            model.lock().unwrap().insert(entry.subject, id);
        }
    };
    tokio::spawn(projection.run(apply, CancellationToken::new()));
    (model, status)
}

fn of(model: &Model, member: &str) -> Option<String> {
    let subject = format!("membership.v1.demo.{member}");
    model.lock().unwrap().get(&subject).cloned()
}

#[tokio::test]
async fn an_empty_stream_is_caught_up_with_at_once() {
    let (_nats, bus) = start().await;
    let (_, mut status) = run(&bus);
    tokio::time::timeout(DEADLINE, status.wait_for(|s| s.caught_up && s.following))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_projection_reads_the_last_of_each_subject_before_it_says_so_and_then_follows() {
    let (_nats, bus) = start().await;
    for n in 0..300 {
        publish(
            &bus,
            &format!("membership.v1.demo.m_{n}"),
            &format!("{n}/1"),
        )
        .await;
    }
    publish(&bus, "membership.v1.demo.m_0", "0/2").await;
    let (model, mut status) = run(&bus);
    tokio::time::timeout(DEADLINE, status.wait_for(|s| s.caught_up))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(model.lock().unwrap().len(), 300, "complete when it says so");
    assert_eq!(of(&model, "m_0").as_deref(), Some("0/2"));

    publish(&bus, "membership.v1.demo.m_7", "7/2").await;
    eventually("the change arrives", DEADLINE, async || {
        of(&model, "m_7").as_deref() == Some("7/2")
    })
    .await;
}

#[tokio::test]
async fn a_projection_follows_across_a_restart_and_says_when_it_does_not() {
    let (mut nats, bus) = start().await;
    publish(&bus, "membership.v1.demo.m_1", "1/1").await;
    let (model, mut status) = run(&bus);
    let wait = DEADLINE;
    tokio::time::timeout(wait, status.wait_for(|s| s.caught_up && s.following))
        .await
        .unwrap()
        .unwrap();

    nats.kill().await.unwrap();
    nats.restart().await.unwrap();
    tokio::time::timeout(wait, status.wait_for(|s| s.caught_up && !s.following))
        .await
        .unwrap()
        .unwrap();
    publish(&bus, "membership.v1.demo.m_1", "1/2").await;

    eventually("the change arrives", wait, async || {
        of(&model, "m_1").as_deref() == Some("1/2")
    })
    .await;
    tokio::time::timeout(wait, status.wait_for(|s| s.following))
        .await
        .unwrap()
        .unwrap();
    let stream = bus.jetstream().get_stream("MEMBERSHIP").await.unwrap();
    assert!(
        stream.cached_info().state.consumer_count <= 2,
        "consumers leak"
    );
}
