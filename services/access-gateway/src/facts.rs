//! What the gateway knows of a gym and a member: small rows, made from bus messages.
//!
//! Compact on purpose: a replica holds every member of every gym in memory. Words are enums, sets
//! of reasons a byte, plan ids shared.

use std::collections::BTreeMap;
use std::sync::Arc;

use contracts::access::v1::AccessApplied;
use contracts::integration::v1::IntegrationChanged;
use contracts::membership::v1::{MembershipState, MembershipStatusChanged};
use contracts::wire;
use jiff::{Timestamp, civil::Date};

use crate::words::{Failure, IntegrationState, MemberResume, Outcome, Reasons};

/// A span of time; an absent end is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// Inclusive.
    pub from: Option<Timestamp>,
    /// Exclusive.
    pub until: Option<Timestamp>,
}

impl Window {
    /// Whether `now` lies inside.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }
}

/// A plan that gives access, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanFacts {
    /// Shared between members.
    pub plan_id: Arc<str>,
    /// When it gives access.
    pub window: Window,
}

/// One membership of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipFacts {
    /// Its id.
    pub membership_id: Box<str>,
    /// Why it does not give access.
    pub reasons: Reasons,
    /// Whether its status is `paused`, whatever else holds.
    pub paused: bool,
    /// First day with access.
    pub starts_on: Option<Date>,
    /// First day back.
    pub paused_until: Option<Date>,
}

/// What membership-events decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Of MembershipStatusChanged.
    pub version: i64,
    /// When it was decided.
    pub at: Timestamp,
    /// The next instant at which time alone changes it.
    pub changes_at: Option<Timestamp>,
    /// The plans that give access; empty when none does.
    pub plans: Box<[PlanFacts]>,
    /// All memberships.
    pub memberships: Box<[MembershipFacts]>,
    /// All reasons that hold.
    pub reasons: Reasons,
    /// The member is erased: nothing but the version counts.
    pub erased: bool,
}

impl Decided {
    /// Reads a message. Plan ids go through `intern`.
    pub fn read(
        message: &MembershipStatusChanged,
        mut intern: impl FnMut(&str) -> Arc<str>,
    ) -> Self {
        let plans = if message.allowed && !message.erased {
            message
                .plans
                .iter()
                .map(|plan| PlanFacts {
                    plan_id: intern(&plan.plan_id),
                    window: window(plan.valid_from.as_ref(), plan.valid_until.as_ref()),
                })
                .collect()
        } else {
            Box::default()
        };
        Self {
            version: message.version,
            at: instant_or_epoch(message.decided_at.as_ref()),
            changes_at: message.changes_at.as_ref().and_then(wire::instant),
            plans,
            memberships: message.memberships.iter().map(membership).collect(),
            reasons: Reasons::parse(&message.reasons),
            erased: message.erased,
        }
    }
}

fn membership(state: &MembershipState) -> MembershipFacts {
    MembershipFacts {
        membership_id: state.membership_id.as_str().into(),
        reasons: Reasons::parse(&state.reasons),
        paused: state.status == "paused",
        starts_on: wire::date(&state.starts_on),
        paused_until: wire::date(&state.paused_until),
    }
}

/// What Kisi accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// kisi-sync's number of this outcome; merged by it.
    pub applied_seq: i64,
    /// The decision it answers.
    pub version: i64,
    /// When Kisi answered last, or nothing was found to do.
    pub at: Timestamp,
    /// What came of it.
    pub outcome: Outcome,
    /// Our rows that stand: group and window.
    pub grants: Box<[(i64, Window)]>,
    /// Groups that others opened for the member.
    pub opened_by_others: Box<[i64]>,
    /// Groups of whose doors others open some for the member by another way, as of some time today.
    pub opened_elsewhere: Box<[i64]>,
    /// The person has not been seen to have signed up with Kisi.
    pub sign_up_needed: bool,
    /// Why it failed or is held.
    pub failure: Option<Failure>,
    /// Kisi's own code of the failure.
    pub kisi_code: Option<Box<str>>,
}

impl Applied {
    /// Reads a message.
    pub fn read(message: &AccessApplied) -> Self {
        let timings = message.timings.as_ref();
        Self {
            applied_seq: message.applied_seq,
            version: message.version,
            at: instant_or_epoch(timings.and_then(|timings| timings.applied_at.as_ref())),
            outcome: Outcome::parse(&message.outcome),
            grants: message
                .grants
                .iter()
                .map(|grant| {
                    let window = window(grant.valid_from.as_ref(), grant.valid_until.as_ref());
                    (grant.group_id, window)
                })
                .collect(),
            opened_by_others: message.groups_opened_by_others.as_slice().into(),
            opened_elsewhere: message.groups_opened_elsewhere.as_slice().into(),
            sign_up_needed: message.sign_up_needed,
            failure: message.failure.as_deref().map(Failure::parse),
            kisi_code: message.kisi_code.as_deref().map(Into::into),
        }
    }
}

/// All that is known of a member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberFacts {
    /// The newest decision.
    pub decided: Option<Decided>,
    /// The newest outcome.
    pub applied: Option<Applied>,
}

impl MemberFacts {
    /// The decision, where the member is known and not erased. An outcome alone makes nobody
    /// known: who is a member is membership-events' word.
    pub fn known(&self) -> Option<&Decided> {
        self.decided.as_ref().filter(|decided| !decided.erased)
    }
}

/// All that is known of a gym.
#[derive(Debug, Clone, PartialEq)]
pub struct GymFacts {
    /// How far its integration is.
    pub state: IntegrationState,
    /// Plan to Kisi group.
    pub groups_by_plan: BTreeMap<String, i64>,
    /// Who may end a pause.
    pub member_resume: MemberResume,
    /// The message itself: what `GET /integration` falls back on, and the doors.
    pub message: IntegrationChanged,
}

impl GymFacts {
    /// Reads a message.
    pub fn read(message: IntegrationChanged) -> Self {
        let policy = message.policies.as_ref();
        Self {
            state: IntegrationState::parse(&message.state),
            groups_by_plan: message
                .associations
                .iter()
                .map(|association| (association.plan_id.clone(), association.group_id))
                .collect(),
            member_resume: policy.map_or(MemberResume::default(), |policies| {
                MemberResume::parse(&policies.member_resume)
            }),
            message,
        }
    }
}

fn window(
    from: Option<&pbjson_types::Timestamp>,
    until: Option<&pbjson_types::Timestamp>,
) -> Window {
    Window {
        from: from.and_then(wire::instant),
        until: until.and_then(wire::instant),
    }
}

/// Producers always set the instants read by this; the epoch shows a producer that did not.
fn instant_or_epoch(at: Option<&pbjson_types::Timestamp>) -> Timestamp {
    at.and_then(wire::instant).unwrap_or(Timestamp::UNIX_EPOCH)
}
