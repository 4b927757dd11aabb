//! Who is entitled to what: memberships, billing facts and overrides, at an instant.
//!
//! [`entitle`] is the one decision of the product. It is a pure function, so any instant past or to
//! come can be asked for, and asking again gives the same answer.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::billing::BillingState;
use crate::gym::{GymRules, OverdueScope};
use crate::ids::{MemberId, MembershipId, OverrideId, PlanId};
use crate::membership::{Membership, Reason, Status, StatusAt};
use crate::words::words;

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
    let in_force = |kind: OverrideKind| {
        facts
            .overrides
            .iter()
            .filter(move |o| o.kind == kind && o.from <= now && now < o.until)
            .map(|o| o.until)
            .max()
    };
    let barred = in_force(OverrideKind::Bar).is_some();
    let let_in_until = in_force(OverrideKind::LetIn);
    let debt_follows = payer_debt(facts, rules, now);

    let mut plans: BTreeMap<PlanId, Option<Timestamp>> = BTreeMap::new();
    let mut refusals = BTreeSet::new();
    let mut by_override = false;
    let mut views = Vec::new();
    for MembershipFacts {
        membership,
        billing,
    } in &facts.memberships
    {
        if !membership.is_held_by(&facts.member) {
            continue;
        }
        let mut status = membership.status_at(billing, rules, now);
        if let Some(since) = debt_follows
            && membership.payer() == Some(&facts.member)
        {
            close_for_debt(&mut status, since);
        }
        let plan = membership.plan_at(rules, now);
        let end = membership.end(billing, rules);
        // Staff open despite debt or pause, not before the start nor after the end.
        let excused = !matches!(status.status, Status::Pending | Status::Ended);
        let until = match let_in_until {
            _ if status.gives_access => Some(end),
            Some(until) if excused => {
                by_override = true;
                Some(Some(end.map_or(until, |end| end.min(until))))
            }
            _ => None,
        };
        if let Some(until) = until {
            let held = plans.entry(plan.clone()).or_insert(until);
            // The longest counts; open-ended is longest.
            *held = held.and_then(|held| until.map(|until| held.max(until)));
        }
        refusals.extend(status.reasons.iter().copied());
        views.push(MembershipView {
            membership: membership.id.clone(),
            plan: plan.clone(),
            gives_access: status.gives_access,
            status: status.status,
            reasons: status.reasons,
            starts_on: membership.starts_on,
            ends_on: last_day(membership),
            paused_until: status.paused_until,
            overdue_since: status.overdue_since,
        });
    }
    views.sort_by(|a, b| a.membership.cmp(&b.membership));
    if views.is_empty() {
        refusals.insert(Reason::NoMembership);
    }
    let allowed = !barred && !plans.is_empty();
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
        plans: if allowed {
            plans
                .into_iter()
                .map(|(plan, valid_until)| PlanAccess {
                    plan,
                    valid_from: None,
                    valid_until,
                })
                .collect()
        } else {
            Vec::new()
        },
        memberships: views,
        reasons: reasons.into_iter().collect(),
        changes_at: None,
    }
}

/// Since when a debt of the member's own follows her: it closes, as far as her own access goes,
/// every membership she pays for.
fn payer_debt(facts: &MemberFacts, rules: &GymRules, now: Timestamp) -> Option<Timestamp> {
    if rules.overdue_scope != OverdueScope::Member {
        return None;
    }
    facts
        .memberships
        .iter()
        .filter(|held| held.membership.payer() == Some(&facts.member))
        .filter_map(|held| held.billing.closes_at(rules))
        .filter(|at| *at <= now)
        .min()
}

fn close_for_debt(status: &mut StatusAt, since: Timestamp) {
    if !status.reasons.contains(&Reason::MissedPayment) {
        status.reasons.push(Reason::MissedPayment);
        status.reasons.sort_unstable();
    }
    status.gives_access = false;
    status.overdue_since = Some(status.overdue_since.map_or(since, |own| own.min(since)));
    if matches!(status.status, Status::Active | Status::Cancelling) {
        status.status = Status::Overdue;
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
