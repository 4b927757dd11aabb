//! Who may claim an event, as a function of what is known: no row is read or written here.

use std::collections::BTreeSet;

use crate::store::links::{Candidate, Pair};

/// What the ids of an event, or of several that belong together, say.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims {
    /// Memberships that know, or knew, the subscription.
    by_subscription: BTreeSet<Pair>,
    /// Of those, the ones whose present reference it is.
    by_current: BTreeSet<Pair>,
    by_name: BTreeSet<Pair>,
    by_mandate: BTreeSet<Pair>,
    by_customer: BTreeSet<Pair>,
    /// Memberships that have a subscription of their own.
    with_subscription: BTreeSet<Pair>,
}

/// A link to one membership by the event's own ids, and to another by what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TwoMemberships;

impl Claims {
    pub(super) fn add(&mut self, candidates: &[Candidate]) {
        for candidate in candidates {
            let pair = (candidate.gym_id.clone(), candidate.membership_id.clone());
            let by = match (candidate.kind.as_str(), candidate.is_current) {
                ("subscription", true) => {
                    self.by_current.insert(pair.clone());
                    &mut self.by_subscription
                }
                ("subscription", false) => &mut self.by_subscription,
                ("metadata", _) => &mut self.by_name,
                ("mandate", true) => &mut self.by_mandate,
                ("customer", true) => &mut self.by_customer,
                // A former mandate or customer says nothing.
                _ => continue,
            };
            by.insert(pair.clone());
            if candidate.has_subscription {
                self.with_subscription.insert(pair);
            }
        }
    }

    /// A present reference names the event's membership.
    pub(super) fn are_present(&self) -> bool {
        !(self.by_current.is_empty() && self.by_mandate.is_empty() && self.by_customer.is_empty())
    }

    /// Whose the event is for certain; empty when nothing says so.
    ///
    /// `tied` are the memberships of events with the same invoice or payment. What is said of one
    /// invoice stays together, also when its subscription has since become another membership's.
    pub(super) fn firm(&self, tied: &BTreeSet<Pair>) -> Result<BTreeSet<Pair>, TwoMemberships> {
        let own = if !self.by_current.is_empty() {
            &self.by_current
        } else if !self.by_subscription.is_empty() {
            &self.by_subscription
        } else if self.by_name.len() == 1 {
            &self.by_name
        } else {
            // Gyms that share an account may use the same membership id: then the name says
            // nothing.
            return Ok(tied.clone());
        };
        if tied.is_empty() {
            return Ok(own.clone());
        }
        let known = own.union(&self.by_subscription).cloned().collect();
        let both: BTreeSet<Pair> = tied.intersection(&known).cloned().collect();
        if both.is_empty() {
            return Err(TwoMemberships);
        }
        Ok(both)
    }

    /// Whose events that belong together are when nothing says so for certain: the only membership
    /// of their mandate, or of their customer. `held` are the memberships they stand with already,
    /// which a membership that comes later does not change.
    ///
    /// Events that name a subscription are no events of a membership that has another one.
    pub(super) fn weak(&self, names_subscription: bool, held: &BTreeSet<Pair>) -> BTreeSet<Pair> {
        let possible = |pairs: &BTreeSet<Pair>| -> BTreeSet<Pair> {
            pairs
                .iter()
                .filter(|pair| !names_subscription || !self.with_subscription.contains(*pair))
                .cloned()
                .collect()
        };
        let held = possible(held);
        if !held.is_empty() {
            return held;
        }
        let by_mandate = only_one(possible(&self.by_mandate));
        if by_mandate.is_empty() {
            only_one(possible(&self.by_customer))
        } else {
            by_mandate
        }
    }
}

fn only_one(pairs: BTreeSet<Pair>) -> BTreeSet<Pair> {
    if pairs.len() == 1 {
        pairs
    } else {
        BTreeSet::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(kind: &str, membership: &str, is_current: bool, has_sub: bool) -> Candidate {
        Candidate {
            gym_id: "iron".parse().expect("an id"),
            membership_id: membership.parse().expect("an id"),
            kind: kind.to_owned(),
            is_current,
            has_subscription: has_sub,
        }
    }

    fn claims(candidates: &[Candidate]) -> Claims {
        let mut claims = Claims::default();
        claims.add(candidates);
        claims
    }

    fn pairs(ids: &[&str]) -> BTreeSet<Pair> {
        let gym = || "iron".parse().expect("an id");
        ids.iter()
            .map(|id| (gym(), id.parse().expect("an id")))
            .collect()
    }

    #[test]
    fn a_current_subscription_beats_a_former_one_and_both_beat_a_name() {
        let former = candidate("subscription", "old", false, true);
        let current = candidate("subscription", "new", true, true);
        let named = candidate("metadata", "named", true, true);
        for (candidates, expected) in [
            (vec![former.clone(), current, named.clone()], &["new"][..]),
            (vec![former, named.clone()], &["old"]),
            (vec![named.clone()], &["named"]),
            (vec![named, candidate("metadata", "too", true, true)], &[]),
            (vec![], &[]),
        ] {
            let found = claims(&candidates).firm(&BTreeSet::new());
            assert_eq!(found, Ok(pairs(expected)), "{candidates:?}");
        }
    }

    #[test]
    fn what_is_said_of_one_invoice_stays_together_or_contradicts_itself() {
        let former = candidate("subscription", "old", false, true);
        let current = candidate("subscription", "new", true, true);
        let of = claims(&[former, current.clone()]);
        assert_eq!(of.firm(&pairs(&["old"])), Ok(pairs(&["old"])));
        assert_eq!(of.firm(&pairs(&["other"])), Err(TwoMemberships));
        let shared = claims(&[current, candidate("subscription", "b", true, true)]);
        assert_eq!(shared.firm(&BTreeSet::new()), Ok(pairs(&["b", "new"])));
        assert_eq!(Claims::default().firm(&pairs(&["a"])), Ok(pairs(&["a"])));
    }

    #[test]
    fn a_customer_says_a_membership_only_where_there_is_one_it_can_be() {
        let one = candidate("customer", "a", true, true);
        let other = candidate("customer", "b", true, true);
        let without = candidate("customer", "c", true, false);
        let former = candidate("customer", "d", false, true);
        let mandate = candidate("mandate", "e", true, true);
        for (names, candidates, held, expected) in [
            (false, vec![one.clone(), former], &[][..], &["a"][..]),
            (false, vec![one.clone(), other.clone()], &[], &[]),
            (false, vec![one.clone(), other.clone()], &["b"], &["b"]),
            (false, vec![one.clone(), mandate], &[], &["e"]),
            // An unknown subscription is another membership's, unless this one has none.
            (true, vec![one.clone()], &[], &[]),
            (true, vec![one.clone()], &["a"], &[]),
            (true, vec![one, without], &[], &["c"]),
        ] {
            let found = claims(&candidates).weak(names, &pairs(held));
            assert_eq!(found, pairs(expected), "{candidates:?} {held:?}");
        }
    }
}
