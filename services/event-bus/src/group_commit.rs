//! Group commit: publishes that wait together share a disk flush.
//!
//! With durable streams every message costs the server a flush of its own, however many are under
//! way. An atomic batch (ADR-50) of any size costs about four. So while one group is being
//! committed, what arrives waits, and goes together next. Nothing waits for company: with nothing
//! under way a publish leaves at once, by the same path as [`Publisher::publish`], and no timer
//! holds anything back.
//!
//! # Guarantees
//! Those of [`Publisher::publish`], for each message by itself: an [`Ack`] means stored, and a
//! message that cannot be stored fails alone. A batch that is refused, or whose outcome is not
//! known, is sent again message by message under the same ids; were it to land after all, the
//! server would know these ids and drop it whole.
//!
//! # Caveats
//! - Order between messages is not kept.
//! - All messages are for one stream, which must allow atomic batches; on another every batch is
//!   refused, and all goes singly.
//! - The server refuses a whole batch for one id that it has seen before. So an id that was sent
//!   from here before goes singly. What another replica sent is only known from the refusal; after
//!   refusals in a row fewer batches are tried.
//! - A caller that goes away takes its message out of the queue, unless that has left already.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_nats::jetstream::context::PublishError as ServerError;
use async_nats::jetstream::message::PublishMessage;
use async_nats::{HeaderMap, header};
use bytes::Bytes;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::envelope::Envelope;
use crate::metrics::{BATCH_SIZE, BATCHES};
use crate::publish::{self, Ack, PublishError, Publisher};
use crate::sent_ids::SentIds;

/// Fewer messages than these go singly: their flushes are cheaper than a batch's four.
const BATCH_FROM: usize = 16;
/// The most messages of a batch; the server takes 1,000.
const BATCH_MOST: usize = 256;
/// A body larger than this goes singly: it may be over the stream's limit and would spoil a batch.
const BODY_MOST: usize = 64 * 1024;
/// The next group does not wait longer than this for the one before: an ack may be lost.
const PATIENCE: Duration = Duration::from_millis(250);
/// After refusals in a row so many groups go singly, at most.
const SKIP_MOST: u32 = 32;

/// Publishes to one stream in groups. Clones share the queue.
#[derive(Debug, Clone)]
pub struct GroupPublisher {
    lane: Arc<Lane>,
}

/// The one lane in which groups follow each other.
#[derive(Debug)]
struct Lane {
    publisher: Publisher,
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Somebody holds the [`Turn`].
    taken: bool,
    waiting: Vec<Waiting>,
    sent: SentIds,
    refused_in_a_row: u32,
    /// Groups that are not to be tried as a batch.
    skip: u32,
}

/// A message in the queue.
#[derive(Debug)]
struct Waiting {
    subject: String,
    id: String,
    headers: HeaderMap,
    body: Bytes,
    deadline: Instant,
    answer: oneshot::Sender<Result<Ack, PublishError>>,
}

impl GroupPublisher {
    /// Groups of what goes through `publisher`, whose time limit counts for each message from its
    /// arrival.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn new(publisher: Publisher) -> Self {
        Self {
            lane: Arc::new(Lane {
                publisher,
                runtime: Handle::current(),
                state: Mutex::default(),
            }),
        }
    }

    /// As [`Publisher::publish`].
    pub async fn publish<M: Serialize + ?Sized>(
        &self,
        subject: &str,
        envelope: &Envelope,
        message: &M,
    ) -> Result<Ack, PublishError> {
        let deadline = Instant::now() + self.lane.publisher.time_limit();
        let (headers, body) = (envelope.write(), publish::json(message)?);
        let queued = {
            let mut state = self.lane.lock();
            if state.taken {
                let (answer, answered) = oneshot::channel();
                state.waiting.push(Waiting {
                    subject: subject.to_owned(),
                    id: envelope.ce_id.clone(),
                    headers: headers.clone(),
                    body: body.clone(),
                    deadline,
                    answer,
                });
                Some(answered)
            } else {
                state.taken = true;
                state.sent.insert(&envelope.ce_id);
                None
            }
        };
        match queued {
            None => {
                let turn = Turn(Arc::clone(&self.lane));
                let sending = self
                    .lane
                    .publisher
                    .publish_until(subject, headers, body, deadline);
                turn.hold_while(sending).await
            }
            Some(answered) => match tokio::time::timeout_at(deadline, answered).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) | Err(_) => Err(PublishError::Unavailable(None)),
            },
        }
    }
}

/// The right to publish alone. Whoever drops it, a caller that goes away included, passes it on.
struct Turn(Arc<Lane>);

impl Turn {
    /// Ends when `work` does; the turn is passed on then, or when patience ends.
    async fn hold_while<T>(self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(PATIENCE) => drop(self),
        }
        work.await
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let lane = Arc::clone(&self.0);
        let group = {
            let mut state = lane.lock();
            let mut waiting = std::mem::take(&mut state.waiting);
            state.waiting = waiting.split_off(waiting.len().min(BATCH_MOST));
            state.taken = !waiting.is_empty();
            waiting
        };
        if group.is_empty() {
            return;
        }
        let next = Turn(Arc::clone(&lane));
        let flush = async move { next.hold_while(lane.flush(group)).await };
        self.0.runtime.spawn(flush);
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|held| held.into_inner())
    }

    /// Publishes a group and answers everybody in it.
    async fn flush(&self, group: Vec<Waiting>) {
        let (batch, singles) = self.sort(group);
        if !batch.is_empty() {
            match self.send_batch(&batch).await {
                Ok(first) => {
                    self.lock().refused_in_a_row = 0;
                    for (sequence, waiting) in (first..).zip(batch) {
                        let ack = publish::counted(sequence, false);
                        // Whoever does not listen any more sends it again.
                        let _ = waiting.answer.send(Ok(ack));
                    }
                }
                Err(outcome) => {
                    metrics::counter!(BATCHES, "outcome" => outcome.as_str()).increment(1);
                    if outcome == Failed::Refused {
                        self.lock().hesitate();
                    }
                    self.send_singly(batch).await;
                }
            }
        }
        self.send_singly(singles).await;
    }

    /// What goes as a batch, and what goes singly after it.
    fn sort(&self, mut group: Vec<Waiting>) -> (Vec<Waiting>, Vec<Waiting>) {
        group.retain(|waiting| !waiting.answer.is_closed());
        let mut state = self.lock();
        let (mut batch, mut singles) = (Vec::with_capacity(group.len()), Vec::new());
        for waiting in group {
            // An id twice in this group counts as sent before, too.
            let is_new = state.sent.insert(&waiting.id);
            if is_new && waiting.body.len() <= BODY_MOST {
                batch.push(waiting);
            } else {
                singles.push(waiting);
            }
        }
        if batch.len() >= BATCH_FROM && state.skip > 0 {
            state.skip -= 1;
            singles.append(&mut batch);
        } else if batch.len() < BATCH_FROM {
            singles.append(&mut batch);
        }
        (batch, singles)
    }

    /// Sends all of them as one batch; the sequence of the first.
    async fn send_batch(&self, batch: &[Waiting]) -> Result<u64, Failed> {
        metrics::histogram!(BATCH_SIZE).record(batch.len() as f64);
        let deadline = batch.iter().map(|waiting| waiting.deadline).min();
        let ends = Instant::now() + publish::SEND_AGAIN_AFTER;
        let ends = deadline.map_or(ends, |deadline| deadline.min(ends));
        let sent = self.send_batch_parts(batch);
        let ack = match tokio::time::timeout_at(ends, sent).await {
            Ok(Ok(ack)) => ack,
            Ok(Err(error)) if publish::is_refusal(&error) => {
                tracing::debug!(%error, "A batch was refused and goes message by message");
                return Err(Failed::Refused);
            }
            Ok(Err(_)) | Err(_) => return Err(Failed::Unknown),
        };
        // Anything else is no answer to this batch.
        if ack.batch_size != Some(batch.len() as u64) {
            return Err(Failed::Unknown);
        }
        metrics::counter!(BATCHES, "outcome" => "stored").increment(1);
        Ok(ack.sequence.saturating_sub(batch.len() as u64 - 1))
    }

    /// All but the last ask for no answer; what is wrong with them shows when the last commits.
    async fn send_batch_parts(
        &self,
        batch: &[Waiting],
    ) -> Result<async_nats::jetstream::publish::PublishAck, ServerError> {
        let js = self.publisher.jetstream();
        let client = js.client();
        let id = format!("{:032x}", rand::random::<u128>());
        for (n, waiting) in batch.iter().enumerate() {
            let mut headers = waiting.headers.clone();
            headers.insert(header::NATS_BATCH_ID, id.as_str());
            headers.insert(header::NATS_BATCH_SEQUENCE, (n + 1).to_string());
            let subject = waiting.subject.clone();
            if n + 1 == batch.len() {
                headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
                let message = PublishMessage::build()
                    .headers(headers)
                    .payload(waiting.body.clone());
                return js.send_publish(subject, message).await?.await;
            }
            client
                .publish_with_headers(subject, headers, waiting.body.clone())
                .await
                .map_err(|error| ServerError::with_source(publish::BROKEN, error))?;
        }
        // An empty batch is never sent.
        Err(ServerError::new(publish::BROKEN))
    }

    /// Side by side, each with its own outcome.
    async fn send_singly(&self, group: Vec<Waiting>) {
        let sending = group.into_iter().map(|waiting| async move {
            let Waiting {
                subject,
                headers,
                body,
                deadline,
                answer,
                ..
            } = waiting;
            let outcome = self
                .publisher
                .publish_until(&subject, headers, body, deadline);
            let _ = answer.send(outcome.await);
        });
        join_all(sending).await;
    }
}

impl State {
    fn hesitate(&mut self) {
        self.refused_in_a_row = (self.refused_in_a_row + 1).min(10);
        self.skip = (1 << (self.refused_in_a_row - 1)).min(SKIP_MOST);
    }
}

/// Why a batch is not known to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    /// The server said no: nothing of it is stored.
    Refused,
    /// No answer.
    Unknown,
}

impl Failed {
    fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}
