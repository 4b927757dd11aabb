//! Feeding the read model from the bus: the last message of each subject of three streams, then
//! every one that comes. Ready when all three have caught up.
//!
//! A message that makes no sense is logged by its subject and passed over: a projection has no
//! dead letters, the next version of the same member comes, and one bad row must not blind a
//! replica.

use contracts::access::v1::AccessApplied;
use contracts::integration::v1::IntegrationChanged;
use contracts::membership::v1::MembershipStatusChanged;
use contracts::message::BusMessage;
use contracts::subjects;
use event_bus::{Bus, Entry};
use serde::de::DeserializeOwned;
use service_runtime::health::Condition;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Projection;

/// Messages passed over; anything above zero needs a person.
const UNREADABLE: &str = "projection_unreadable_messages_total";

/// How many of the three streams are being followed now: less than 3 says that answers may be old.
const FOLLOWED: &str = "projection_streams_followed";

/// The server refuses to let us read.
#[derive(Debug, thiserror::Error)]
#[error("the stream {stream} cannot be read")]
pub struct FollowError {
    stream: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Follows all three streams until `shutdown`. `ready` holds from the moment all have caught up.
pub async fn follow(
    bus: &Bus,
    projection: &Projection,
    ready: &Condition,
    shutdown: CancellationToken,
) -> Result<(), FollowError> {
    service_runtime::metrics::register_counter(
        UNREADABLE,
        "Messages of the bus that made no sense to the projection and were passed over",
    );
    service_runtime::metrics::register_gauge(
        FOLLOWED,
        "Streams the projection follows now, of 3; fewer say that answers may be old",
    );
    let membership = source(
        bus,
        subjects::MEMBERSHIP,
        subjects::MEMBERSHIP_ALL,
        |message: MembershipStatusChanged| projection.decided(&message),
        shutdown.clone(),
    );
    let access = source(
        bus,
        subjects::ACCESS,
        subjects::ACCESS_ALL,
        |message: AccessApplied| projection.applied(&message),
        shutdown.clone(),
    );
    let integration = source(
        bus,
        subjects::INTEGRATION,
        subjects::INTEGRATION_ALL,
        |message: IntegrationChanged| projection.integration(message),
        shutdown,
    );
    let caught_up = [&membership.1, &access.1, &integration.1].map(Clone::clone);
    let followed = measure(caught_up.clone());
    let announce = async {
        for mut status in caught_up {
            // Fails when the reader has ended, and then so does `try_join`.
            if status.wait_for(|status| status.caught_up).await.is_err() {
                return Ok(());
            }
        }
        projection.set_caught_up();
        ready.set_ready();
        Ok(())
    };
    tokio::try_join!(membership.0, access.0, integration.0, announce, followed).map(drop)
}

/// Keeps the gauge until a reader ends.
async fn measure(mut streams: [Status; 3]) -> Result<(), FollowError> {
    loop {
        let followed = streams
            .iter_mut()
            .filter_map(|status| status.borrow_and_update().following.then_some(1.0))
            .sum::<f64>();
        metrics::gauge!(FOLLOWED).set(followed);
        let changes = streams.iter_mut().map(|status| Box::pin(status.changed()));
        if futures_util::future::select_all(changes).await.0.is_err() {
            return Ok(());
        }
    }
}

type Status = tokio::sync::watch::Receiver<event_bus::ProjectionStatus>;

fn source<M, F>(
    bus: &Bus,
    stream: &'static str,
    filter: &'static str,
    mut take: F,
    shutdown: CancellationToken,
) -> (impl Future<Output = Result<(), FollowError>>, Status)
where
    M: BusMessage + DeserializeOwned,
    F: FnMut(M) + Send,
{
    let reader = bus.projection(stream, filter);
    let status = reader.status();
    let read = async move {
        let apply = |entry: Entry| match entry.parse::<M>() {
            // The address is what the publisher was allowed to write; the body must agree.
            Ok(message) if message.subject() == entry.subject => take(message),
            Ok(_) => {
                metrics::counter!(UNREADABLE).increment(1);
                error!(subject = %entry.subject, "A message lies under a subject not its own");
            }
            Err(failed) => {
                metrics::counter!(UNREADABLE).increment(1);
                error!(subject = %entry.subject, "A message makes no sense: {failed}");
            }
        };
        reader
            .run(apply, shutdown)
            .await
            .map_err(|source| FollowError {
                stream,
                source: Box::new(source),
            })
    };
    (read, status)
}
