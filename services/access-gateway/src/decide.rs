//! From facts to what a person is told: status, both sides, doors, alerts. Pure.
//!
//! What is decided and what Kisi accepted are kept apart; `status` sums them up. A plan counts only
//! while its window holds and a group is associated with it. A right that others gave in Kisi opens
//! doors too, so it is never claimed closed.
//!
//! Not here: the link to pay by, which is fetched when shown.

mod alerts;
mod words;

use std::collections::BTreeSet;

use contracts::integration::v1::GroupDoor;
use jiff::Timestamp;

pub use words::{AlertCode, Status};

use crate::facts::{Applied, Decided, GymFacts, MemberFacts};
use crate::permissions::PhonePermissions;
use crate::words::Outcome;

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// Whether a door opens by this side.
    pub allowed: bool,
    /// Since when; absent while nothing was heard.
    pub at: Option<Timestamp>,
    /// Of MembershipStatusChanged; 0 while nothing was heard.
    pub version: i64,
}

/// A way back in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Pay at this page, when it is known.
    Pay(Option<String>),
    /// Ask to be resumed.
    Resume,
    /// Wait until then.
    WaitUntil(Timestamp),
    /// Change the phone's settings.
    FixPhone,
    /// Talk to the gym.
    ContactGym,
}

/// One thing a member is told, with the way back in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What it is about.
    pub code: AlertCode,
    /// In words a member can act on.
    pub message: String,
    /// The way back in.
    pub action: Action,
    /// Kisi's code, with `other`.
    pub kisi_code: Option<String>,
}

/// All a person is told of a member's access.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// The sum.
    pub status: Status,
    /// When it was reckoned.
    pub as_of: Timestamp,
    /// What membership-events decided.
    pub decision: Side,
    /// What Kisi accepted.
    pub applied: Side,
    /// The doors behind the member's groups, by id.
    pub doors: Vec<GroupDoor>,
    /// Why not, and what else there is to know.
    pub alerts: Vec<Alert>,
}

/// The groups that the member's plans open at `now`.
pub fn entitled_groups(gym: Option<&GymFacts>, decided: &Decided, now: Timestamp) -> BTreeSet<i64> {
    let Some(gym) = gym else {
        return BTreeSet::new();
    };
    decided
        .plans
        .iter()
        .filter(|plan| plan.window.holds(now))
        .filter_map(|plan| gym.groups_by_plan.get(plan.plan_id.as_ref()).copied())
        .collect()
}

/// Whether the member's plans give access at `now`, but none of them has a group.
pub fn lacks_group(gym: Option<&GymFacts>, decided: &Decided, now: Timestamp) -> bool {
    decided.plans.iter().any(|plan| plan.window.holds(now))
        && entitled_groups(gym, decided, now).is_empty()
}

/// What to tell of a member; `None` when the member is not known.
pub fn access(
    gym: Option<&GymFacts>,
    member: &MemberFacts,
    phone: Option<PhonePermissions>,
    now: Timestamp,
) -> Option<Access> {
    let decided = member.known()?;
    let entitled = entitled_groups(gym, decided, now);
    let mut standing = standing_groups(gym, member.applied.as_ref(), now);
    if entitled.is_empty() {
        // Read once a day, so it opens nothing here; but nobody is told that these are closed.
        standing.extend(elsewhere(gym, member.applied.as_ref()));
    }
    let decision = Side {
        allowed: !entitled.is_empty(),
        at: Some(decided.at),
        version: decided.version,
    };
    let applied = Side {
        allowed: !standing.is_empty(),
        at: member.applied.as_ref().map(|applied| applied.at),
        version: member.applied.as_ref().map_or(0, |applied| applied.version),
    };
    let status = sum(&entitled, &standing, decided, member.applied.as_ref());
    let doors = doors(gym, entitled.union(&standing));
    let alerts = alerts::alerts(&alerts::Situation {
        gym,
        decided,
        applied: member.applied.as_ref(),
        status,
        doors: &doors,
        phone,
        now,
    });
    Some(Access {
        status,
        as_of: now,
        decision,
        applied,
        doors,
        alerts,
    })
}

/// The groups that stand open at Kisi: ours while their window holds, and those that others opened
/// among the gym's associated ones.
fn standing_groups(
    gym: Option<&GymFacts>,
    applied: Option<&Applied>,
    now: Timestamp,
) -> BTreeSet<i64> {
    let Some(applied) = applied else {
        return BTreeSet::new();
    };
    let ours = applied
        .grants
        .iter()
        .filter(|(_, window)| window.holds(now))
        .map(|(group, _)| *group);
    ours.chain(associated(gym, &applied.opened_by_others))
        .collect()
}

/// The groups of whose doors others open some for the member by another way.
fn elsewhere(gym: Option<&GymFacts>, applied: Option<&Applied>) -> BTreeSet<i64> {
    applied
        .map(|applied| associated(gym, &applied.opened_elsewhere).collect())
        .unwrap_or_default()
}

/// Those of these groups that a plan opens.
fn associated<'a>(gym: Option<&'a GymFacts>, groups: &'a [i64]) -> impl Iterator<Item = i64> + 'a {
    groups.iter().copied().filter(move |group| {
        gym.is_some_and(|gym| gym.groups_by_plan.values().any(|known| known == group))
    })
}

fn sum(
    entitled: &BTreeSet<i64>,
    standing: &BTreeSet<i64>,
    decided: &Decided,
    applied: Option<&Applied>,
) -> Status {
    // A held outcome of an older version says nothing of this one.
    let held = applied.is_some_and(|applied| {
        applied.outcome == Outcome::Held && applied.version >= decided.version
    });
    // One group in common is enough: access through any one membership is access.
    match (entitled.is_empty(), standing.is_empty()) {
        (false, _) if !entitled.is_disjoint(standing) => Status::Granted,
        (true, true) => Status::Denied,
        _ if held => Status::Held,
        (false, _) => Status::Granting,
        (true, false) => Status::Revoking,
    }
}

fn doors<'a>(gym: Option<&GymFacts>, groups: impl Iterator<Item = &'a i64>) -> Vec<GroupDoor> {
    let Some(gym) = gym else {
        return Vec::new();
    };
    let groups: BTreeSet<i64> = groups.copied().collect();
    let mut doors: Vec<GroupDoor> = gym
        .message
        .groups
        .iter()
        .filter(|group| groups.contains(&group.group_id))
        .flat_map(|group| group.doors.iter().cloned())
        .collect();
    doors.sort_by_key(|door| door.lock_id);
    doors.dedup_by_key(|door| door.lock_id);
    doors
}

#[cfg(test)]
mod tests;
