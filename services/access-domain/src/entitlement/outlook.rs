//! What time alone will make of a member's access.

use jiff::Timestamp;

use super::{Entitlement, MemberFacts, entitle};
use crate::gym::GymRules;

/// From `first`, at which time changes something, to `until`: every instant at which the decision
/// changes by itself, each with what holds from then on, in order.
///
/// There are no more of them than the facts have dates.
pub fn outlook(
    facts: &MemberFacts,
    rules: &GymRules,
    first: Timestamp,
    until: Timestamp,
) -> Vec<(Timestamp, Entitlement)> {
    let mut steps = Vec::new();
    let mut next = Some(first);
    while let Some(at) = next.filter(|at| *at <= until) {
        let entitlement = entitle(facts, rules, at);
        next = entitlement.changes_at;
        steps.push((at, entitlement));
    }
    steps
}
