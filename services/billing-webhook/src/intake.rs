//! From events to acks: a webhook is accepted when every event of it is on disk, and not before.

use std::time::Instant;

use contracts::billing::v1::BillingEvent;
use contracts::message::BusMessage;
use contracts::wire;
use event_bus::{Envelope, GroupPublisher, PublishError, Publisher};
use jiff::Timestamp;

use crate::measures::PUBLISH_SECONDS;

/// `ce-source` of all billing events.
const SOURCE: &str = "/billing-webhook";

/// Publishes events and waits for their acks.
#[derive(Clone, Debug)]
pub struct Intake {
    publishing: Publishing,
}

#[derive(Clone, Debug)]
enum Publishing {
    Singly(Box<Publisher>),
    InGroups(GroupPublisher),
}

impl Intake {
    /// With a publisher whose time limit is how long a sender is kept waiting. Each event costs a
    /// disk flush of its own.
    pub fn new(publisher: Publisher) -> Self {
        Self {
            publishing: Publishing::Singly(Box::new(publisher)),
        }
    }

    /// As [`Self::new`], with events that wait together sharing a flush.
    pub fn in_groups(publisher: Publisher) -> Self {
        Self {
            publishing: Publishing::InGroups(GroupPublisher::new(publisher)),
        }
    }

    /// Publishes all of them, side by side.
    ///
    /// # Errors
    /// When one of them is not known to be on disk; the others may be. Sending the body again is
    /// safe: an event keeps its id.
    pub async fn publish(
        &self,
        events: &[BillingEvent],
        now: Timestamp,
    ) -> Result<(), PublishError> {
        let started = Instant::now();
        let published = match events {
            // The usual case, without the machinery of many.
            [event] => self.publish_one(event, now).await,
            events => {
                let all = events.iter().map(|event| self.publish_one(event, now));
                futures_util::future::try_join_all(all).await.map(drop)
            }
        };
        metrics::histogram!(PUBLISH_SECONDS).record(started.elapsed().as_secs_f64());
        published
    }

    async fn publish_one(&self, event: &BillingEvent, now: Timestamp) -> Result<(), PublishError> {
        let occurred_at = event.occurred_at.as_ref().and_then(wire::instant);
        let envelope = Envelope {
            ce_id: event.id(),
            ce_type: BillingEvent::TYPE.to_owned(),
            ce_source: SOURCE.to_owned(),
            ce_time: occurred_at.unwrap_or(now),
            ce_subject: event.about(),
            traceparent: None,
        };
        let subject = event.subject();
        match &self.publishing {
            Publishing::Singly(publisher) => publisher.publish(&subject, &envelope, event).await,
            Publishing::InGroups(publisher) => publisher.publish(&subject, &envelope, event).await,
        }
        .map(drop)
    }
}
