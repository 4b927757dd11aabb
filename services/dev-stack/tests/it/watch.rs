//! `MEMBERSHIP`, followed while a storm goes on: no member's version ever goes back, and no billing
//! event brings about more than one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use contracts::membership::v1 as wire;
use contracts::subjects;
use futures_util::StreamExt;
use testkit::eventually;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::harness::DEADLINE;
use crate::reference::Member;

/// After this long without a message it asks anew.
const QUIET: Duration = Duration::from_millis(500);

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    /// The next sequence of the stream.
    next: u64,
    /// Each member's last version.
    last: BTreeMap<Member, i64>,
    /// Versions by member and the event that they say brought them about.
    effects: BTreeMap<(Member, String), BTreeSet<i64>>,
    /// What must not be.
    wrongs: Vec<String>,
}

/// Follows the stream over restarts of its server.
pub struct Watch {
    bus: jetstream::Context,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Watch {
    pub fn start(bus: &jetstream::Context) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let (follower, shared) = (bus.clone(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            loop {
                // It ends with every restart of the server and every lull, and goes on where it was.
                let _ = follow(&follower, &shared).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let bus = bus.clone();
        Self { bus, seen, task }
    }

    /// Waits until it has seen all that is on the stream, and answers each member's last version.
    ///
    /// # Panics
    /// When a version went back, or an event had more than one effect.
    pub async fn end(self) -> (BTreeMap<Member, i64>, usize) {
        let stream = self.bus.get_stream(subjects::MEMBERSHIP).await;
        let last = stream
            .expect("the stream")
            .cached_info()
            .state
            .last_sequence;
        eventually("all of MEMBERSHIP was seen", DEADLINE, async || {
            self.seen.lock().expect("no panic").next > last
        })
        .await;
        self.task.abort();
        let seen = std::mem::take(&mut *self.seen.lock().expect("no panic"));
        assert!(seen.wrongs.is_empty(), "{:?}", seen.wrongs);
        for (key, versions) in &seen.effects {
            assert_eq!(versions.len(), 1, "{key:?} had more than one effect");
        }
        (seen.last, seen.effects.len())
    }
}

async fn follow(bus: &jetstream::Context, seen: &Mutex<Seen>) -> Result<(), async_nats::Error> {
    let next = seen.lock().expect("no panic").next;
    let settings = pull::OrderedConfig {
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: next.max(1),
        },
        ..Default::default()
    };
    let stream = bus.get_stream(subjects::MEMBERSHIP).await?;
    let mut messages = stream.create_consumer(settings).await?.messages().await?;
    // After a restart the server may not know of the consumer any more, which shows late.
    while let Some(message) = timeout(QUIET, messages.next()).await? {
        let message = message?;
        let sequence = message.info()?.stream_sequence;
        let state: wire::MembershipStatusChanged = serde_json::from_slice(&message.payload)?;
        seen.lock().expect("no panic").see(sequence, state);
    }
    Ok(())
}

impl Seen {
    fn see(&mut self, sequence: u64, state: wire::MembershipStatusChanged) {
        if sequence < self.next {
            return;
        }
        self.next = sequence + 1;
        let (member, version) = ((state.gym_id, state.member_id), state.version);
        if let Some(before) = self.last.insert(member.clone(), version)
            && before >= version
        {
            let wrong = format!("at {sequence} {member:?} goes from {before} to {version}");
            self.wrongs.push(wrong);
        }
        match state.cause {
            Some(cause) if cause.kind == "billing_event" => {
                let effects = self.effects.entry((member, cause.id)).or_default();
                effects.insert(version);
            }
            Some(_) => {}
            None => self
                .wrongs
                .push(format!("at {sequence} {member:?} has no cause")),
        }
    }
}

#[test]
fn a_version_that_goes_back_or_comes_again_shows() {
    let state = |version| wire::MembershipStatusChanged {
        version,
        cause: Some(wire::Cause::default()),
        ..Default::default()
    };
    let mut seen = Seen::default();
    for (sequence, version) in [(1, 10), (2, 30), (2, 30), (5, 40)] {
        seen.see(sequence, state(version));
    }
    assert_eq!(seen.wrongs, Vec::<String>::new());
    for (sequence, version) in [(6, 20), (7, 20)] {
        seen.see(sequence, state(version));
    }
    assert_eq!(seen.wrongs.len(), 2);
}
