//! The real service in this process, a real nats-server, posts over real HTTP.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use billing_webhook::catchup::CatchUpSettings;
use billing_webhook::config::Config;
use billing_webhook::stripe::signature::HEADER;
use contracts::subjects;
use event_bus::{Bus, NatsSettings};
use hmac::{Hmac, KeyInit, Mac};
use service_runtime::lifecycle::LifecycleSettings;
use service_runtime::telemetry::TelemetrySettings;
use sha2::Sha256;
use tempfile::TempDir;
use testkit::{NatsServer, eventually, free_port};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const SECRET: &str = "whsec_harness";
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Harness {
    pub nats: NatsServer,
    pub http: reqwest::Client,
    pub address: SocketAddr,
    pub health: SocketAddr,
    pub endpoints_file: PathBuf,
    pub shutdown: CancellationToken,
    pub service: JoinHandle<Result<(), billing_webhook::error::Error>>,
    _folder: TempDir,
}

impl Harness {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let nats = NatsServer::start().await.expect("nats-server");
        let harness = Self::launch(nats, change);
        harness.until_ready().await;
        harness
    }

    /// On a nats-server that has been used before.
    pub async fn start_on(nats: NatsServer, change: impl FnOnce(&mut Config)) -> Self {
        let harness = Self::launch(nats, change);
        harness.until_ready().await;
        harness
    }

    /// With a nats-server that is down.
    pub async fn start_without_nats() -> Self {
        let mut nats = NatsServer::start().await.expect("nats-server");
        nats.stop().await.expect("stopped");
        Self::launch(nats, |_| {})
    }

    fn launch(nats: NatsServer, change: impl FnOnce(&mut Config)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        let endpoints_file = folder.path().join("endpoints.yaml");
        std::fs::write(&endpoints_file, endpoints(SECRET)).expect("endpoints");
        let mut config = config(&nats, endpoints_file.clone());
        change(&mut config);
        let (address, health) = (config.http_addr, config.health_addr);
        let shutdown = CancellationToken::new();
        let service = tokio::spawn(billing_webhook::run(config, shutdown.clone()));
        Self {
            nats,
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client"),
            address,
            health,
            endpoints_file,
            shutdown,
            service,
            _folder: folder,
        }
    }

    pub async fn until_ready(&self) {
        eventually("the service is ready", DEADLINE, async || {
            let url = format!("http://{}/readyz", self.health);
            matches!(self.http.get(url).send().await, Ok(answer) if answer.status().is_success())
        })
        .await;
    }

    /// Everything that is counted, in Prometheus' text form.
    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.health);
        let answer = self.http.get(url).send().await.expect("metrics");
        answer.text().await.expect("text")
    }

    /// One counter, of all harnesses of this test process together.
    pub async fn counted(&self, series: &str) -> u64 {
        let text = self.metrics().await;
        let line = text.lines().find(|line| line.starts_with(series));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.expect(series).parse().expect("a number")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Posts a Stripe body, signed with `secret` as of now.
    pub async fn post_signed(&self, secret: &str, body: &[u8]) -> reqwest::Response {
        let header = signed(secret, body, now());
        self.http
            .post(self.url("/webhooks/stripe/main"))
            .header("content-type", "application/json")
            .header(HEADER, header)
            .body(body.to_vec())
            .send()
            .await
            .expect("an answer")
    }

    /// Every message on BILLING: subject and body.
    pub async fn billing(&self) -> Vec<(String, serde_json::Value)> {
        let settings = NatsSettings::for_testing(&self.nats.url(), &self.nats.monitor_url());
        let bus = Bus::connect(&settings, "test").await.expect("NATS");
        let mut stream = bus
            .jetstream()
            .get_stream(subjects::BILLING)
            .await
            .expect("BILLING");
        let last = stream.info().await.expect("its state").state.last_sequence;
        let mut messages = Vec::new();
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await.expect("a message");
            let body = serde_json::from_slice(&message.payload).expect("JSON");
            messages.push((message.subject.to_string(), body));
        }
        messages
    }

    /// The service ends by itself and without an error.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(DEADLINE, self.service)
            .await
            .expect("it ends");
        ended.expect("no panic").expect("no error");
    }
}

/// Settings of one replica.
pub fn config(nats: &NatsServer, endpoints_file: PathBuf) -> Config {
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    Config {
        http_addr: local(port()),
        health_addr: local(port()),
        billing_endpoints_file: endpoints_file,
        billing_endpoints_check_every: Duration::from_millis(50),
        publish_timeout: Duration::from_secs(2),
        head_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(10),
        max_in_flight: 64,
        max_connections: 512,
        max_connection_age: Duration::from_secs(120),
        max_body_memory_mib: 16,
        group_commit: true,
        catchup: CatchUpSettings::for_testing(None),
        nats: NatsSettings::for_testing(&nats.url(), &nats.monitor_url()),
        telemetry: TelemetrySettings::for_testing(),
        lifecycle: LifecycleSettings {
            drain_time: Duration::from_secs(5),
        },
    }
}

fn port() -> u16 {
    free_port()
}

pub fn endpoints(secret: &str) -> String {
    format!(
        "endpoints:\n- {{ id: main, provider: stripe, account: acct_default, livemode: true, secrets: [{secret}] }}\n\
         - {{ id: desk, provider: standard, account: acct_desk, secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw] }}\n"
    )
}

pub fn now() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    i64::try_from(since.as_secs()).expect("seconds")
}

pub fn signed(secret: &str, body: &[u8], at: i64) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes()))
}

/// A failed invoice, as an event of this id.
pub fn failed_invoice(event_id: &str) -> Vec<u8> {
    let body = fixture("stripe/a1_old_invoice.payment_failed.json");
    let text = String::from_utf8(body).expect("text");
    assert!(text.contains("evt_1QoldA1failed"));
    text.replace("evt_1QoldA1failed", event_id).into_bytes()
}

pub fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    std::fs::read(path).expect("a fixture")
}
