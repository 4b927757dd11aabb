//! One atomic batch on the wire (ADR-50): an id, a number in it, and the last message commits.

use std::num::NonZeroU64;

use async_nats::header;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishError as ServerError;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use tokio::time::timeout;

use super::Message;
use crate::metrics::{BATCH_SIZE, BATCHES};
use crate::publish;

/// Why a batch is not known to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// The server said no: nothing of it is stored.
    Refused,
    /// No answer.
    Unknown,
}

/// Sends the messages as one batch; the sequence of the first, which the others follow.
pub(super) async fn send<'a>(
    js: &Context,
    messages: impl ExactSizeIterator<Item = &'a Message>,
) -> Result<u64, Failed> {
    let count = messages.len() as u64;
    metrics::histogram!(BATCH_SIZE).record(count as f64);
    // Not by the messages' deadlines: one that is nearly up would spoil it for the others.
    let (outcome, sent) = match timeout(publish::SEND_AGAIN_AFTER, parts(js, messages)).await {
        Ok(Ok(ack)) => match first_of(&ack, count) {
            Some(first) => ("stored", Ok(first)),
            // No answer to this batch, whatever it is.
            None => ("unknown", Err(Failed::Unknown)),
        },
        Ok(Err(error)) if publish::is_refusal(&error) => {
            tracing::debug!(%error, "A batch was refused and goes message by message");
            ("refused", Err(Failed::Refused))
        }
        Ok(Err(_)) | Err(_) => ("unknown", Err(Failed::Unknown)),
    };
    metrics::counter!(BATCHES, "outcome" => outcome).increment(1);
    sent
}

fn first_of(ack: &PublishAck, count: u64) -> Option<u64> {
    let count = NonZeroU64::new(count)?;
    (ack.batch_size == Some(count.get())).then_some(())?;
    ack.sequence.checked_sub(count.get() - 1)
}

/// All but the last ask for no answer; what is wrong with them shows when the last commits.
async fn parts<'a>(
    js: &Context,
    messages: impl ExactSizeIterator<Item = &'a Message>,
) -> Result<PublishAck, ServerError> {
    publish::check_connected(js)?;
    let client = js.client();
    let id = format!("{:032x}", rand::random::<u128>());
    let count = messages.len();
    for (number, message) in (1..).zip(messages) {
        let mut headers = message.headers.clone();
        headers.insert(header::NATS_BATCH_ID, id.as_str());
        headers.insert(header::NATS_BATCH_SEQUENCE, number.to_string());
        let (subject, body) = (message.subject.clone(), message.body.clone());
        if number == count {
            headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
            let last = PublishMessage::build().headers(headers).payload(body);
            return js.send_publish(subject, last).await?.await;
        }
        client
            .publish_with_headers(subject, headers, body)
            .await
            .map_err(|error| ServerError::with_source(publish::BROKEN, error))?;
    }
    // Of no messages, which nobody sends.
    Err(ServerError::new(publish::BROKEN))
}
