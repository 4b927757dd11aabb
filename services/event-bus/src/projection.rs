//! A read model's source: the last message of each subject, then every one that comes.
//!
//! The consumer is ephemeral and keeps no state on the server worth having; after any interruption
//! or gap everything is read again from the last messages. So the one who applies entries merges
//! them by version and never by arrival, and seeing one twice is ordinary.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use bytes::Bytes;
use futures_util::FutureExt;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::connect::Bus;
use crate::delivery::Delivery;
use crate::envelope::Envelope;
use crate::feed::{Fed, Feed, HEARTBEAT, Open, OpenError, Opened};

/// The server forgets our consumer this long after we are gone.
const FORGET_AFTER: Duration = Duration::from_secs(30);
const BATCH: usize = 256;

/// How far a projection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProjectionStatus {
    /// Everything that was there at start has been applied. Stays true.
    pub caught_up: bool,
    /// Reading goes on; false from an interruption until everything has been read again, so that
    /// what is known may be old.
    pub following: bool,
}

/// One message of a projection.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The message's subject.
    pub subject: String,
    /// The body: canonical proto3 JSON.
    pub body: Bytes,
    /// What the message says about itself.
    pub envelope: Envelope,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream stored it.
    pub stored_at: Timestamp,
}

impl Entry {
    /// The message in the body; the error says where it stops making sense, and quotes nothing.
    pub fn parse<M: DeserializeOwned>(&self) -> Result<M, String> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("{:?} at line {line} column {column}", error.classify())
        })
    }
}

/// Last message per subject of one stream, and then what comes.
#[derive(Debug)]
pub struct Projection {
    bus: Bus,
    stream: String,
    filter: String,
    status: watch::Sender<ProjectionStatus>,
}

impl Projection {
    pub(crate) fn new(bus: Bus, stream: &str, filter: &str) -> Self {
        Self {
            bus,
            stream: stream.to_owned(),
            filter: filter.to_owned(),
            status: watch::Sender::new(ProjectionStatus::default()),
        }
    }

    /// How far it is, now and as it changes.
    pub fn status(&self) -> watch::Receiver<ProjectionStatus> {
        self.status.subscribe()
    }

    /// Reads until `shutdown` and hands each entry to `apply`, which merges it by version. Fails
    /// only when the server refuses the consumer.
    pub async fn run(
        self,
        mut apply: impl FnMut(Entry) + Send,
        shutdown: CancellationToken,
    ) -> Result<(), OpenError> {
        let name = format!("projection of {}", self.stream);
        let open: Open = {
            let (bus, stream, filter) =
                (self.bus.clone(), self.stream.clone(), self.filter.clone());
            Box::new(move || open(bus.clone(), stream.clone(), filter.clone()).boxed())
        };
        let mut pass = Pass::default();
        let mut feed = Feed::new(self.bus.clone(), &name, open);
        loop {
            let fed = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                fed = feed.next() => fed?,
            };
            match fed {
                Fed::Opened {
                    pending,
                    last_sequence,
                } => {
                    pass = Pass {
                        open: true,
                        left: pending,
                        last_sequence,
                        consumer_sequence: 0,
                    };
                    self.note(&pass);
                }
                Fed::Lost => {
                    pass.open = false;
                    self.status
                        .send_if_modified(|status| std::mem::replace(&mut status.following, false));
                }
                Fed::Message(message) => {
                    let (Ok(info), Some(delivery)) = (message.info(), Delivery::read(&message))
                    else {
                        continue;
                    };
                    // What was left over from before an interruption is read again anyhow.
                    if !pass.open {
                        continue;
                    }
                    if info.consumer_sequence != pass.consumer_sequence + 1 {
                        warn!(stream = %self.stream, "The {name} missed messages and starts over");
                        feed.restart("messages are missing");
                        pass.open = false;
                        continue;
                    }
                    pass.consumer_sequence = info.consumer_sequence;
                    pass.left = pass.left.saturating_sub(1).min(info.pending);
                    if info.stream_sequence >= pass.last_sequence {
                        pass.left = 0;
                    }
                    apply(Entry {
                        subject: delivery.subject,
                        body: delivery.body,
                        envelope: delivery.envelope,
                        sequence: delivery.stream_sequence,
                        stored_at: delivery.stored_at,
                    });
                    self.note(&pass);
                }
            }
        }
    }

    fn note(&self, pass: &Pass) {
        if pass.left > 0 {
            return;
        }
        self.status.send_if_modified(|status| {
            let complete = ProjectionStatus {
                caught_up: true,
                following: true,
            };
            if *status == complete {
                return false;
            }
            info!(stream = %self.stream, sequence = pass.last_sequence,
                "The projection of {} has caught up", self.stream);
            *status = complete;
            true
        });
    }
}

/// One reading from the last messages on.
#[derive(Default)]
struct Pass {
    open: bool,
    /// Messages of the time of opening that are still to come, at most.
    left: u64,
    last_sequence: u64,
    consumer_sequence: u64,
}

async fn open(bus: Bus, stream: String, filter: String) -> Result<Opened, OpenError> {
    let handle = bus
        .jetstream()
        .get_stream(&stream)
        .await
        .map_err(|error| OpenError::not_now("the stream does not answer", error))?;
    let last_sequence = handle.cached_info().state.last_sequence;
    let consumer = handle
        .create_consumer(pull::Config {
            // Named, so that a leak can be told from others; new each time, so that none is shared.
            name: Some(format!("projection_{:016x}", rand::random::<u64>())),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ack_policy: AckPolicy::None,
            filter_subject: filter,
            inactive_threshold: FORGET_AFTER,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        })
        .await
        .map_err(|error| OpenError::not_now("the consumer cannot be created", error))?;
    let pending = consumer.cached_info().num_pending;
    let messages = consumer
        .stream()
        .max_messages_per_batch(BATCH)
        .heartbeat(HEARTBEAT)
        .expires(Duration::from_secs(20))
        .messages()
        .await
        .map_err(|error| OpenError::not_now("the consumer cannot be read", error))?;
    Ok(Opened {
        messages,
        pending,
        last_sequence,
    })
}
