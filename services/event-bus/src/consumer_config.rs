//! A durable consumer as it must be, and making it so on the server.
//!
//! What the server can change on an existing consumer is changed; where it starts and how it
//! acknowledges cannot be, and a consumer of another kind stops the start.

use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::ConsumerErrorKind;
use futures_util::TryFutureExt;

use crate::backoff::Backoff;
use crate::connect::Bus;
use crate::feed::{HEARTBEAT, OpenError, Opened};

/// How long the server answers one request for messages. A process that stands still is sent what it has
/// asked for, also what was not acknowledged in time and has others who would handle it; not beyond this.
const ASKED_FOR: Duration = Duration::from_secs(10);

/// In which order messages of one subject are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    /// One after the other; different subjects side by side.
    PerSubject,
    /// Side by side.
    None,
}

/// Where a consumer begins when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// With the oldest message there is.
    Oldest,
    /// With the last message of each subject: for streams whose messages carry whole states.
    LatestPerSubject,
    /// With messages that come after its creation.
    New,
}

/// A durable consumer as it must be. Its name is its identity on the server: all replicas of a
/// service share one.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    pub(crate) stream: String,
    pub(crate) name: String,
    pub(crate) filters: Vec<String>,
    pub(crate) start_at: StartAt,
    pub(crate) concurrency: usize,
    pub(crate) ordering: Ordering,
    pub(crate) ack_wait: Duration,
    pub(crate) max_ack_pending: i64,
    pub(crate) max_attempts: Option<u64>,
    pub(crate) backoff: Backoff,
}

impl ConsumerConfig {
    /// Consumer `name` on `stream`, for subjects under `filter`: from the oldest message, 8 at
    /// once, in order per subject, tried for ever with 0.5 s to 1 min between.
    pub fn new(stream: &str, name: &str, filter: &str) -> Self {
        Self {
            stream: stream.to_owned(),
            name: name.to_owned(),
            filters: vec![filter.to_owned()],
            start_at: StartAt::Oldest,
            concurrency: 8,
            ordering: Ordering::PerSubject,
            // What a killed process held comes again this soon; long work says that it goes on.
            ack_wait: Duration::from_secs(5),
            max_ack_pending: 1_000,
            max_attempts: None,
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(60)),
        }
    }

    /// Several filters, which may not overlap.
    #[must_use]
    pub fn filters(mut self, filters: &[&str]) -> Self {
        self.filters = filters.iter().map(|f| (*f).to_owned()).collect();
        self
    }

    /// Where it begins when it is created.
    #[must_use]
    pub fn start_at(mut self, start_at: StartAt) -> Self {
        self.start_at = start_at;
        self
    }

    /// Messages handled at once in this process, at least 1. As many again are fetched ahead.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.max(1);
        self
    }

    /// Order of messages of one subject.
    #[must_use]
    pub fn ordering(mut self, ordering: Ordering) -> Self {
        self.ordering = ordering;
        self
    }

    /// After this without a sign of life from us a message comes again; at least 1 s.
    #[must_use]
    pub fn ack_wait(mut self, ack_wait: Duration) -> Self {
        self.ack_wait = ack_wait.max(Duration::from_secs(1));
        self
    }

    /// Messages out at once over all replicas, those that wait for a retry included.
    #[must_use]
    pub fn max_ack_pending(mut self, max_ack_pending: u16) -> Self {
        self.max_ack_pending = i64::from(max_ack_pending.max(1));
        self
    }

    /// Deliveries after which a message becomes a dead letter; `None`: never. An outside system
    /// being down is no reason for one: keep the intent in a table instead.
    #[must_use]
    pub fn max_attempts(mut self, max_attempts: Option<u64>) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// The wait between attempts.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }
}

/// Creates or verifies the consumer, and begins to read it.
pub(crate) async fn open(bus: Bus, config: ConsumerConfig) -> Result<Opened, OpenError> {
    let stream = bus
        .jetstream()
        .get_stream_no_info(&config.stream)
        .map_err(|error| OpenError::not_now("the stream cannot be named", error))
        .await?;
    let wanted = server_config(&config, bus.replicas());
    let durable = match stream.get_consumer::<pull::Config>(&config.name).await {
        Ok(found) if is_as_wanted(&found.cached_info().config, &wanted) => found,
        Ok(found) if is_another(&found.cached_info().config, &wanted) => {
            return Err(refused(
                &config,
                "its ack or deliver policy is another one and cannot be changed",
            ));
        }
        // Missing, or to be changed: "create" does both.
        _ => stream
            .create_consumer(wanted)
            .await
            .map_err(|error| refused_or_not_now(&config, &error))?,
    };
    let pending = durable.cached_info().num_pending;
    let messages = durable
        .stream()
        .max_messages_per_batch(config.concurrency)
        .heartbeat(HEARTBEAT)
        .expires(ASKED_FOR)
        .messages()
        .await
        .map_err(|error| OpenError::not_now("the consumer cannot be read", error))?;
    Ok(Opened {
        messages,
        pending,
        last_sequence: 0,
    })
}

fn server_config(config: &ConsumerConfig, replicas: usize) -> pull::Config {
    let (filter_subject, filter_subjects) = match config.filters.as_slice() {
        [one] => (one.clone(), Vec::new()),
        several => (String::new(), several.to_vec()),
    };
    pull::Config {
        durable_name: Some(config.name.clone()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: config.ack_wait,
        // Backoff and the last attempt are ours: the server's would leave messages behind.
        max_deliver: -1,
        max_ack_pending: config.max_ack_pending,
        deliver_policy: match config.start_at {
            StartAt::Oldest => DeliverPolicy::All,
            StartAt::LatestPerSubject => DeliverPolicy::LastPerSubject,
            StartAt::New => DeliverPolicy::New,
        },
        filter_subject,
        filter_subjects,
        num_replicas: replicas,
        ..pull::Config::default()
    }
}

fn is_as_wanted(found: &consumer::Config, wanted: &pull::Config) -> bool {
    !is_another(found, wanted)
        && found.ack_wait == wanted.ack_wait
        && found.max_deliver == wanted.max_deliver
        && found.max_ack_pending == wanted.max_ack_pending
        && found.filter_subject == wanted.filter_subject
        && found.filter_subjects == wanted.filter_subjects
        && found.num_replicas == wanted.num_replicas
}

/// Differs in what the server never changes.
fn is_another(found: &consumer::Config, wanted: &pull::Config) -> bool {
    found.ack_policy != wanted.ack_policy || found.deliver_policy != wanted.deliver_policy
}

fn refused(config: &ConsumerConfig, cause: impl std::fmt::Display) -> OpenError {
    OpenError::Refused {
        stream: config.stream.clone(),
        consumer: config.name.clone(),
        cause: cause.to_string(),
    }
}

fn refused_or_not_now(
    config: &ConsumerConfig,
    error: &async_nats::jetstream::stream::ConsumerError,
) -> OpenError {
    match error.kind() {
        // Our request is wrong, such as an overlapping filter: waiting will not help.
        ConsumerErrorKind::JetStream(inner) if inner.code() == 400 => refused(config, inner),
        _ => OpenError::not_now("the consumer cannot be created", error),
    }
}
