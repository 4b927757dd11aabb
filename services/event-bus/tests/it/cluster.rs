//! Three servers, three copies of each message: groups are committed as on one.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use event_bus::topology::{self, BILLING};
use event_bus::{Bus, GroupPublisher, NatsSettings};
use futures_util::future::join_all;
use serde_json::json;
use testkit::{eventually, free_port};

use crate::{DEADLINE, envelope};

/// Killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path, n: usize, ports: &[(u16, u16)]) -> Server {
    let (port, cluster) = ports[n];
    let routes: Vec<_> = ports
        .iter()
        .map(|(_, cluster)| format!("nats://127.0.0.1:{cluster}"))
        .collect();
    let text = format!(
        "listen: 127.0.0.1:{port}\nserver_name: s{n}\n\
         jetstream {{ store_dir: \"{}/{n}\", sync_interval: always, max_file_store: 300M }}\n\
         cluster {{ name: c, listen: 127.0.0.1:{cluster}, routes: [{}] }}\n",
        folder.display(),
        routes.join(", ")
    );
    let config = folder.join(format!("{n}.conf"));
    std::fs::write(&config, text).unwrap();
    let program = std::env::var_os("NATS_SERVER_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/nats/bin/nats-server"),
        Into::into,
    );
    let child = Command::new(program)
        .arg("-c")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Server(child.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_take_groups_and_a_lost_one_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ports: Vec<_> = (0..3).map(|_| (free_port(), free_port())).collect();
    let mut servers: Vec<_> = (0..3)
        .map(|n| Some(start(folder.path(), n, &ports)))
        .collect();
    let urls: Vec<_> = ports
        .iter()
        .map(|(port, _)| format!("nats://127.0.0.1:{port}"))
        .collect();
    let bus = Bus::connect(&NatsSettings::for_testing(&urls.join(","), ""), "test")
        .await
        .unwrap();
    let billing = || {
        let streams = topology::streams(3);
        streams.into_iter().find(|s| s.name == BILLING).unwrap()
    };
    eventually("the cluster has its stream", 6 * DEADLINE, async || {
        topology::declare_stream(bus.jetstream(), billing())
            .await
            .is_ok()
    })
    .await;
    let publisher = GroupPublisher::new(bus.publisher().with_time_limit(Duration::from_secs(2)));
    let mut sent = BTreeSet::new();
    for round in 0..30 {
        if round == 10 {
            // Whichever it is: the leader, the one we talk to, or neither.
            servers[1] = None;
        }
        let ids: Vec<_> = (0..60).map(|n| format!("evt_{round}_{n}")).collect();
        let publishing = ids.iter().map(async |id| {
            let subject = "billing.v1.stripe.acct_a.payment_failed";
            eventually("it is acked", 6 * DEADLINE, async || {
                let (envelope, body) = (envelope(id), json!({}));
                let sent = publisher.publish(subject, &envelope, &body);
                sent.await.is_ok()
            })
            .await;
        });
        join_all(publishing).await;
        sent.extend(ids);
    }
    let mut stream = bus.jetstream().get_stream(BILLING).await.unwrap();
    let last = stream.info().await.unwrap().state.last_sequence;
    let (mut stored, mut batched) = (BTreeSet::new(), 0);
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.unwrap();
        stored.insert(message.headers.get("ce-id").unwrap().to_string());
        batched += usize::from(message.headers.get("Nats-Batch-Id").is_some());
    }
    assert_eq!(stored, sent);
    eprintln!(
        "{last} messages of {} ids, {batched} in batches",
        sent.len()
    );
    assert!(batched > 0);
}
