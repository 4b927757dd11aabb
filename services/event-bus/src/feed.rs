//! A pull consumer's messages for as long as the process lives, whatever happens to the server.
//!
//! The client's own iterator yields errors and goes on, or ends, or waits for a pull request that
//! died with the server. So any error, and any new connection, makes us open the consumer anew,
//! with a pause that grows. What the iterator had already received is taken over first: it would
//! otherwise come again only after the ack wait.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::warn;

use crate::backoff::Backoff;
use crate::connect::Bus;
use crate::metrics;

/// The server says at least this often that it is there.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(3);
/// How soon a new connection is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A feed that was open this long was well; its next failure is a first one.
const WELL_AFTER: Duration = Duration::from_secs(5);
const REOPEN: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// A consumer that has been opened.
pub(crate) struct Opened {
    pub(crate) messages: pull::Stream,
    /// Messages the consumer had still to deliver when it was opened.
    pub(crate) pending: u64,
    /// The stream's last sequence then.
    pub(crate) last_sequence: u64,
}

/// Why a consumer could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The server is not there, or not ready: tried again.
    #[error("{what}: {cause}")]
    NotNow {
        /// The step that failed.
        what: String,
        /// The server's answer, or that there was none.
        cause: String,
    },
    /// The consumer on the server is of another kind, and cannot be made ours.
    #[error("consumer {consumer} on stream {stream} cannot be made as it must be: {cause}")]
    Refused {
        /// The stream's name.
        stream: String,
        /// The consumer's name.
        consumer: String,
        /// The server's answer.
        cause: String,
    },
}

impl OpenError {
    pub(crate) fn not_now(what: &str, cause: impl std::fmt::Display) -> Self {
        Self::NotNow {
            what: what.to_owned(),
            cause: cause.to_string(),
        }
    }
}

/// Opens the consumer, creating or verifying it.
pub(crate) type Open = Box<dyn Fn() -> BoxFuture<'static, Result<Opened, OpenError>> + Send + Sync>;

/// What a feed has to say.
pub(crate) enum Fed {
    Message(Box<Message>),
    /// Reading began, for the first time or anew.
    Opened {
        pending: u64,
        last_sequence: u64,
    },
    /// Reading was interrupted.
    Lost,
}

pub(crate) struct Feed {
    bus: Bus,
    name: String,
    open: Open,
    state: State,
    taken_over: VecDeque<Message>,
    failures: u64,
    opened_at: Instant,
    connections: u64,
    look: Interval,
}

enum State {
    Opening(BoxFuture<'static, Result<Opened, OpenError>>),
    Open(Box<pull::Stream>),
}

impl Feed {
    pub(crate) fn new(bus: Bus, name: &str, open: Open) -> Self {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        metrics::register_reader(name);
        Self {
            connections: bus.connections(),
            state: State::Opening(open()),
            bus,
            name: name.to_owned(),
            open,
            taken_over: VecDeque::new(),
            failures: 0,
            opened_at: Instant::now(),
            look,
        }
    }

    /// What comes next. May be dropped and called again without loss. Fails only with
    /// [`OpenError::Refused`].
    pub(crate) async fn next(&mut self) -> Result<Fed, OpenError> {
        loop {
            if let Some(message) = self.taken_over.pop_front() {
                return Ok(Fed::Message(Box::new(message)));
            }
            match &mut self.state {
                State::Opening(opening) => {
                    let opened = tokio::select! {
                        opened = opening => opened,
                        _ = self.look.tick() => {
                            if self.bus.connections() != self.connections {
                                // What was asked on the old connection may never be answered.
                                self.failures = 0;
                                self.reopen("the connection is a new one");
                            }
                            continue;
                        }
                    };
                    match opened {
                        Ok(opened) => {
                            self.state = State::Open(Box::new(opened.messages));
                            self.opened_at = Instant::now();
                            return Ok(Fed::Opened {
                                pending: opened.pending,
                                last_sequence: opened.last_sequence,
                            });
                        }
                        Err(refused @ OpenError::Refused { .. }) => return Err(refused),
                        Err(error) => self.reopen(&error.to_string()),
                    }
                }
                State::Open(messages) => {
                    let lost = tokio::select! {
                        next = messages.next() => match next {
                            Some(Ok(message)) => return Ok(Fed::Message(Box::new(message))),
                            Some(Err(error)) => error.to_string(),
                            None => "the server ended it".to_owned(),
                        },
                        _ = self.look.tick() => {
                            if self.bus.connections() == self.connections {
                                continue;
                            }
                            "the connection is a new one".to_owned()
                        }
                    };
                    self.take_over();
                    if self.opened_at.elapsed() > WELL_AFTER {
                        self.failures = 0;
                    }
                    self.reopen(&lost);
                    return Ok(Fed::Lost);
                }
            }
        }
    }

    /// What has been received and not been asked for yet.
    pub(crate) fn take_over(&mut self) -> &mut VecDeque<Message> {
        if let State::Open(messages) = &mut self.state {
            while let Some(Some(Ok(message))) = messages.next().now_or_never() {
                self.taken_over.push_back(message);
            }
        }
        &mut self.taken_over
    }

    /// Gives up this reading and opens the consumer anew.
    pub(crate) fn restart(&mut self, cause: &str) {
        self.taken_over.clear();
        self.reopen(cause);
    }

    fn reopen(&mut self, cause: &str) {
        let pause = match self.failures {
            0 => Duration::ZERO,
            failures => REOPEN.jittered(failures),
        };
        self.failures += 1;
        self.connections = self.bus.connections();
        ::metrics::counter!(metrics::RESTARTS, "consumer" => self.name.clone()).increment(1);
        warn!(consumer = %self.name, attempt = self.failures,
            "{} starts reading anew: {cause}", self.name);
        let opening = (self.open)();
        self.state = State::Opening(Box::pin(async move {
            tokio::time::sleep(pause).await;
            opening.await
        }));
    }
}
