//! `MEMBERSHIP`, followed by a consumer of a test's own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contracts::membership::v1 as wire;
use event_bus::{Bus, ConsumerConfig, Disposition};
use testkit::eventually;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);

/// A member's last version and state.
pub type Last = BTreeMap<String, (i64, wire::MembershipStatusChanged)>;

/// Follows `MEMBERSHIP`.
pub struct Watch {
    /// By its number in the stream: a message may come twice.
    seen: Arc<Mutex<BTreeMap<u64, wire::MembershipStatusChanged>>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    pub fn start(bus: &Bus) -> Self {
        let seen = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let (watched, stop) = (seen.clone(), CancellationToken::new());
        let config = ConsumerConfig::new("MEMBERSHIP", "watcher", "membership.v1.>").concurrency(1);
        let watching = bus.consumer(config).run(
            move |state: wire::MembershipStatusChanged, delivery| {
                let number = delivery.stream_sequence;
                watched.lock().expect("no panic").insert(number, state);
                async { Disposition::Done }
            },
            stop.clone(),
        );
        let task = tokio::spawn(async move { watching.await.expect("watched") });
        Self { seen, stop, task }
    }

    /// Waits until it has seen everything, and answers what was said last of each member.
    pub async fn end(self, bus: &Bus) -> Last {
        let stream = bus.jetstream().get_stream("MEMBERSHIP").await;
        let end = stream.expect("a stream").cached_info().state.last_sequence;
        eventually("the watcher saw it", DEADLINE, async || {
            self.seen.lock().expect("no panic").contains_key(&end)
        })
        .await;
        self.stop.cancel();
        self.task.await.expect("no panic");
        let mut last = Last::new();
        let seen = std::mem::take(&mut *self.seen.lock().expect("no panic"));
        for (number, state) in seen {
            let (member, version) = (state.member_id.clone(), state.version);
            if let Some((before, same)) = last.insert(member.clone(), (version, state.clone())) {
                // A state that is sent again is the same to the letter.
                let grows = version > before || (version == before && state == same);
                assert!(
                    grows,
                    "{member} goes from {before} to {version} at {number}"
                );
            }
        }
        last
    }
}
