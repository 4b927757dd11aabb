//! The read model: the newest facts of every gym and member, in memory.
//!
//! Messages merge by version (`applied_seq` for outcomes) and never by arrival, so that a
//! redelivery or an overtaking changes nothing. A map behind a lock is all there is: reads take
//! microseconds and writers come one message at a time.
//!
//! Not here: where messages come from ([`follow`]) and what they mean ([`crate::decide`]).

pub mod follow;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use contracts::access::v1::AccessApplied;
use contracts::integration::v1::IntegrationChanged;
use contracts::membership::v1::MembershipStatusChanged;
use tokio::sync::broadcast;

use crate::facts::{Applied, Decided, GymFacts, MemberFacts};
use crate::words::Outcome;

/// Changes a slow watcher may fall behind by before it has to look again unasked.
const CHANGES_KEPT: usize = 1_024;

/// Something about a gym, or one of its members, changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The gym.
    pub gym: Arc<str>,
    /// The member; absent when the integration changed.
    pub member: Option<Arc<str>>,
}

/// The read model. Clones share it.
#[derive(Debug, Clone)]
pub struct Projection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    model: RwLock<Model>,
    caught_up: AtomicBool,
    changes: broadcast::Sender<Change>,
}

#[derive(Debug, Default)]
struct Model {
    gyms: HashMap<Box<str>, GymRows>,
    plan_ids: HashSet<Arc<str>>,
}

#[derive(Debug, Default)]
struct GymRows {
    integration: Option<Arc<GymFacts>>,
    members: BTreeMap<Box<str>, MemberFacts>,
}

impl Default for Projection {
    fn default() -> Self {
        Self::new()
    }
}

impl Projection {
    /// An empty model that has not caught up.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            model: RwLock::default(),
            caught_up: AtomicBool::new(false),
            changes: broadcast::Sender::new(CHANGES_KEPT),
        }))
    }

    /// Whether the sequences seen at start are reached on all streams.
    pub fn is_caught_up(&self) -> bool {
        self.0.caught_up.load(Ordering::Acquire)
    }

    /// From now on answers are given.
    pub fn set_caught_up(&self) {
        self.0.caught_up.store(true, Ordering::Release);
    }

    /// Changes from now on. A receiver that lags has to look again.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }

    /// Takes a decision, unless a newer one is held.
    pub fn decided(&self, message: &MembershipStatusChanged) {
        {
            let mut model = self.write();
            let Model { gyms, plan_ids } = &mut *model;
            let members = &mut rows(gyms, &message.gym_id).members;
            let member = members.entry(message.member_id.as_str().into());
            let member = member.or_default();
            let held = member.decided.as_ref().map(|decided| decided.version);
            if held.is_some_and(|held| held >= message.version) {
                return;
            }
            let decided = Decided::read(message, |plan| intern(plan_ids, plan));
            if decided.erased {
                member.applied = None;
            }
            member.decided = Some(decided);
        }
        self.tell(&message.gym_id, Some(&message.member_id));
    }

    /// Takes an outcome, unless a newer one is held.
    pub fn applied(&self, message: &AccessApplied) {
        {
            let mut model = self.write();
            let members = &mut rows(&mut model.gyms, &message.gym_id).members;
            let member = members.entry(message.member_id.as_str().into());
            let member = member.or_default();
            let held = member.applied.as_ref().map(|applied| applied.applied_seq);
            if held.is_some_and(|held| held >= message.applied_seq) {
                return;
            }
            let applied = Applied::read(message);
            if applied.outcome == Outcome::Erased {
                // The tombstone stays, a few bytes: an older decision must not raise the member.
                let version = message.version;
                if member
                    .decided
                    .as_ref()
                    .is_none_or(|decided| decided.version <= version)
                {
                    member.decided = Some(tombstone(version));
                }
            }
            member.applied = Some(applied);
        }
        self.tell(&message.gym_id, Some(&message.member_id));
    }

    /// Takes an integration, unless a newer one is held.
    pub fn integration(&self, message: IntegrationChanged) {
        let gym = message.gym_id.clone();
        {
            let mut model = self.write();
            let held = &mut rows(&mut model.gyms, &gym).integration;
            if held
                .as_ref()
                .is_some_and(|held| held.message.version >= message.version)
            {
                return;
            }
            *held = Some(Arc::new(GymFacts::read(message)));
        }
        self.tell(&gym, None);
    }

    /// A gym's integration.
    pub fn gym(&self, gym: &str) -> Option<Arc<GymFacts>> {
        self.read().gyms.get(gym)?.integration.clone()
    }

    /// A member with the gym's integration, both of one moment.
    pub fn member(&self, gym: &str, member: &str) -> Option<(Option<Arc<GymFacts>>, MemberFacts)> {
        let model = self.read();
        let rows = model.gyms.get(gym)?;
        let facts = rows.members.get(member)?.clone();
        Some((rows.integration.clone(), facts))
    }

    /// Up to `limit` members of a gym by id, after `after`, that `pick` makes something of.
    pub fn members<T>(
        &self,
        gym: &str,
        after: Option<&str>,
        limit: usize,
        mut pick: impl FnMut(&str, Option<&GymFacts>, &MemberFacts) -> Option<T>,
    ) -> Vec<T> {
        let model = self.read();
        let Some(rows) = model.gyms.get(gym) else {
            return Vec::new();
        };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        rows.members
            .range::<str, _>((start, Bound::Unbounded))
            .filter_map(|(id, facts)| pick(id, rows.integration.as_deref(), facts))
            .take(limit)
            .collect()
    }

    fn tell(&self, gym: &str, member: Option<&str>) {
        if self.0.changes.receiver_count() > 0 {
            let change = Change {
                gym: gym.into(),
                member: member.map(Into::into),
            };
            // Fails only when the last watcher has just gone.
            let _ = self.0.changes.send(change);
        }
    }

    // A writer that panicked left whole rows behind: each is replaced in one assignment.
    fn read(&self) -> RwLockReadGuard<'_, Model> {
        self.0.model.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Model> {
        self.0.model.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rows<'a>(gyms: &'a mut HashMap<Box<str>, GymRows>, gym: &str) -> &'a mut GymRows {
    gyms.entry(gym.into()).or_default()
}

fn intern(held: &mut HashSet<Arc<str>>, id: &str) -> Arc<str> {
    if let Some(found) = held.get(id) {
        return Arc::clone(found);
    }
    let id: Arc<str> = id.into();
    held.insert(Arc::clone(&id));
    id
}

fn tombstone(version: i64) -> Decided {
    Decided {
        version,
        at: jiff::Timestamp::UNIX_EPOCH,
        changes_at: None,
        plans: Box::default(),
        memberships: Box::default(),
        reasons: crate::words::Reasons::default(),
        erased: true,
    }
}

#[cfg(test)]
mod tests;
