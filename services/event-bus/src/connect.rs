//! The connection: settings, options that differ from the client's defaults, and the [`Bus`] from
//! which publishers, consumers and projections are made.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::{Client, ConnectOptions, Event};
use bytes::Bytes;
use clap::Args;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::bucket::Bucket;
use crate::consume::Consumer;
use crate::consumer_config::ConsumerConfig;
use crate::dead_letter::DeadLetters;
use crate::eraser::Eraser;
use crate::metrics;
use crate::preflight::{self, PreflightError};
use crate::projection::Projection;
use crate::publish::Publisher;
use crate::stored_ids::{self, StoredIdsError};
use crate::topology::{self, TopologyError};

/// A dead server is noticed after two of these.
const PING_EVERY: Duration = Duration::from_secs(5);
const RECONNECT: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
const START_AGAIN: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// Where the bus is.
#[derive(Debug, Clone, Args)]
pub struct NatsSettings {
    /// Addresses of the NATS servers, nats://host:port or tls://host:port, comma-separated.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    pub nats_url: String,
    /// File with the credentials (JWT and seed).
    #[arg(long, env = "NATS_CREDS")]
    pub nats_creds: Option<PathBuf>,
    /// Monitoring addresses of every NATS server, comma-separated; asked at start whether acks are durable.
    #[arg(long, env = "NATS_MONITOR_URLS", value_delimiter = ',')]
    pub nats_monitor_urls: Vec<String>,
    /// Copies of each message: 1, 3 or 5.
    #[arg(long, env = "NATS_REPLICAS", default_value_t = 1, value_parser = replicas)]
    pub nats_replicas: usize,
    /// Start even if acks are not durable. Never in production.
    #[arg(long, env = "ALLOW_LAZY_SYNC", default_value_t = false, action = clap::ArgAction::Set)]
    pub allow_lazy_sync: bool,
}

impl NatsSettings {
    /// One server, its monitoring address asked.
    pub fn for_testing(url: &str, monitor_url: &str) -> Self {
        Self {
            nats_url: url.to_owned(),
            nats_creds: None,
            nats_monitor_urls: vec![monitor_url.to_owned()],
            nats_replicas: 1,
            allow_lazy_sync: false,
        }
    }
}

fn replicas(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("1, 3 or 5 is expected".to_owned()),
    }
}

/// The last message of a subject could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the last message of {subject} cannot be read")]
pub struct LastError {
    subject: String,
    #[source]
    source: async_nats::Error,
}

/// Why the bus is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The credentials file cannot be read.
    #[error("bad setting NATS_CREDS: {} cannot be read", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The address is not one, or the server refuses us.
    #[error("NATS_URL cannot be connected to")]
    Connect(#[source] async_nats::ConnectError),
    /// Acks are not durable.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The streams are not as they must be.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The process was told to stop before the bus was ready.
    #[error("stopped before NATS could be reached")]
    Stopped,
}

/// A connection whose streams are as they must be. Clones share it.
#[derive(Debug, Clone)]
pub struct Bus {
    client: Client,
    js: Context,
    replicas: usize,
}

impl Bus {
    /// Connects as `service`, checks that acks are durable, and creates or verifies the streams.
    /// Waits for servers that are not there yet, until `shutdown`; what waiting cannot heal is an
    /// error at once.
    pub async fn start(
        settings: &NatsSettings,
        service: &str,
        shutdown: &CancellationToken,
    ) -> Result<Self, BusError> {
        metrics::register();
        let bus = Self::connect(settings, service).await?;
        for attempt in 1.. {
            let failed = match bus.prepare(settings).await {
                Ok(()) => break,
                Err(error) if is_transient(&error) => error,
                Err(error) => return Err(error),
            };
            warn!(error = %failed, "The bus is not ready yet: {failed}");
            let pause = tokio::time::sleep(START_AGAIN.jittered(attempt));
            if shutdown.run_until_cancelled(pause).await.is_none() {
                return Err(BusError::Stopped);
            }
        }
        Ok(bus)
    }

    /// Connects without looking at durability or streams: for tools and tests.
    pub async fn connect(settings: &NatsSettings, service: &str) -> Result<Self, BusError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut options = ConnectOptions::new()
            .name(service)
            .ping_interval(PING_EVERY)
            .connection_timeout(Duration::from_secs(2))
            .request_timeout(Some(Duration::from_secs(5)))
            .retry_on_initial_connect()
            .reconnect_delay_callback(|attempts| RECONNECT.jittered(attempts as u64))
            .subscription_capacity(4_096)
            .event_callback(log_event);
        if let Some(path) = &settings.nats_creds {
            options =
                options
                    .credentials_file(path)
                    .await
                    .map_err(|source| BusError::Credentials {
                        path: path.clone(),
                        source,
                    })?;
        }
        let servers: Vec<&str> = settings.nats_url.split(',').map(str::trim).collect();
        let client = options
            .connect(servers.as_slice())
            .await
            .map_err(BusError::Connect)?;
        let js = ContextBuilder::new()
            .timeout(Duration::from_secs(5))
            .backpressure_on_inflight(true)
            .build(client.clone());
        Ok(Self {
            client,
            js,
            replicas: settings.nats_replicas,
        })
    }

    async fn prepare(&self, settings: &NatsSettings) -> Result<(), BusError> {
        match preflight::check(&settings.nats_monitor_urls).await {
            Ok(()) => {}
            Err(error) if settings.allow_lazy_sync => {
                warn!("Acks may not survive a power cut (ALLOW_LAZY_SYNC=true): {error}");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(topology::declare(&self.js, self.replicas).await?)
    }

    /// A publisher with the default time limit.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.js.clone())
    }

    /// A durable consumer; it is created when it runs.
    pub fn consumer(&self, config: ConsumerConfig) -> Consumer {
        Consumer::new(self.clone(), config)
    }

    /// A read model's source: last message per subject of `stream` under `filter`, then what comes.
    pub fn projection(&self, stream: &str, filter: &str) -> Projection {
        Projection::new(self.clone(), stream, filter)
    }

    /// What was set aside.
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.clone())
    }

    /// True while a server is connected. A hint: what counts is whether a publish is acked.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Ends when JetStream answers a question, or fails after 5 seconds: for readiness.
    pub async fn check(&self) -> Result<(), async_nats::jetstream::context::AccountError> {
        self.js.query_account().await.map(drop)
    }

    /// The bucket of the catch-up's cursor and turn.
    pub fn catchup_bucket(&self) -> Bucket {
        Bucket::new(self.js.clone(), topology::CATCHUP)
    }

    /// Which of `ids` are on `stream`, in messages under `filter` stored at `since` or later.
    pub async fn stored_ids(
        &self,
        stream: &str,
        filter: &str,
        since: jiff::Timestamp,
        ids: &HashSet<String>,
    ) -> Result<HashSet<String>, StoredIdsError> {
        stored_ids::find(&self.js, stream, filter, since, ids).await
    }

    /// The body of the last message of a subject; `None` when there is none.
    pub async fn last(&self, stream: &str, subject: &str) -> Result<Option<Bytes>, LastError> {
        let failed = |source: async_nats::Error| LastError {
            subject: subject.to_owned(),
            source,
        };
        let found = self.js.get_stream_no_info(stream).await;
        let found = found.map_err(|error| failed(error.into()))?;
        match found.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message.payload)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// For taking messages off the streams for good.
    pub fn eraser(&self) -> Eraser {
        Eraser::new(self)
    }

    /// The JetStream context, for what only a test or a measurement looks at.
    pub fn jetstream(&self) -> &Context {
        &self.js
    }

    /// Copies of each message.
    pub(crate) fn replicas(&self) -> usize {
        self.replicas
    }

    /// Grows with every (re)connection. Pull requests do not survive one, and the client's own
    /// notice of it can be missed; a counter cannot.
    pub(crate) fn connections(&self) -> u64 {
        let statistics = self.client.statistics();
        statistics
            .connects
            .load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Asks the server something and waits for the answer, a second at most: it comes after
    /// everything that the server sent us before.
    pub(crate) async fn round_trip(&self) {
        if self.is_connected() {
            // An error is an answer too, and without one there is nothing to wait for.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.check()).await;
        }
    }

    /// Sends what is buffered (acks above all) before the process ends.
    pub async fn flush(&self) {
        let flushed = tokio::time::timeout(Duration::from_secs(2), self.client.flush()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            warn!("The last acks may not have reached NATS");
        }
    }
}

fn is_transient(error: &BusError) -> bool {
    match error {
        BusError::Preflight(PreflightError::Unreachable { .. }) => true,
        BusError::Topology(error) => error.is_transient(),
        _ => false,
    }
}

/// For the log only: events can be lost, so nothing may depend on them.
async fn log_event(event: Event) {
    match event {
        Event::Connected => info!("Connected to NATS"),
        Event::Disconnected => warn!("Disconnected from NATS"),
        Event::SlowConsumer(id) => {
            warn!(
                subscription = id,
                "NATS messages were dropped here and will come again"
            );
        }
        other => info!("NATS: {other}"),
    }
}
