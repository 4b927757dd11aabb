//! The durable consumer of MEMBERSHIP: store, wake the gym's worker, acknowledge.
//!
//! Nothing is acknowledged before its commit. Kisi being down is not the bus's business: the
//! intent waits in the table.

use std::sync::Arc;
use std::time::Instant;

use contracts::membership::v1::MembershipStatusChanged;
use contracts::subjects;
use event_bus::{Bus, Consumer, ConsumerConfig, Delivery, Disposition, StartAt};

use crate::desired::{self, Desired, Stored};
use crate::shared::Shared;
use crate::worker::Job;

/// The durable consumer, the same for every replica.
pub fn consumer(bus: &Bus) -> Consumer {
    let config = ConsumerConfig::new(subjects::MEMBERSHIP, "kisi-sync", subjects::MEMBERSHIP_ALL)
        .start_at(StartAt::Oldest);
    bus.consumer(config)
}

/// One message.
pub async fn receive(
    shared: Arc<Shared>,
    message: MembershipStatusChanged,
    delivery: Delivery,
) -> Disposition {
    let desired = match Desired::parse(&message, delivery.envelope.traceparent) {
        Ok(desired) => desired,
        Err(field) => return Disposition::reject(format!("{field} makes no sense")),
    };
    let read_from = Instant::now();
    match desired::store(&shared, &desired).await {
        Ok(Stored::Stale | Stored::Answered) => Disposition::Done,
        Ok(Stored::Intent(snapshot, urgency)) => {
            let job = Job::event(*snapshot, urgency, read_from);
            shared.workers.wake(&desired.gym, job);
            Disposition::Done
        }
        Err(error) => Disposition::retry(format!("the state could not be stored: {error}")),
    }
}
