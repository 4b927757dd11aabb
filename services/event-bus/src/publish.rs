//! Publishing: a message is out when JetStream has acknowledged it, and not before.
//!
//! An ack that does not come leaves the outcome unknown: the message may have been stored, or may
//! land later. Sending it again under the same id is always right, and that is what
//! [`Publisher::publish`] does until its time is up; then the caller answers "not now" and its own
//! caller sends again.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::{HeaderMap, header};
use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use crate::envelope::{Envelope, ID};
use crate::metrics::PUBLISHES;

/// Time limit of a publish, repeats included, unless set.
pub const TIME_LIMIT: Duration = Duration::from_secs(5);
/// An ack that takes longer is taken for lost, and the message sent again.
pub(crate) const SEND_AGAIN_AFTER: Duration = Duration::from_millis(1_500);
/// The connection's end of a publish failed; nothing is known of the server's.
pub(crate) const BROKEN: PublishErrorKind = PublishErrorKind::BrokenPipe;
/// Wait after "nobody listens": the stream is coming up.
const NOBODY_LISTENS: Duration = Duration::from_millis(50);

/// JetStream's acknowledgement: the message is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The message's sequence in its stream.
    pub sequence: u64,
    /// The stream knew this id already; nothing was stored. Success all the same.
    pub duplicate: bool,
}

/// Why a message is not known to be stored.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No ack in time: answer 503 and let the caller send again.
    #[error("JetStream did not acknowledge in time")]
    Unavailable(#[source] Option<async_nats::jetstream::context::PublishError>),
    /// The message is larger than its stream takes; sending again is no use.
    #[error("the message is too large for its stream")]
    TooLarge,
    /// The stream's last message of this subject is not the expected one.
    #[error("another message of this subject came in between")]
    WrongLastSequence,
    /// The message has no JSON form; a bug.
    #[error("the message cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    /// The stream refuses it, such as for want of room: answer 503, and somebody should look.
    #[error("JetStream refused the message")]
    Refused(#[source] async_nats::jetstream::context::PublishError),
}

impl PublishError {
    /// True when sending the same message again later may help: what a 503 is for.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Refused(_))
    }
}

/// Publishes messages and waits for their acks. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Publisher {
    js: Context,
    time_limit: Duration,
}

impl Publisher {
    pub(crate) fn new(js: Context) -> Self {
        Self {
            js,
            time_limit: TIME_LIMIT,
        }
    }

    /// The same publisher with another time limit.
    #[must_use]
    pub fn with_time_limit(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }

    /// Publishes `message` and waits for the ack, sending again under the same id where that may
    /// help, until the time limit.
    pub async fn publish<M: Serialize + ?Sized>(
        &self,
        subject: &str,
        envelope: &Envelope,
        message: &M,
    ) -> Result<Ack, PublishError> {
        self.publish_body(subject, envelope.write(), json(message)?)
            .await
    }

    /// As [`Self::publish`], refused with [`PublishError::WrongLastSequence`] unless the subject's
    /// last message has this sequence (0: there is none). Where that last message is this very
    /// one, stored by an attempt whose ack was lost, the answer is a duplicate's ack.
    pub async fn publish_expecting<M: Serialize + ?Sized>(
        &self,
        subject: &str,
        envelope: &Envelope,
        message: &M,
        last_subject_sequence: u64,
    ) -> Result<Ack, PublishError> {
        let mut headers = envelope.write();
        headers.insert(
            header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            last_subject_sequence.to_string(),
        );
        match self.publish_body(subject, headers, json(message)?).await {
            // The server looks at the sequence before the id, so our own repeat is refused too.
            Err(PublishError::WrongLastSequence) => self
                .stored_as_last(subject, &envelope.ce_id)
                .await
                .ok_or(PublishError::WrongLastSequence),
            answer => answer,
        }
    }

    /// The id of the subject's last message, read where it is written; `None` where there is none.
    /// A sender asks before it sends what another may have sent long ago: a stream that keeps few
    /// messages of a subject does not know for long the ids of those it dropped.
    ///
    /// # Errors
    /// [`PublishError::Unavailable`] when nothing is known of it.
    pub async fn last_id(&self, subject: &str) -> Result<Option<String>, PublishError> {
        let asked = async {
            let stream = self.js.stream_by_subject(subject).await.ok()?;
            let stream = self.js.get_stream_no_info(stream).await.ok()?;
            match stream.get_last_raw_message_by_subject(subject).await {
                Ok(last) => Some(last.headers.get(ID).map(|id| id.as_str().to_owned())),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Some(None),
                Err(_) => None,
            }
        };
        let answer = tokio::time::timeout(self.time_limit, asked).await;
        answer.ok().flatten().ok_or(PublishError::Unavailable(None))
    }

    /// The ack of the subject's last message, if that has this id.
    async fn stored_as_last(&self, subject: &str, id: &str) -> Option<Ack> {
        let stream = self.js.stream_by_subject(subject).await.ok()?;
        let stream = self.js.get_stream_no_info(stream).await.ok()?;
        let last = stream.get_last_raw_message_by_subject(subject).await.ok()?;
        let same = last
            .headers
            .get(ID)
            .is_some_and(|found| found.as_str() == id);
        same.then_some(Ack {
            sequence: last.sequence,
            duplicate: true,
        })
    }

    /// Sends `message` and answers a future for its ack, so that many can be under way. It is
    /// sent once: a caller that gets [`PublishError::Unavailable`] sends it again by itself.
    pub async fn publish_start<M: Serialize + ?Sized>(
        &self,
        subject: &str,
        envelope: &Envelope,
        message: &M,
    ) -> Result<PendingAck, PublishError> {
        let deadline = Instant::now() + self.time_limit;
        let sent = self.send(subject, envelope.write(), json(message)?);
        match tokio::time::timeout_at(deadline, sent).await {
            Ok(Ok(ack)) => Ok(PendingAck::new(deadline, ack)),
            Ok(Err(error)) => Err(counted_failure(explain(error))),
            Err(_) => Err(counted_failure(PublishError::Unavailable(None))),
        }
    }

    pub(crate) async fn publish_body(
        &self,
        subject: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Ack, PublishError> {
        let deadline = Instant::now() + self.time_limit;
        self.publish_until(subject, headers, body, deadline).await
    }

    pub(crate) fn time_limit(&self) -> Duration {
        self.time_limit
    }

    pub(crate) fn jetstream(&self) -> &Context {
        &self.js
    }

    pub(crate) async fn publish_until(
        &self,
        subject: &str,
        headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Ack, PublishError> {
        loop {
            let attempt_ends = deadline.min(Instant::now() + SEND_AGAIN_AFTER);
            let attempt = async {
                let ack = self.send(subject, headers.clone(), body.clone()).await?;
                ack.await
            };
            let failed = match tokio::time::timeout_at(attempt_ends, attempt).await {
                Ok(Ok(ack)) => return Ok(counted(ack.sequence, ack.duplicate)),
                Ok(Err(error)) => explain(error),
                Err(_) => PublishError::Unavailable(None),
            };
            let again = Instant::now() + NOBODY_LISTENS;
            if !matches!(failed, PublishError::Unavailable(_)) || again >= deadline {
                return Err(counted_failure(failed));
            }
            tokio::time::sleep_until(again).await;
        }
    }

    async fn send(
        &self,
        subject: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<PublishAckFuture, async_nats::jetstream::context::PublishError> {
        check_connected(&self.js)?;
        let message = PublishMessage::build().headers(headers).payload(body);
        self.js.send_publish(subject.to_owned(), message).await
    }
}

/// Without a connection nothing is sent: the client would keep it and send it when there is one
/// again, long after its sender has given it up, and after newer ones of another replica.
pub(crate) fn check_connected(
    js: &Context,
) -> Result<(), async_nats::jetstream::context::PublishError> {
    if js.client().connection_state() == State::Connected {
        return Ok(());
    }
    Err(BROKEN.into())
}

/// The ack of a message that is under way.
pub struct PendingAck(Pin<Box<dyn Future<Output = Result<Ack, PublishError>> + Send>>);

impl PendingAck {
    fn new(deadline: Instant, ack: PublishAckFuture) -> Self {
        Self(Box::pin(async move {
            match tokio::time::timeout_at(deadline, ack).await {
                Ok(Ok(ack)) => Ok(counted(ack.sequence, ack.duplicate)),
                Ok(Err(error)) => Err(counted_failure(explain(error))),
                Err(_) => Err(counted_failure(PublishError::Unavailable(None))),
            }
        }))
    }
}

impl Future for PendingAck {
    type Output = Result<Ack, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

pub(crate) fn json<M: Serialize + ?Sized>(message: &M) -> Result<Bytes, PublishError> {
    serde_json::to_vec(message)
        .map(Bytes::from)
        .map_err(PublishError::Json)
}

pub(crate) fn counted(sequence: u64, duplicate: bool) -> Ack {
    let outcome = if duplicate { "duplicate" } else { "stored" };
    metrics::counter!(PUBLISHES, "outcome" => outcome).increment(1);
    Ack {
        sequence,
        duplicate,
    }
}

fn counted_failure(error: PublishError) -> PublishError {
    metrics::counter!(PUBLISHES, "outcome" => "failed").increment(1);
    error
}

fn explain(error: async_nats::jetstream::context::PublishError) -> PublishError {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => PublishError::TooLarge,
        PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId => {
            PublishError::WrongLastSequence
        }
        // No stream answers, such as while the server comes up again.
        PublishErrorKind::StreamNotFound
        | PublishErrorKind::TimedOut
        | PublishErrorKind::BrokenPipe
        | PublishErrorKind::MaxAckPending => PublishError::Unavailable(Some(error)),
        PublishErrorKind::Other if says(&error, "exceeds maximum") => PublishError::TooLarge,
        PublishErrorKind::Other => PublishError::Refused(error),
    }
}

/// True when the server answered no, rather than not at all.
pub(crate) fn is_refusal(error: &async_nats::jetstream::context::PublishError) -> bool {
    !matches!(
        error.kind(),
        PublishErrorKind::StreamNotFound
            | PublishErrorKind::TimedOut
            | PublishErrorKind::BrokenPipe
            | PublishErrorKind::MaxAckPending
    )
}

fn says(error: &async_nats::jetstream::context::PublishError, words: &str) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.to_string().contains(words))
}
