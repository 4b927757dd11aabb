//! One delivery of one message, as a handler sees it.

use async_nats::HeaderMap;
use async_nats::jetstream::Message;
use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::dead_letter;
use crate::disposition::Disposition;
use crate::envelope::{self, Envelope};

/// A message on its way to a handler. It says nothing of acks: the handler's answer does that.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The message's subject; a replayed one's is that of its first life.
    pub subject: String,
    /// The body as it came: canonical proto3 JSON.
    pub body: Bytes,
    /// What the message says about itself.
    pub envelope: Envelope,
    /// The number of this delivery of the message, from 1.
    pub attempt: u64,
    /// The message's sequence in the stream it was read from.
    pub stream_sequence: u64,
    /// When the stream stored it.
    pub stored_at: Timestamp,
    /// True when a person had it replayed from the dead letters.
    pub replayed: bool,
    pub(crate) headers: HeaderMap,
}

impl Delivery {
    /// The delivery in a JetStream message; `None` when it is not one (no ack address).
    pub(crate) fn read(message: &Message) -> Option<Self> {
        let info = message.info().ok()?;
        let headers = message.headers.clone().unwrap_or_default();
        let stored_at =
            Timestamp::from_nanosecond(info.published.unix_timestamp_nanos()).unwrap_or_default();
        let first_subject = envelope::text(&headers, dead_letter::SUBJECT)
            .filter(|_| message.subject.starts_with(dead_letter::REPLAY_PREFIX));
        Some(Self {
            replayed: first_subject.is_some(),
            subject: first_subject.unwrap_or_else(|| message.subject.to_string()),
            body: message.payload.clone(),
            envelope: Envelope::read(&headers, stored_at),
            attempt: u64::try_from(info.delivered).unwrap_or(1).max(1),
            stream_sequence: info.stream_sequence,
            stored_at,
            headers,
        })
    }

    /// The message in the body. Where there is none, the answer to give is in the error.
    pub fn parse<M: DeserializeOwned>(&self) -> Result<M, Disposition> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // Position and kind only: the error's own text may quote the body.
            Disposition::reject(format!(
                "the body is no {}: {:?} at line {} column {}",
                std::any::type_name::<M>(),
                error.classify(),
                error.line(),
                error.column()
            ))
        })
    }
}
