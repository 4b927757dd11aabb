//! Durable consumption: each message to a handler, at least once, until it says done.
//!
//! # Guarantees
//! A message is acknowledged after its handler answered `Done` and never before. One that cannot
//! be understood, is rejected, or was tried often enough goes to the dead letters first and is
//! terminated after that; where the dead letter cannot be written, it stays and comes again. A
//! handler may run as long as it likes: the server is told that work goes on. A panic in a handler
//! counts as `Retry`. A restart of NATS interrupts, and nothing needs to be restarted for it.
//!
//! # Caveats
//! Acks are sent and not confirmed, because the server's confirmation is worth no more; so an
//! acknowledged message may come again. Of one subject, messages are handled in order until one
//! of them has to be tried again, and within one process: replicas that share a consumer take
//! turns. So a handler compares versions.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::jetstream::{AckKind, Message};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, warn};

use crate::backoff::Backoff;
use crate::connect::Bus;
use crate::dead_letter::{self, SetAside};
use crate::delivery::Delivery;
use crate::dispatch::Dispatch;
use crate::disposition::Disposition;
use crate::feed::{Fed, Feed, HEARTBEAT, Open, OpenError, Opened};
use crate::publish::Publisher;
use crate::{metrics, topology, trace_context};

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
    stream: String,
    name: String,
    filters: Vec<String>,
    start_at: StartAt,
    concurrency: usize,
    ordering: Ordering,
    ack_wait: Duration,
    max_ack_pending: i64,
    max_attempts: Option<u64>,
    backoff: Backoff,
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
            ack_wait: Duration::from_secs(30),
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

/// How long an ack may wait for room in the client's queue.
const SEND_WITHIN: Duration = Duration::from_secs(1);

type Handler = Arc<dyn Fn(Delivery) -> BoxFuture<'static, Disposition> + Send + Sync>;

/// A durable consumer, ready to run.
#[derive(Debug, Clone)]
pub struct Consumer {
    bus: Bus,
    config: ConsumerConfig,
}

impl Consumer {
    pub(crate) fn new(bus: Bus, config: ConsumerConfig) -> Self {
        Self { bus, config }
    }

    /// Creates or verifies the consumer on the server, so that it misses nothing from now on and a
    /// wrong one stops the start. [`Self::run`] does the same.
    pub async fn declare(&self) -> Result<(), OpenError> {
        open(self.bus.clone(), self.config.clone()).await.map(drop)
    }

    /// Consumes until `shutdown`: each message, parsed as `M`, to `handler`. A body that is no `M`
    /// is a dead letter. Then lets running handlers finish and gives back what was fetched ahead.
    /// Fails only when the server refuses the consumer as it must be.
    pub async fn run<M, H, F>(
        self,
        handler: H,
        shutdown: CancellationToken,
    ) -> Result<(), OpenError>
    where
        M: DeserializeOwned + Send + 'static,
        H: Fn(M, Delivery) -> F + Send + Sync + 'static,
        F: Future<Output = Disposition> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.run_raw(
            move |delivery: Delivery| {
                let handler = Arc::clone(&handler);
                async move {
                    match delivery.parse::<M>() {
                        Ok(message) => handler(message, delivery).await,
                        Err(answer) => answer,
                    }
                }
            },
            shutdown,
        )
        .await
    }

    /// As [`Self::run`], with the body left to the handler.
    pub async fn run_raw<H, F>(
        self,
        handler: H,
        shutdown: CancellationToken,
    ) -> Result<(), OpenError>
    where
        H: Fn(Delivery) -> F + Send + Sync + 'static,
        F: Future<Output = Disposition> + Send + 'static,
    {
        metrics::register_consumer(&self.config.name);
        let handler: Handler = Arc::new(move |delivery| handler(delivery).boxed());
        let worker = Arc::new(Worker {
            publisher: self.bus.publisher(),
            stream: self.config.stream.clone(),
            consumer: self.config.name.clone(),
            max_attempts: self.config.max_attempts,
            backoff: self.config.backoff,
            handler,
        });
        // Its own replays wait in the dead letter stream, where no other consumer sees them.
        let replays = ConsumerConfig {
            stream: topology::DEAD_LETTER.to_owned(),
            name: format!("replay_{}_{}", self.config.stream, self.config.name),
            filters: vec![dead_letter::replay_filter(
                &self.config.stream,
                &self.config.name,
            )],
            start_at: StartAt::Oldest,
            concurrency: 1,
            ..self.config.clone()
        };
        let main = read(
            self.bus.clone(),
            self.config.clone(),
            Arc::clone(&worker),
            shutdown.clone(),
        );
        let replayed = read(self.bus.clone(), replays, worker, shutdown);
        tokio::try_join!(main, replayed)?;
        self.bus.flush().await;
        Ok(())
    }
}

/// Reads one durable consumer until `shutdown`.
async fn read(
    bus: Bus,
    config: ConsumerConfig,
    worker: Arc<Worker>,
    shutdown: CancellationToken,
) -> Result<(), OpenError> {
    let capacity = config.concurrency * 2;
    let mut dispatch = Dispatch::new(config.concurrency, config.ordering == Ordering::PerSubject);
    let mut running: JoinSet<(u64, String)> = JoinSet::new();
    // Every message we hold, to tell the server that it is in work.
    let mut held: HashMap<u64, Message> = HashMap::new();
    let mut next_id = 0_u64;
    let mut progress = tokio::time::interval(config.ack_wait / 3);
    progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let open: Open = {
        let (bus, config) = (bus.clone(), config.clone());
        Box::new(move || open(bus.clone(), config.clone()).boxed())
    };
    let mut feed = Feed::new(bus.clone(), &config.name, open);

    while !shutdown.is_cancelled() {
        while let Some((subject, id)) = dispatch.start() {
            if let Some(message) = held.get(&id).cloned() {
                let worker = Arc::clone(&worker);
                running.spawn(async move {
                    worker.work(message).await;
                    (id, subject)
                });
            }
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            Some(ended) = running.join_next() => {
                finish(ended, &mut held, &mut dispatch);
            }
            _ = progress.tick() => {
                // What the client holds ages too; here it is kept alive with the rest.
                let taken: Vec<_> = if dispatch.held() >= capacity {
                    feed.take_over().drain(..).collect()
                } else {
                    Vec::new()
                };
                for message in taken {
                    next_id += 1;
                    take_in(next_id, message, &mut held, &mut dispatch);
                }
                say_in_work(&bus, &held).await;
            }
            fed = feed.next(), if dispatch.held() < capacity => {
                if let Fed::Message(message) = fed? {
                    next_id += 1;
                    take_in(next_id, *message, &mut held, &mut dispatch);
                }
            }
        }
    }

    // Another replica can have at once what we had only fetched.
    for id in dispatch.abandon() {
        if let Some(message) = held.remove(&id) {
            send(&message, AckKind::Nak(None)).await;
        }
    }
    for message in feed.take_over().drain(..) {
        send(&message, AckKind::Nak(None)).await;
    }
    drop(feed);
    while !running.is_empty() {
        tokio::select! {
            Some(ended) = running.join_next() => finish(ended, &mut held, &mut dispatch),
            _ = progress.tick() => say_in_work(&bus, &held).await,
        }
    }
    Ok(())
}

/// Starts the ack wait of every held message anew. Nobody counts it while there is no server.
async fn say_in_work(bus: &Bus, held: &HashMap<u64, Message>) {
    if bus.is_connected() {
        for message in held.values() {
            send(message, AckKind::Progress).await;
        }
    }
}

fn take_in(
    id: u64,
    message: Message,
    held: &mut HashMap<u64, Message>,
    dispatch: &mut Dispatch<u64>,
) {
    dispatch.push(message.subject.to_string(), id);
    held.insert(id, message);
}

fn finish(
    ended: Result<(u64, String), tokio::task::JoinError>,
    held: &mut HashMap<u64, Message>,
    dispatch: &mut Dispatch<u64>,
) {
    match ended {
        Ok((id, subject)) => {
            held.remove(&id);
            dispatch.finish(subject);
        }
        // Handlers' panics are caught inside; what is left is the runtime going away.
        Err(error) => error!(error = %error, "A delivery's task was lost"),
    }
}

async fn open(bus: Bus, config: ConsumerConfig) -> Result<Opened, OpenError> {
    let stream = bus
        .jetstream()
        .get_stream_no_info(&config.stream)
        .map_err(|error| OpenError::not_now("the stream cannot be named", error))
        .await?;
    let wanted = server_config(&config, bus.replicas());
    let consumer = match stream.get_consumer::<pull::Config>(&config.name).await {
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
    let pending = consumer.cached_info().num_pending;
    let messages = consumer
        .stream()
        .max_messages_per_batch(config.concurrency)
        .heartbeat(HEARTBEAT)
        .expires(Duration::from_secs(30))
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

fn is_as_wanted(found: &async_nats::jetstream::consumer::Config, wanted: &pull::Config) -> bool {
    !is_another(found, wanted)
        && found.ack_wait == wanted.ack_wait
        && found.max_deliver == wanted.max_deliver
        && found.max_ack_pending == wanted.max_ack_pending
        && found.filter_subject == wanted.filter_subject
        && found.filter_subjects == wanted.filter_subjects
        && found.num_replicas == wanted.num_replicas
}

/// Differs in what the server never changes.
fn is_another(found: &async_nats::jetstream::consumer::Config, wanted: &pull::Config) -> bool {
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

/// What turns a delivery into an answer to the server.
struct Worker {
    publisher: Publisher,
    stream: String,
    consumer: String,
    max_attempts: Option<u64>,
    backoff: Backoff,
    handler: Handler,
}

impl Worker {
    async fn work(&self, message: Message) {
        let Some(delivery) = Delivery::read(&message) else {
            error!(consumer = %self.consumer, "A message without an ack address was delivered");
            return;
        };
        let span = tracing::info_span!(
            "bus.delivery",
            consumer = %self.consumer,
            message.id = %delivery.envelope.ce_id,
            message.sequence = delivery.stream_sequence,
            message.attempt = delivery.attempt,
        );
        if let Some(traceparent) = &delivery.envelope.traceparent {
            trace_context::link(&span, traceparent);
        }
        async {
            let started = std::time::Instant::now();
            let handling = async { (self.handler)(delivery.clone()).await };
            let answer = AssertUnwindSafe(handling)
                .catch_unwind()
                .await
                .unwrap_or_else(|_| Disposition::retry("the handler panicked"));
            ::metrics::histogram!(metrics::HANDLING, "consumer" => self.consumer.clone())
                .record(started.elapsed());
            let outcome = self.settle(&message, &delivery, answer).await;
            ::metrics::counter!(metrics::DELIVERIES,
                "consumer" => self.consumer.clone(), "outcome" => outcome)
            .increment(1);
        }
        .instrument(span)
        .await;
    }

    async fn settle(
        &self,
        message: &Message,
        delivery: &Delivery,
        answer: Disposition,
    ) -> &'static str {
        match answer {
            Disposition::Done => {
                send(message, AckKind::Ack).await;
                "done"
            }
            Disposition::Retry { cause, after } => {
                if self.max_attempts.is_some_and(|max| delivery.attempt >= max) {
                    return self.set_aside(message, delivery, &cause).await;
                }
                let after = after.unwrap_or_else(|| self.backoff.jittered(delivery.attempt));
                warn!(cause = %cause, after_ms = after.as_millis(), "A message is tried again: {cause}");
                send(message, AckKind::Nak(Some(after))).await;
                "retry"
            }
            Disposition::Reject { cause } => self.set_aside(message, delivery, &cause).await,
        }
    }

    /// The dead letter first; the message itself goes only when that is durable.
    async fn set_aside(&self, message: &Message, delivery: &Delivery, cause: &str) -> &'static str {
        let aside = SetAside {
            stream: &self.stream,
            consumer: &self.consumer,
            cause,
            delivery,
        };
        match dead_letter::write(&self.publisher, &aside).await {
            Ok(_) => {
                error!(cause = %cause, "A message was set aside as dead letter: {cause}");
                send(message, AckKind::Term).await;
                "dead_letter"
            }
            Err(failed) => {
                error!(error = %failed, cause = %cause,
                    "A dead letter could not be written; the message comes again: {cause}");
                let after = self.backoff.jittered(delivery.attempt.max(3));
                send(message, AckKind::Nak(Some(after))).await;
                "stuck"
            }
        }
    }
}

async fn send(message: &Message, answer: AckKind) {
    // Without it the message comes again, which is what "not acknowledged" means. The client
    // queues while it has no server, and waits when its queue is full; we do not wait with it.
    match tokio::time::timeout(SEND_WITHIN, message.ack_with(answer)).await {
        Ok(Ok(())) => {}
        Ok(Err(failed)) => debug!(error = %failed, "An ack could not be sent"),
        Err(_) => debug!("An ack could not be sent: the client's queue is full"),
    }
}
