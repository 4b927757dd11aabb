//! From facts to what a person is told: status, both sides, doors, alerts. Pure.
//!
//! What is decided and what Kisi accepted are kept apart; `status` sums them up. A plan counts only
//! while its window holds and a group is associated with it. A right that others gave in Kisi opens
//! doors too, so it is never claimed closed.
//!
//! Not here: the link to pay by, which is fetched when shown.

mod alerts;

use std::collections::BTreeSet;

use contracts::integration::v1::GroupDoor;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::facts::{Applied, Decided, GymFacts, MemberFacts};
use crate::permissions::PhonePermissions;
use crate::words::Outcome;

/// The sum of what is decided and what Kisi accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Decided and accepted.
    Granted,
    /// Decided, not accepted yet.
    Granting,
    /// Not allowed, and nothing stands at Kisi.
    Denied,
    /// Not allowed, and something stands at Kisi still.
    Revoking,
    /// The change waits for a person.
    Held,
}

impl Status {
    /// The words, in the order of the variants.
    pub const WORDS: [&'static str; 5] = ["granted", "granting", "denied", "revoking", "held"];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [
            Self::Granted,
            Self::Granting,
            Self::Denied,
            Self::Revoking,
            Self::Held,
        ]
        .into_iter()
        .find(|status| status.as_str() == word)
    }
}

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

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertCode {
    /// An open invoice.
    MissedPayment,
    /// A pause in force.
    MembershipPaused,
    /// The start is yet to come.
    MembershipNotStarted,
    /// No membership gives access any more.
    MembershipEnded,
    /// The plan opens no doors in Kisi.
    PlanWithoutAccess,
    /// Staff barred the member.
    BarredByStaff,
    /// The member has to sign up with Kisi first.
    KisiSignUpNeeded,
    /// Doors do not follow memberships now.
    IntegrationUnavailable,
    /// The e-mail belongs to somebody else in Kisi.
    IdentityConflict,
    /// Somebody opened the doors in Kisi by hand.
    OpenedByOthers,
    /// No phone is enrolled.
    DeviceNotEnrolled,
    /// Another phone is the primary one.
    NotPrimaryDevice,
    /// The door is closed at this hour.
    OutsideHours,
    /// The place is locked down.
    LockedDown,
    /// A door does not answer.
    DoorOffline,
    /// The person is suspended in Kisi.
    SuspendedInKisi,
    /// The phone does not allow Bluetooth.
    MissingPermissionBluetooth,
    /// The phone does not tell where it is.
    MissingPermissionLocation,
    /// Something else, with Kisi's code where there is one.
    Other,
}

impl AlertCode {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissedPayment => "missed_payment",
            Self::MembershipPaused => "membership_paused",
            Self::MembershipNotStarted => "membership_not_started",
            Self::MembershipEnded => "membership_ended",
            Self::PlanWithoutAccess => "plan_without_access",
            Self::BarredByStaff => "barred_by_staff",
            Self::KisiSignUpNeeded => "kisi_sign_up_needed",
            Self::IntegrationUnavailable => "integration_unavailable",
            Self::IdentityConflict => "identity_conflict",
            Self::OpenedByOthers => "opened_by_others",
            Self::DeviceNotEnrolled => "device_not_enrolled",
            Self::NotPrimaryDevice => "not_primary_device",
            Self::OutsideHours => "outside_hours",
            Self::LockedDown => "locked_down",
            Self::DoorOffline => "door_offline",
            Self::SuspendedInKisi => "suspended_in_kisi",
            Self::MissingPermissionBluetooth => "missing_permission_bluetooth",
            Self::MissingPermissionLocation => "missing_permission_location",
            Self::Other => "other",
        }
    }
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
    let standing = standing_groups(gym, member.applied.as_ref(), now);
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
    let others = applied.opened_by_others.iter().copied().filter(|group| {
        gym.is_some_and(|gym| gym.groups_by_plan.values().any(|known| known == group))
    });
    ours.chain(others).collect()
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
