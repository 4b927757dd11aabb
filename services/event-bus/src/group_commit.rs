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

mod batch;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use batch::Failed;

use crate::envelope::Envelope;
use crate::publish::{self, Ack, PublishError, Publisher};
use crate::sent_ids::SentIds;

/// Fewer messages than these go singly: their flushes are cheaper than a batch's four.
const BATCH_FROM: usize = 6;
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

#[derive(Debug)]
struct Message {
    subject: String,
    id: String,
    headers: HeaderMap,
    body: Bytes,
    deadline: Instant,
}

/// A message in the queue, and who waits for its outcome.
#[derive(Debug)]
struct Waiting {
    message: Message,
    answer: oneshot::Sender<Result<Ack, PublishError>>,
}

/// How a message comes in.
enum Entered {
    /// Nothing is under way.
    Alone(Turn, Message),
    /// Until its deadline.
    Queued(Instant, oneshot::Receiver<Result<Ack, PublishError>>),
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
        let message = Message {
            subject: subject.to_owned(),
            id: envelope.ce_id.clone(),
            headers: envelope.write(),
            body: publish::json(message)?,
            deadline: Instant::now() + self.lane.publisher.time_limit(),
        };
        match Lane::enter(&self.lane, message) {
            Entered::Alone(turn, message) => turn.hold_while(self.lane.send_alone(message)).await,
            Entered::Queued(deadline, answered) => {
                match tokio::time::timeout_at(deadline, answered).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(_)) | Err(_) => Err(PublishError::Unavailable(None)),
                }
            }
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

    fn enter(lane: &Arc<Self>, message: Message) -> Entered {
        let mut state = lane.lock();
        if state.taken {
            let (answer, answered) = oneshot::channel();
            let deadline = message.deadline;
            state.waiting.push(Waiting { message, answer });
            return Entered::Queued(deadline, answered);
        }
        state.taken = true;
        state.sent.insert(&message.id);
        Entered::Alone(Turn(Arc::clone(lane)), message)
    }

    /// Publishes a group and answers everybody in it.
    async fn flush(&self, group: Vec<Waiting>) {
        let (batch, mut singles) = self.sort(group);
        if !batch.is_empty() {
            let messages = batch.iter().map(|waiting| &waiting.message);
            match batch::send(self.publisher.jetstream(), messages).await {
                Ok(first) => {
                    self.lock().refused_in_a_row = 0;
                    for (sequence, waiting) in (first..).zip(batch) {
                        let ack = publish::counted(sequence, false);
                        // Whoever does not listen any more sends it again.
                        let _ = waiting.answer.send(Ok(ack));
                    }
                }
                Err(failed) => {
                    if failed == Failed::Refused {
                        self.lock().hesitate();
                    }
                    // Together: one that hangs keeps no other back.
                    singles.extend(batch);
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
            let is_new = state.sent.insert(&waiting.message.id);
            if is_new && waiting.message.body.len() <= BODY_MOST {
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

    /// Side by side, each with its own outcome.
    async fn send_singly(&self, group: Vec<Waiting>) {
        let sending = group
            .into_iter()
            .filter(|waiting| !waiting.answer.is_closed())
            .map(|Waiting { message, answer }| async move {
                let _ = answer.send(self.send_alone(message).await);
            });
        join_all(sending).await;
    }

    async fn send_alone(&self, message: Message) -> Result<Ack, PublishError> {
        let Message {
            subject,
            headers,
            body,
            deadline,
            ..
        } = message;
        let sending = self
            .publisher
            .publish_until(&subject, headers, body, deadline);
        sending.await
    }
}

impl State {
    fn hesitate(&mut self) {
        self.refused_in_a_row = (self.refused_in_a_row + 1).min(10);
        self.skip = (1 << (self.refused_in_a_row - 1)).min(SKIP_MOST);
    }
}
