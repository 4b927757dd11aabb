//! One delivery: run the handler, and tell the server what its answer means.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tracing::{Instrument, debug, error, warn};

use crate::backoff::Backoff;
use crate::dead_letter::{self, SetAside};
use crate::delivery::Delivery;
use crate::disposition::Disposition;
use crate::publish::Publisher;
use crate::{metrics, trace_context};

/// How long an ack may wait for room in the client's queue.
const SEND_WITHIN: Duration = Duration::from_secs(1);

pub(crate) type Handler = Arc<dyn Fn(Delivery) -> BoxFuture<'static, Disposition> + Send + Sync>;

/// What turns a delivery into an answer to the server.
pub(crate) struct Worker {
    pub(crate) publisher: Publisher,
    pub(crate) stream: String,
    pub(crate) consumer: String,
    pub(crate) max_attempts: Option<u64>,
    pub(crate) backoff: Backoff,
    pub(crate) handler: Handler,
}

impl Worker {
    /// Handles one message to its end.
    pub(crate) async fn work(&self, message: Message) {
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

/// Sends an ack, nak, term or sign of life.
pub(crate) async fn send(message: &Message, answer: AckKind) {
    // Without it the message comes again, which is what "not acknowledged" means. The client
    // queues while it has no server, and waits when its queue is full; we do not wait with it.
    match tokio::time::timeout(SEND_WITHIN, message.ack_with(answer)).await {
        Ok(Ok(())) => {}
        Ok(Err(failed)) => debug!(error = %failed, "An ack could not be sent"),
        Err(_) => debug!("An ack could not be sent: the client's queue is full"),
    }
}
