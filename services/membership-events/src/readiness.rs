//! Ready while bus and database answer: a call is better made to a replica that has both.

use std::time::Duration;

use event_bus::Bus;
use service_runtime::health::Condition;
use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An answer that takes longer is none. More than a statement of another's may take.
const ANSWER: Duration = Duration::from_secs(6);

/// Tells whether each of them answers, until `shutdown`.
pub async fn watch(
    bus: Bus,
    has_bus: Condition,
    store: Store,
    has_database: Condition,
    shutdown: CancellationToken,
) {
    let watch_bus = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let answer = tokio::time::timeout(ANSWER, bus.check());
            let answers = bus.is_connected() && matches!(answer.await, Ok(Ok(())));
            tell(&has_bus, answers, "JetStream does not answer");
        }
    };
    let watch_database = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let answer = tokio::time::timeout(ANSWER, store.check());
            let answers = matches!(answer.await, Ok(Ok(())));
            tell(&has_database, answers, "the database does not answer");
        }
    };
    tokio::select! {
        () = watch_bus => {}
        () = watch_database => {}
        () = shutdown.cancelled() => {}
    }
}

fn tell(condition: &Condition, answers: bool, without: &str) {
    if answers {
        condition.set_ready();
    } else {
        condition.set_not_ready(without);
    }
}
