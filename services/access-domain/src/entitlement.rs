//! Who is entitled to what: memberships, billing facts and overrides, at an instant.
//!
//! [`entitle`] is the one decision of the product. It is a pure function, so any instant past or to
//! come can be asked for, and asking again gives the same answer.

mod opening;
mod outlook;

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::billing::BillingState;
use crate::gym::GymRules;
use crate::ids::{MemberId, MembershipId, OverrideId, PlanId};
use crate::membership::{Membership, Reason, Status};
use crate::words::words;
pub use outlook::outlook;

use opening::{is_barred, openings, plans, true_end};

words! {
    /// What staff did.
    OverrideKind {
        /// Despite debt or pause.
        LetIn = "let_in",
        Bar = "bar",
    }
}

/// One person let in or barred by staff, until an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    pub id: OverrideId,
    pub kind: OverrideKind,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// A membership with what its billing facts come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipFacts {
    pub membership: Membership,
    /// Of its current and former billing references.
    pub billing: BillingState,
}

/// All that decides about one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFacts {
    pub member: MemberId,
    /// Every membership that the member holds a seat in or pays for.
    pub memberships: Vec<MembershipFacts>,
    pub overrides: Vec<Override>,
}

/// Access to one plan's doors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanAccess {
    pub plan: PlanId,
    /// `None`: from now on.
    pub valid_from: Option<Timestamp>,
    /// The true end of the entitlement, never of a billing period. `None`: no end is known.
    pub valid_until: Option<Timestamp>,
}

/// One membership as its holder sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipView {
    pub membership: MembershipId,
    pub plan: PlanId,
    pub status: Status,
    /// All that hold, sorted, a debt elsewhere that closes this one included.
    pub reasons: Vec<Reason>,
    pub gives_access: bool,
    pub starts_on: jiff::civil::Date,
    /// Last day with access.
    pub ends_on: Option<jiff::civil::Date>,
    pub paused_until: Option<Timestamp>,
    pub overdue_since: Option<Timestamp>,
}

/// The decision about one member at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entitlement {
    pub allowed: bool,
    /// The plans that give access, by id, each once.
    pub plans: Vec<PlanAccess>,
    /// Every membership the member holds a seat in, by id.
    pub memberships: Vec<MembershipView>,
    /// Why, sorted: all reasons of a refusal; of access only what staff did.
    pub reasons: Vec<Reason>,
    /// The next instant at which time alone changes any of this.
    pub changes_at: Option<Timestamp>,
}

/// Decides about one member at `now`.
pub fn entitle(facts: &MemberFacts, rules: &GymRules, now: Timestamp) -> Entitlement {
    let mut entitlement = decide(facts, rules, now);
    entitlement.changes_at = instants(facts, rules)
        .into_iter()
        .filter(|at| *at > now)
        .find(|at| decide(facts, rules, *at) != entitlement);
    entitlement
}

/// The next version of a member's state: it grows even after a restore of the database.
pub fn next_version(previous: i64, now: Timestamp) -> i64 {
    previous.saturating_add(1).max(now.as_microsecond())
}

/// The decision without `changes_at`.
fn decide(facts: &MemberFacts, rules: &GymRules, now: Timestamp) -> Entitlement {
    let barred = is_barred(facts, now);
    let mut refusals = BTreeSet::new();
    let mut by_override = false;
    let mut views = Vec::new();
    for opening in openings(facts, rules, now) {
        let (membership, status) = (opening.membership, opening.status);
        by_override |= opening.by_override;
        refusals.extend(status.reasons.iter().copied());
        views.push(MembershipView {
            membership: membership.id.clone(),
            plan: membership.plan_at(rules, now).clone(),
            gives_access: status.gives_access,
            status: status.status,
            reasons: status.reasons,
            starts_on: membership.starts_on,
            ends_on: last_day(membership),
            paused_until: status.paused_until,
            overdue_since: status.overdue_since,
        });
    }
    let plans = plans(facts, rules, now);
    views.sort_by(|a, b| a.membership.cmp(&b.membership));
    if views.is_empty() {
        refusals.insert(Reason::NoMembership);
    }
    let allowed = !plans.is_empty();
    let mut reasons = BTreeSet::new();
    if barred {
        reasons.insert(Reason::BarredByStaff);
    }
    if allowed && by_override {
        reasons.insert(Reason::LetInByStaff);
    }
    if !allowed {
        reasons.extend(refusals);
    }
    Entitlement {
        allowed,
        plans: plans
            .into_iter()
            .map(|(plan, until)| PlanAccess {
                valid_until: until.and_then(|until| true_end(facts, rules, &plan, until)),
                plan,
                valid_from: None,
            })
            .collect(),
        memberships: views,
        reasons: reasons.into_iter().collect(),
        changes_at: None,
    }
}

fn last_day(membership: &Membership) -> Option<jiff::civil::Date> {
    let cancelled = membership
        .cancellation
        .as_ref()
        .and_then(|held| held.ends_on);
    match (membership.ends_on, cancelled) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Every instant at which time alone may change the decision, sorted.
fn instants(facts: &MemberFacts, rules: &GymRules) -> BTreeSet<Timestamp> {
    let mut instants = BTreeSet::new();
    for MembershipFacts {
        membership,
        billing,
    } in &facts.memberships
    {
        instants.insert(rules.begins(membership.starts_on));
        instants.extend(membership.end(billing, rules));
        instants.extend(
            membership
                .next_plan
                .as_ref()
                .map(|next| rules.begins(next.from)),
        );
        for (from, until) in membership.paused_spans(billing, rules) {
            instants.insert(from);
            instants.extend(until);
        }
        instants.extend(billing.oldest_open());
        instants.extend(billing.closes_at(rules));
    }
    for held in &facts.overrides {
        instants.extend([held.from, held.until]);
    }
    instants
}
