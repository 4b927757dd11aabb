//! Who goes next: events that wait together go together.
//!
//! There are a few lanes. An event that finds one free is taken in at once and by itself, so
//! nothing waits for company. While all are taken, what arrives waits, and whichever lane is free
//! first takes what has come by then: one transaction, one commit for all of them.
//!
//! No two events of a group may touch the same invoice, payment, subscription, customer, mandate or
//! named membership: the later one waits for the next group. So each is seen by itself, as if the
//! others came at another time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use access_domain::billing::Fact;
use contracts::billing::v1::BillingEvent;
use contracts::message::BusMessage;
use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::{Arrival, Taken, alone, together};
use crate::error::Error;
use crate::linking;
use crate::store::billing::Keys;
use crate::unit::Decisions;

/// Events in one transaction: who wants the database next waits as long as it lasts.
const MOST: usize = 32;
/// Transactions at once on PostgreSQL, which flushes for all of them together. SQLite has one
/// writer.
const LANES: usize = 4;

/// An event to take in.
#[derive(Debug)]
pub struct Item {
    /// The event.
    pub event: BillingEvent,
    /// What it says.
    pub fact: Fact,
    /// How it came.
    pub arrival: Arrival,
}

/// The lanes of one process. Clones share them.
#[derive(Debug, Clone)]
pub struct Lanes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    decisions: Decisions,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    item: Item,
    answer: oneshot::Sender<Result<Taken, Error>>,
}

/// How an event comes in.
enum Entered {
    /// A lane is free.
    Alone(Turn, Box<Item>),
    /// Until its group is committed.
    Queued(oneshot::Receiver<Result<Taken, Error>>),
}

impl Lanes {
    /// All of them free.
    pub fn new(decisions: Decisions) -> Self {
        let free = if decisions.store().is_postgres() {
            LANES
        } else {
            1
        };
        Self(Arc::new(Shared {
            decisions,
            state: Mutex::new(State {
                free,
                waiting: VecDeque::new(),
            }),
        }))
    }

    /// Takes an event in, when its turn comes. `None` when the process failed at it.
    pub async fn take(&self, item: Item) -> Option<Result<Taken, Error>> {
        match self.0.enter(item) {
            Entered::Alone(_turn, item) => Some(alone(&self.0.decisions, &item).await),
            Entered::Queued(answered) => answered.await.ok(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|held| held.into_inner())
    }

    fn enter(self: &Arc<Self>, item: Item) -> Entered {
        let mut state = self.lock();
        if state.free > 0 {
            state.free -= 1;
            return Entered::Alone(Turn(Arc::clone(self)), Box::new(item));
        }
        let (answer, answered) = oneshot::channel();
        state.waiting.push_back(Waiting { item, answer });
        Entered::Queued(answered)
    }

    /// Takes a group in, and answers everybody in it.
    async fn flush(&self, group: Vec<Waiting>) {
        let (items, answers): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|waiting| (waiting.item, waiting.answer))
            .unzip();
        let taken = together::take(&self.decisions, &items).await;
        let mut left = Vec::new();
        for ((item, taken), answer) in items.iter().zip(taken).zip(answers) {
            match taken {
                // Whoever does not listen any more gets it again.
                Some(taken) => drop(answer.send(Ok(taken))),
                None => left.push((item, answer)),
            }
        }
        // Side by side: where the database is down they all wait for it once.
        let alone = left.into_iter().map(|(item, answer)| async {
            let _ = answer.send(alone(&self.decisions, item).await);
        });
        join_all(alone).await;
    }
}

/// The right to one lane. Whoever drops it, by a panic too, passes it on.
struct Turn(Arc<Shared>);

impl Drop for Turn {
    fn drop(&mut self) {
        let group = {
            let mut state = self.0.lock();
            let group = next(&mut state.waiting);
            if group.is_empty() {
                state.free += 1;
                return;
            }
            group
        };
        let turn = Self(Arc::clone(&self.0));
        tokio::spawn(async move { turn.0.flush(group).await });
    }
}

/// The next group, oldest first: what shares nothing.
fn next(waiting: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let (mut group, mut later) = (Vec::new(), VecDeque::new());
    let mut known = BTreeSet::new();
    while group.len() < MOST
        && let Some(one) = waiting.pop_front()
    {
        let mut names = linking::lock_names(&Keys::of_event(&one.item.event));
        names.insert(one.item.event.id());
        // What waits for an earlier one holds the next ones of its own back, too.
        let is_free = names.is_disjoint(&known);
        known.append(&mut names);
        if is_free {
            group.push(one);
        } else {
            later.push_back(one);
        }
    }
    later.append(waiting);
    *waiting = later;
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(id: &str, invoice: &str, subscription: &str) -> Waiting {
        let event = BillingEvent {
            event_id: id.into(),
            provider: "stripe".into(),
            account: "acct".into(),
            kind: "payment_failed".into(),
            occurred_at: Some(pbjson_types::Timestamp::default()),
            invoice_id: Some(invoice.into()),
            subscription_id: Some(subscription.into()),
            amount_due_minor: Some(1),
            currency: Some("EUR".into()),
            ..BillingEvent::default()
        };
        Waiting {
            item: Item {
                fact: contracts::wire::fact(&event).expect("a fact"),
                event,
                arrival: Arrival {
                    received_at: jiff::Timestamp::UNIX_EPOCH,
                    traceparent: None,
                },
            },
            answer: oneshot::channel().0,
        }
    }

    fn ids(group: &[Waiting]) -> Vec<&str> {
        group
            .iter()
            .map(|one| one.item.event.event_id.as_str())
            .collect()
    }

    #[test]
    fn what_shares_an_id_goes_one_after_the_other_in_order() {
        let mut queue: VecDeque<_> = [
            waiting("a", "in_1", "sub_1"),
            waiting("b", "in_2", "sub_2"),
            waiting("c", "in_1", "sub_1"),
            waiting("b", "in_9", "sub_9"),
            waiting("d", "in_3", "sub_1"),
            waiting("e", "in_4", "sub_4"),
        ]
        .into();
        assert_eq!(ids(&next(&mut queue)), ["a", "b", "e"]);
        assert_eq!(ids(&next(&mut queue)), ["c", "b"]);
        assert_eq!(ids(&next(&mut queue)), ["d"]);
        assert!(next(&mut queue).is_empty());
    }

    #[test]
    fn a_group_has_an_end() {
        let name = |n: usize| format!("x{n}");
        let mut queue: VecDeque<_> = (0..MOST + 1)
            .map(|n| waiting(&name(n), &name(n), &name(n)))
            .collect();
        assert_eq!(next(&mut queue).len(), MOST);
        assert_eq!(next(&mut queue).len(), 1);
    }
}
