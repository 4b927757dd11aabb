//! The real process: its signals, its exit codes, its log.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use billing_webhook::stripe::signature::HEADER;
use contracts::subjects;
use event_bus::{Bus, NatsSettings};
use tempfile::TempDir;
use testkit::{NatsServer, eventually, free_port};

use crate::harness::{DEADLINE, SECRET, endpoints, failed_invoice, now, signed};

const PROGRAM: &str = env!("CARGO_BIN_EXE_billing-webhook");

/// A running process. It is killed when dropped.
pub struct Process {
    pub nats: NatsServer,
    pub folder: TempDir,
    pub http: reqwest::Client,
    pub address: SocketAddr,
    health: SocketAddr,
    child: Child,
}

impl Process {
    pub async fn start(variables: &[(&str, &str)]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let nats = NatsServer::start().await.expect("nats-server");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("endpoints.yaml");
        std::fs::write(&file, endpoints(SECRET)).expect("endpoints");
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (address, health) = (local(free_port()), local(free_port()));
        let log = File::create(folder.path().join("log")).expect("a log");
        let child = Command::new(PROGRAM)
            .env_clear()
            .env("HTTP_ADDR", address.to_string())
            .env("HEALTH_ADDR", health.to_string())
            .env("NATS_URL", nats.url())
            .env("NATS_MONITOR_URLS", nats.monitor_url())
            .env("BILLING_ENDPOINTS_FILE", &file)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the program");
        let process = Self {
            nats,
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client"),
            folder,
            address,
            health,
            child,
        };
        let url = format!("http://{health}/readyz");
        eventually("the process is ready", DEADLINE, async || {
            matches!(process.http.get(&url).send().await, Ok(answer) if answer.status().is_success())
        })
        .await;
        process
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("kill").success());
    }

    pub async fn exit_code(&mut self) -> Option<i32> {
        testkit::eventually_some("the process ends", DEADLINE, async || {
            self.child
                .try_wait()
                .expect("a child")
                .map(|status| status.code())
        })
        .await
    }

    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.health);
        let answer = self.http.get(url).send().await.expect("metrics");
        answer.text().await.expect("text")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("the log")
    }

    /// The ids of all events on BILLING.
    pub async fn event_ids(&self) -> BTreeSet<String> {
        let settings = NatsSettings::for_testing(&self.nats.url(), &self.nats.monitor_url());
        let bus = Bus::connect(&settings, "test").await.expect("NATS");
        let mut stream = bus
            .jetstream()
            .get_stream(subjects::BILLING)
            .await
            .expect("BILLING");
        let last = stream.info().await.expect("its state").state.last_sequence;
        let mut ids = BTreeSet::new();
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await.expect("a message");
            let event: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
            ids.insert(event["eventId"].as_str().expect("an id").to_owned());
        }
        ids
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Posts until told not to; the ids that got a 2xx.
async fn send_for_ever(
    http: reqwest::Client,
    address: SocketAddr,
    sender: usize,
    accepted: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut got_2xx = Vec::new();
    for n in 0.. {
        let id = format!("evt_{sender}_{n}");
        let body = failed_invoice(&id);
        let post = http
            .post(format!("http://{address}/webhooks/stripe/main"))
            .header("content-type", "application/json")
            .header(HEADER, signed(SECRET, &body, now()))
            .body(body);
        match post.send().await {
            Ok(answer) if answer.status().is_success() => {
                accepted.fetch_add(1, Ordering::Relaxed);
                got_2xx.push(id);
            }
            Ok(answer) => assert_eq!(answer.status(), 503),
            // The process is gone.
            Err(_) => break,
        }
    }
    got_2xx
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_in_the_middle_of_a_storm_loses_nothing_that_was_accepted() {
    let mut process = Process::start(&[]).await;
    let accepted = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..24)
        .map(|sender| {
            let (http, accepted) = (process.http.clone(), Arc::clone(&accepted));
            tokio::spawn(send_for_ever(http, process.address, sender, accepted))
        })
        .collect();
    eventually("the storm is on", DEADLINE, async || {
        accepted.load(Ordering::Relaxed) > 300
    })
    .await;
    process.signal("-TERM");
    assert_eq!(process.exit_code().await, Some(0), "{}", process.log());
    let stored = process.event_ids().await;
    let mut checked = 0;
    for sender in senders {
        for id in sender.await.expect("no panic") {
            assert!(stored.contains(&id), "{id} was accepted and is lost");
            checked += 1;
        }
    }
    assert!(checked > 300);
}

fn check_endpoints(file: &Path) -> Output {
    Command::new(PROGRAM)
        .env_clear()
        .arg("check-endpoints")
        .arg(file)
        .output()
        .expect("the program")
}

#[test]
fn check_endpoints_says_what_is_wrong_and_where_and_ends_with_its_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |text: &str| -> PathBuf {
        let path = folder.path().join("endpoints.yaml");
        std::fs::write(&path, text).expect("written");
        path
    };
    let good = check_endpoints(&write(&endpoints(SECRET)));
    assert_eq!(good.status.code(), Some(0));
    let said = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(said.contains("2 endpoints"), "{said}");

    let bad = endpoints(SECRET).replace("livemode: true", "livemode: sometimes");
    let bad = check_endpoints(&write(&bad));
    assert_eq!(bad.status.code(), Some(1));
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(
        said.contains("line 2") && said.contains("`livemode`"),
        "{said}"
    );
    assert!(!said.contains(SECRET), "{said}");

    let missing = check_endpoints(&folder.path().join("missing.yaml"));
    assert_eq!(missing.status.code(), Some(1));
    let no_file = Command::new(PROGRAM)
        .env_clear()
        .arg("check-endpoints")
        .output()
        .expect("the program");
    assert_eq!(no_file.status.code(), Some(2));
}
