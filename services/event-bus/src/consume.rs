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
use std::sync::Arc;

use async_nats::jetstream::{AckKind, Message};
use futures_util::FutureExt;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::connect::Bus;
use crate::consumer_config::{ConsumerConfig, Ordering, StartAt, open};
use crate::dead_letter;
use crate::delivery::Delivery;
use crate::dispatch::Dispatch;
use crate::disposition::Disposition;
use crate::feed::{Fed, Feed, Open, OpenError};
use crate::worker::{Handler, Worker, send};
use crate::{metrics, topology};

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

    // Another replica can have at once what we had only fetched. Reading ends before that is said:
    // to a reader that is still open the server would only send it again. What it had sent by now
    // arrives before its answer does.
    bus.round_trip().await;
    let unstarted: Vec<Message> = dispatch
        .abandon()
        .into_iter()
        .filter_map(|id| held.remove(&id))
        .chain(feed.take_over().drain(..))
        .collect();
    drop(feed);
    bus.round_trip().await;
    for message in unstarted {
        send(&message, AckKind::Nak(None)).await;
    }
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
