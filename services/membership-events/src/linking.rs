//! Which membership a billing event is about.
//!
//! In this order: the subscription, against current and, failing those, former references; the
//! membership named in the metadata; events already linked with the same invoice or payment; the
//! mandate; the customer, where it says one membership and no other. All within gyms that own the
//! account: an account that is nobody's links to nothing, whatever an event's metadata says.
//! What finds no link is parked, and looked at again when a link may have appeared.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::ids::{GymId, MembershipId};
use jiff::Timestamp;
use sea_orm::ConnectionTrait;

use crate::error::Error;
use crate::store::StoreError;
use crate::store::billing::{self, Keys};
use crate::store::entity::billing_events;
use crate::store::links::{self, Candidate, Pair};
use crate::unit::Unit;

/// Memberships per gym.
pub type Touched = BTreeMap<GymId, BTreeSet<MembershipId>>;

/// The memberships an event is about; none is a reason to park it.
pub async fn find(
    db: &impl ConnectionTrait,
    keys: &Keys<'_>,
) -> Result<BTreeSet<Pair>, StoreError> {
    let candidates = links::list_candidates(db, keys).await?;
    let strong = by_subscription_or_name(&candidates);
    if !strong.is_empty() {
        return Ok(strong);
    }
    let tied = links::list_tied_memberships(db, keys).await?;
    if !tied.is_empty() {
        return Ok(tied.into_iter().collect());
    }
    Ok(by_mandate_or_customer(keys, &candidates))
}

fn by_subscription_or_name(candidates: &[Candidate]) -> BTreeSet<Pair> {
    let of = |kind: &str, is_current: bool| -> BTreeSet<Pair> {
        candidates
            .iter()
            .filter(|c| c.kind == kind && c.is_current == is_current)
            .map(pair)
            .collect()
    };
    let current = of("subscription", true);
    if !current.is_empty() {
        return current;
    }
    let former = of("subscription", false);
    if !former.is_empty() {
        return former;
    }
    // Gyms that share an account may use the same membership id: then the name says nothing.
    only_one(of("metadata", true))
}

fn by_mandate_or_customer(keys: &Keys<'_>, candidates: &[Candidate]) -> BTreeSet<Pair> {
    let of = |kind: &str| -> BTreeSet<Pair> {
        candidates
            .iter()
            .filter(|c| c.kind == kind && c.is_current)
            // An event of a subscription that is not the membership's own is another membership's.
            .filter(|c| keys.subscription.is_none() || !c.has_subscription)
            .map(pair)
            .collect()
    };
    let by_mandate = only_one(of("mandate"));
    if by_mandate.is_empty() {
        only_one(of("customer"))
    } else {
        by_mandate
    }
}

fn pair(candidate: &Candidate) -> Pair {
    (candidate.gym_id.clone(), candidate.membership_id.clone())
}

fn only_one(pairs: BTreeSet<Pair>) -> BTreeSet<Pair> {
    if pairs.len() == 1 {
        pairs
    } else {
        BTreeSet::new()
    }
}

/// Why an event found no membership, in the words of `UnmatchedBilling.why`.
pub async fn why_unmatched(
    db: &impl ConnectionTrait,
    keys: &Keys<'_>,
) -> Result<&'static str, StoreError> {
    if !links::is_known_account(db, keys.provider, keys.account).await? {
        return Ok("unknown_account");
    }
    Ok(if keys.subscription.is_some() {
        "unknown_subscription"
    } else {
        "unknown_payment"
    })
}

/// Links what of these parked events has found a membership, and what is tied to those in turn.
pub async fn attach(
    db: &impl ConnectionTrait,
    parked: Vec<billing_events::Model>,
    touched: &mut Touched,
) -> Result<usize, StoreError> {
    let mut left = parked;
    let mut seen = BTreeSet::new();
    let mut attached = 0;
    while let Some(row) = left.pop() {
        let keys = Keys::of_row(&row);
        let pairs = find(db, &keys).await?;
        if pairs.is_empty() {
            continue;
        }
        if !seen.insert((
            row.provider.clone(),
            row.account.clone(),
            row.event_id.clone(),
        )) {
            continue;
        }
        links::link(db, &keys, &row.event_id, &pairs).await?;
        billing::set_parked(db, &keys, &row.event_id, None).await?;
        attached += 1;
        touch(touched, pairs);
        let tied = billing::list_tied(db, &keys).await?;
        left.extend(tied.into_iter().filter(|row| row.parked_at.is_some()));
    }
    Ok(attached)
}

/// Adds pairs as they are stored.
pub fn touch(touched: &mut Touched, pairs: BTreeSet<Pair>) {
    for (gym, membership) in pairs {
        touched.entry(gym.0).or_default().insert(membership.0);
    }
}

/// Decides again about everybody who holds or pays for the touched memberships.
pub async fn decide_touched(unit: &mut Unit<'_>, touched: &Touched) -> Result<(), Error> {
    for (gym, ids) in touched {
        unit.decide_people_of(gym, ids).await?;
    }
    Ok(())
}

/// The keys two transactions must not work on at once; see [`crate::store::locks`].
pub fn lock_names(keys: &Keys<'_>) -> BTreeSet<String> {
    [
        ("invoice", keys.invoice),
        ("payment", keys.payment),
        ("subscription", keys.subscription),
        ("customer", keys.customer),
        ("mandate", keys.mandate),
        ("membership", keys.named_membership),
    ]
    .into_iter()
    .filter_map(|(kind, id)| Some(format!("{}/{}/{kind}/{}", keys.provider, keys.account, id?)))
    .collect()
}

/// The key of a whole account: events share it, a gym that claims the account takes it alone.
pub fn account_lock(provider: &str, account: &str) -> String {
    format!("{provider}/{account}")
}

/// The key of a gym's accounts: whoever goes by them shares it, and PutGym takes it alone.
pub fn gym_lock(gym: &GymId) -> String {
    format!("gym/{gym}")
}

/// Parks an event.
pub async fn park(
    db: &impl ConnectionTrait,
    keys: &Keys<'_>,
    event_id: &str,
    now: Timestamp,
) -> Result<&'static str, StoreError> {
    let why = why_unmatched(db, keys).await?;
    billing::set_parked(db, keys, event_id, Some((now, why))).await?;
    Ok(why)
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

    fn keys(subscription: Option<&'static str>) -> Keys<'static> {
        Keys {
            provider: "stripe",
            account: "acct_1",
            invoice: None,
            payment: None,
            subscription,
            customer: Some("cus_1"),
            mandate: None,
            named_membership: None,
        }
    }

    fn names(pairs: BTreeSet<Pair>) -> Vec<String> {
        pairs.into_iter().map(|(_, id)| id.to_string()).collect()
    }

    #[test]
    fn a_current_subscription_beats_a_former_one_and_both_beat_a_name() {
        let former = candidate("subscription", "old", false, true);
        let current = candidate("subscription", "new", true, true);
        let named = candidate("metadata", "named", true, true);
        for (candidates, expected) in [
            (vec![former.clone(), current, named.clone()], vec!["new"]),
            (vec![former, named.clone()], vec!["old"]),
            (vec![named], vec!["named"]),
            (vec![], vec![]),
        ] {
            assert_eq!(names(by_subscription_or_name(&candidates)), expected);
        }
    }

    #[test]
    fn a_subscription_that_pays_for_two_memberships_is_about_both() {
        let two = [
            candidate("subscription", "a", true, true),
            candidate("subscription", "b", true, true),
        ];
        assert_eq!(names(by_subscription_or_name(&two)), ["a", "b"]);
    }

    #[test]
    fn a_customer_says_a_membership_only_where_there_is_one_it_can_be() {
        let one = candidate("customer", "a", true, true);
        let other = candidate("customer", "b", true, true);
        let without = candidate("customer", "c", true, false);
        let former = candidate("customer", "d", false, true);
        for (subscription, candidates, expected) in [
            (None, vec![one.clone(), former], vec!["a"]),
            (None, vec![one.clone(), other], vec![]),
            // An unknown subscription is another membership's, unless this one has none.
            (Some("sub_9"), vec![one.clone()], vec![]),
            (Some("sub_9"), vec![one, without], vec!["c"]),
        ] {
            let found = by_mandate_or_customer(&keys(subscription), &candidates);
            assert_eq!(names(found), expected, "{subscription:?}");
        }
    }
}
