//! Members with work, the most urgent first, each in the queue once.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use tokio::sync::mpsc;

use crate::record::Outcome;
use crate::snapshot::Snapshot;

/// What came of one job.
pub type Settled = (String, Option<Outcome>);

/// How urgent a member's work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Urgency {
    Revoke,
    Grant,
    Background,
}

impl Urgency {
    /// Of what was decided about one member.
    pub fn of_change(closes: bool) -> Self {
        match closes {
            true => Self::Revoke,
            false => Self::Grant,
        }
    }
}

/// A member as the intake has read her.
#[derive(Debug)]
pub(super) struct Seed {
    pub(super) snapshot: Snapshot,
    /// Nothing of it was read before.
    pub(super) read_from: Instant,
}

/// A member to look at.
#[derive(Debug)]
pub struct Job {
    pub(super) member: String,
    pub(super) urgency: Urgency,
    /// As just committed; used only if nothing stands in between.
    pub(super) seed: Option<Seed>,
    /// Something was decided about the member, just now.
    pub(super) is_change: bool,
    pub(super) reply: Option<mpsc::UnboundedSender<Settled>>,
}

impl Job {
    /// From the intake, which began to read at this instant.
    pub fn event(snapshot: Snapshot, urgency: Urgency, read_from: Instant) -> Self {
        let member = snapshot.member.member_id.clone();
        Self {
            seed: Some(Seed {
                snapshot,
                read_from,
            }),
            is_change: true,
            ..Self::look(&member, urgency)
        }
    }

    /// From a hint or a call.
    pub fn look(member: &str, urgency: Urgency) -> Self {
        Self {
            member: member.to_owned(),
            urgency,
            seed: None,
            is_change: false,
            reply: None,
        }
    }

    /// From another replica, which has stored a new state.
    pub fn hint(member: &str, urgency: Urgency) -> Self {
        Self {
            is_change: true,
            ..Self::look(member, urgency)
        }
    }

    /// From a sync, which wants to know what came of it.
    pub fn of_sync(member: &str, reply: mpsc::UnboundedSender<Settled>) -> Self {
        Self {
            reply: Some(reply),
            ..Self::look(member, Urgency::Background)
        }
    }
}

#[derive(Default)]
pub(super) struct Queues {
    waiting: HashMap<String, Job>,
    order: [VecDeque<String>; 3],
}

impl Queues {
    pub(super) fn push(&mut self, job: Job) {
        match self.waiting.get_mut(&job.member) {
            Some(known) if known.urgency <= job.urgency => {
                known.seed = None;
            }
            _ => {
                self.order[job.urgency as usize].push_back(job.member.clone());
                self.waiting.insert(job.member.clone(), job);
            }
        }
    }

    /// The next of this urgency.
    pub(super) fn pop(&mut self, urgency: Urgency) -> Option<Job> {
        while let Some(member) = self.order[urgency as usize].pop_front() {
            // It may have moved to a more urgent queue.
            if self
                .waiting
                .get(&member)
                .is_some_and(|job| job.urgency == urgency)
            {
                return self.waiting.remove(&member);
            }
        }
        None
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
