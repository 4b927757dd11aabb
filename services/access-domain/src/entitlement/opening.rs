//! What each membership opens at an instant, and until when.
//!
//! Debts that follow their payer and staff's letting in and barring are in it; why a door is closed
//! is told by [`super::entitle`].

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{MemberFacts, OverrideKind};
use crate::gym::{GymRules, OverdueScope};
use crate::ids::PlanId;
use crate::membership::{Membership, Reason, Status, StatusAt};

/// A membership that the member holds, and what it opens.
pub(super) struct Opening<'a> {
    pub(super) membership: &'a Membership,
    pub(super) status: StatusAt,
    /// `None`: nothing. Else until when, as far as an end is known.
    pub(super) until: Option<Option<Timestamp>>,
    /// Staff opened what would be closed.
    pub(super) by_override: bool,
}

/// What each membership that the member holds opens at `now`, staff's letting in included.
pub(super) fn openings<'a>(
    facts: &'a MemberFacts,
    rules: &GymRules,
    now: Timestamp,
) -> Vec<Opening<'a>> {
    let let_in_until = in_force(facts, OverrideKind::LetIn, now);
    let debt_follows = payer_debt(facts, rules, now);
    facts
        .memberships
        .iter()
        .filter(|held| held.membership.is_held_by(&facts.member))
        .map(|held| {
            let membership = &held.membership;
            let mut status = membership.status_at(&held.billing, rules, now);
            if let Some(since) = debt_follows
                && membership.payer() == Some(&facts.member)
            {
                close_for_debt(&mut status, since);
            }
            let end = membership.end(&held.billing, rules);
            // Staff open despite debt or pause, not before the start nor after the end.
            let excused = !matches!(status.status, Status::Pending | Status::Ended);
            let (until, by_override) = match let_in_until {
                _ if status.gives_access => (Some(end), false),
                Some(until) if excused => {
                    (Some(Some(end.map_or(until, |end| end.min(until)))), true)
                }
                _ => (None, false),
            };
            Opening {
                membership,
                status,
                until,
                by_override,
            }
        })
        .collect()
}

/// Until when an override of `kind` is in force at `now`.
fn in_force(facts: &MemberFacts, kind: OverrideKind, now: Timestamp) -> Option<Timestamp> {
    facts
        .overrides
        .iter()
        .filter(|held| held.kind == kind && held.from <= now && now < held.until)
        .map(|held| held.until)
        .max()
}

pub(super) fn is_barred(facts: &MemberFacts, now: Timestamp) -> bool {
    in_force(facts, OverrideKind::Bar, now).is_some()
}

/// The plans that give access at `now`, each until the last end of what opens it.
pub(super) fn plans(
    facts: &MemberFacts,
    rules: &GymRules,
    now: Timestamp,
) -> BTreeMap<PlanId, Option<Timestamp>> {
    let mut plans: BTreeMap<PlanId, Option<Timestamp>> = BTreeMap::new();
    if is_barred(facts, now) {
        return plans;
    }
    for opening in openings(facts, rules, now) {
        let Some(until) = opening.until else {
            continue;
        };
        let plan = opening.membership.plan_at(rules, now).clone();
        let held = plans.entry(plan).or_insert(until);
        // The longest counts; open-ended is longest.
        *held = held.and_then(|held| until.map(|until| held.max(until)));
    }
    plans
}

/// The end of access to `plan`, of which `until` is one end: where another membership goes on from
/// there, or the membership itself once staff's letting in is over, there is none yet. Otherwise a
/// renewal would have its door closed by Kisi at midnight, and opened by us when we come to it.
pub(super) fn true_end(
    facts: &MemberFacts,
    rules: &GymRules,
    plan: &PlanId,
    mut until: Timestamp,
) -> Option<Timestamp> {
    // Each step ends a membership or an override.
    for _ in 0..facts.memberships.len() + facts.overrides.len() {
        match plans(facts, rules, until).remove(plan) {
            Some(later) => until = later?,
            None => break,
        }
    }
    Some(until)
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
