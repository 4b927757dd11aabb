//! Messages set aside: written with their cause before they are terminated, listed, and replayed.
//!
//! A replay goes to the one consumer that gave the message up, under a new id: on the original
//! subject every other consumer of the stream would get it again. It waits under `replay.v1.…` in
//! the same stream, from which each consumer reads its own.

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use jiff::Timestamp;

use crate::connect::Bus;
use crate::delivery::Delivery;
use crate::envelope::{self, Envelope, one_line};
use crate::publish::{Ack, PublishError, Publisher};
use crate::topology::{self, DEAD_LETTER};

pub(crate) const SUBJECT: &str = "dead-subject";
pub(crate) const REPLAY_PREFIX: &str = "replay.v1.";
const STREAM: &str = "dead-stream";
const CONSUMER: &str = "dead-consumer";
const SEQUENCE: &str = "dead-sequence";
const ATTEMPTS: &str = "dead-attempts";
const CAUSE: &str = "dead-cause";
const CAUSE_LENGTH: usize = 1_000;

pub(crate) struct SetAside<'a> {
    pub(crate) stream: &'a str,
    pub(crate) consumer: &'a str,
    pub(crate) cause: &'a str,
    pub(crate) delivery: &'a Delivery,
}

/// Writes a dead letter and waits until it is durable. Written again, it is the same one.
pub(crate) async fn write(
    publisher: &Publisher,
    aside: &SetAside<'_>,
) -> Result<Ack, PublishError> {
    let delivery = aside.delivery;
    let gym = topology::gym_of_subject(&delivery.subject).unwrap_or("_");
    let mut headers = carried(&delivery.headers);
    let source = if delivery.replayed {
        "replay"
    } else {
        aside.stream
    };
    headers.insert(
        envelope::MESSAGE_ID,
        format!(
            "dead/{source}/{}/{}",
            aside.consumer, delivery.stream_sequence
        ),
    );
    headers.insert(STREAM, aside.stream);
    headers.insert(CONSUMER, aside.consumer);
    headers.insert(SUBJECT, one_line(&delivery.subject));
    headers.insert(SEQUENCE, delivery.stream_sequence.to_string());
    headers.insert(ATTEMPTS, delivery.attempt.to_string());
    let cause: String = one_line(aside.cause).chars().take(CAUSE_LENGTH).collect();
    headers.insert(CAUSE, cause);
    let subject = format!("dead.v1.{}.{}.{gym}", aside.stream, aside.consumer);
    publisher
        .publish_body(&subject, headers, delivery.body.clone())
        .await
}

/// The original headers but those that speak to the server (ids, expectations, limits).
fn carried(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, values) in headers.iter() {
        if name.to_string().to_ascii_lowercase().starts_with("nats-") {
            continue;
        }
        for value in values {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

pub(crate) fn replay_filter(stream: &str, consumer: &str) -> String {
    format!("{REPLAY_PREFIX}{stream}.{consumer}.>")
}

/// Why the dead letters could not be read or replayed.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// JetStream does not answer.
    #[error("the dead letters cannot be read")]
    Read(#[source] async_nats::Error),
    /// A part of the filter is no single word of a subject.
    #[error("{0} is no stream, consumer or gym")]
    Filter(String),
    /// The replay was not acknowledged; the dead letter stays.
    #[error("the replay was not stored")]
    Publish(#[from] PublishError),
    /// The message lacks what a dead letter has, so it cannot be sent to anyone.
    #[error("message {0} is no dead letter")]
    NotOne(u64),
}

/// Which dead letters; `None` means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// The stream the message came from.
    pub stream: Option<String>,
    /// The consumer that gave it up.
    pub consumer: Option<String>,
    /// The gym, or `_` for those of none.
    pub gym: Option<String>,
}

impl DeadLetterFilter {
    fn subject(&self) -> Result<String, DeadLetterError> {
        let mut subject = "dead.v1".to_owned();
        for token in [&self.stream, &self.consumer, &self.gym] {
            let token = token.as_deref().unwrap_or("*");
            let wild = token != "*" && token.contains(['*', '>']);
            if token.is_empty() || wild || token.contains(['.', ' ', '\t', '\r', '\n']) {
                return Err(DeadLetterError::Filter(token.to_owned()));
            }
            subject.push('.');
            subject.push_str(token);
        }
        Ok(subject)
    }
}

/// One dead letter.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its sequence in the dead letter stream: the handle for [`DeadLetters::replay`].
    pub sequence: u64,
    /// The stream the message came from.
    pub stream: String,
    /// The consumer that gave it up.
    pub consumer: String,
    /// The gym it speaks of; `None` for those only role `service` may see.
    pub gym: Option<String>,
    /// Why it was given up.
    pub cause: String,
    /// Deliveries before that.
    pub attempts: u64,
    /// When it was set aside.
    pub at: Timestamp,
    /// The original subject.
    pub subject: String,
    /// What the original message said about itself.
    pub envelope: Envelope,
    /// The original body.
    pub body: Bytes,
}

/// The dead letters: to list and to replay.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    bus: Bus,
}

impl DeadLetters {
    pub(crate) fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Up to `limit` dead letters after sequence `after` (0: from the oldest), oldest first.
    pub async fn list(
        &self,
        filter: &DeadLetterFilter,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, DeadLetterError> {
        let subject = filter.subject()?;
        let stream = self.stream().await?;
        let mut found = Vec::new();
        let mut from = after.saturating_add(1);
        while found.len() < limit {
            let next = stream
                .raw_message_builder()
                .sequence(from)
                .next_by_subject(subject.clone())
                .send()
                .await;
            match next {
                Ok(message) => {
                    from = message.sequence.saturating_add(1);
                    found.extend(read(&message));
                }
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => break,
                Err(error) => return Err(DeadLetterError::Read(error.into())),
            }
        }
        Ok(found)
    }

    /// The dead letter with this sequence, if it is (still) there.
    pub async fn find(&self, sequence: u64) -> Result<Option<DeadLetter>, DeadLetterError> {
        Ok(self.raw(sequence).await?.as_ref().and_then(read))
    }

    /// Sends the dead letter to the consumer that gave it up, under a new id, and removes it from
    /// the list. `None` when it is not there (any more). Safe to repeat.
    pub async fn replay(&self, sequence: u64) -> Result<Option<Ack>, DeadLetterError> {
        let Some(message) = self.raw(sequence).await? else {
            return Ok(None);
        };
        let letter = read(&message).ok_or(DeadLetterError::NotOne(sequence))?;
        let mut headers = carried(&message.headers);
        let id = format!("{}~replay-{sequence}", letter.envelope.ce_id);
        headers.insert(envelope::ID, one_line(&id));
        headers.insert(envelope::MESSAGE_ID, one_line(&id));
        let subject = format!(
            "{REPLAY_PREFIX}{}.{}.{}",
            letter.stream,
            letter.consumer,
            letter.gym.as_deref().unwrap_or("_")
        );
        let ack = self
            .bus
            .publisher()
            .publish_body(&subject, headers, message.payload.clone())
            .await?;
        // The replayed copy is durable and says all that this one does.
        self.stream()
            .await?
            .delete_message(sequence)
            .await
            .map_err(|error| DeadLetterError::Read(error.into()))?;
        Ok(Some(ack))
    }

    async fn raw(&self, sequence: u64) -> Result<Option<StreamMessage>, DeadLetterError> {
        match self.stream().await?.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(DeadLetterError::Read(error.into())),
        }
    }

    async fn stream(&self) -> Result<async_nats::jetstream::stream::Stream<()>, DeadLetterError> {
        self.bus
            .jetstream()
            .get_stream_no_info(DEAD_LETTER)
            .await
            .map_err(|error| DeadLetterError::Read(error.into()))
    }
}

/// `None` for a message that lacks what [`write`] gives every dead letter.
fn read(message: &StreamMessage) -> Option<DeadLetter> {
    let mut tokens = message.subject.split('.');
    if (tokens.next(), tokens.next()) != (Some("dead"), Some("v1")) {
        return None;
    }
    let (stream, consumer, gym) = (tokens.next()?, tokens.next()?, tokens.next()?);
    let text = |name: &str| envelope::text(&message.headers, name);
    let at = Timestamp::from_nanosecond(message.time.unix_timestamp_nanos()).ok()?;
    Some(DeadLetter {
        sequence: message.sequence,
        stream: stream.to_owned(),
        consumer: consumer.to_owned(),
        gym: Some(gym.to_owned()).filter(|gym| gym != "_"),
        cause: text(CAUSE)?,
        attempts: text(ATTEMPTS)?.parse().ok()?,
        at,
        subject: text(SUBJECT)?,
        envelope: Envelope::read(&message.headers, at),
        body: message.payload.clone(),
    })
}
