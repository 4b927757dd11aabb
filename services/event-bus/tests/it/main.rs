//! The bus on a real nats-server, restarts included.

mod bucket;
mod cluster;
mod consume;
mod dead_letters;
mod eraser;
mod group_commit;
mod power_cut;
mod projection;
mod publish;
mod restart;
mod stored_ids;
mod topology;

use std::time::Duration;

use event_bus::{Bus, Envelope, NatsSettings};
use jiff::Timestamp;
use serde_json::{Value, json};
use testkit::NatsServer;
use tokio_util::sync::CancellationToken;

pub const DEADLINE: Duration = Duration::from_secs(10);

pub fn settings(nats: &NatsServer) -> NatsSettings {
    NatsSettings::for_testing(&nats.url(), &nats.monitor_url())
}

pub async fn start() -> (NatsServer, Bus) {
    let nats = NatsServer::start().await.unwrap();
    let bus = Bus::start(&settings(&nats), "test", &CancellationToken::new())
        .await
        .unwrap();
    (nats, bus)
}

pub fn envelope(id: &str) -> Envelope {
    Envelope {
        ce_id: id.to_owned(),
        ce_type: "gymflow.test.v1.Thing".to_owned(),
        ce_source: "/test".to_owned(),
        ce_time: Timestamp::UNIX_EPOCH,
        ce_subject: id.to_owned(),
        traceparent: None,
    }
}

pub async fn publish(bus: &Bus, subject: &str, id: &str) {
    let body: Value = json!({ "id": id });
    bus.publisher()
        .publish(subject, &envelope(id), &body)
        .await
        .unwrap();
}
