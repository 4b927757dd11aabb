//! Which membership a billing event is about.
//!
//! For certain, in this order: by the subscription, against current and, failing those, former
//! references; by the membership named in the metadata; by events with the same invoice or payment
//! that are linked for certain. Else weakly: by the mandate; by the customer, where it says one
//! membership and no other. All within gyms that own the account: an account that is nobody's links
//! to nothing, whatever an event's metadata says.
//! What finds no link is parked. What is parked or linked weakly is looked at again when more is
//! known. The rules are in [`claims`], the rows in [`settle`].

mod claims;
mod settle;

use std::collections::{BTreeMap, BTreeSet};

use access_domain::ids::{GymId, MembershipId};
use sea_orm::ConnectionTrait;

pub use settle::{settle_by_hand, settle_held, settle_new};

use claims::Claims;

use crate::error::Error;
use crate::store::StoreError;
use crate::store::billing::{Held, Keys};
use crate::store::links::{self, Candidate, Pair};
use crate::unit::Unit;

/// Memberships per gym.
pub type Touched = BTreeMap<GymId, BTreeSet<MembershipId>>;

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

/// Whether a present reference names the membership. Else an event may speak of somebody who paid
/// once, and was erased since: see [`crate::store::former_payers::reopen_erasures`].
pub fn is_named_at_present(candidates: &[Candidate]) -> bool {
    let mut claims = Claims::default();
    claims.add(candidates);
    claims.are_present()
}

/// Adds pairs as they are stored.
pub fn touch(touched: &mut Touched, pairs: BTreeSet<Pair>) {
    for (gym, membership) in pairs {
        touched.entry(gym.0).or_default().insert(membership.0);
    }
}

/// Whose an event is, by its candidates and the other events of its invoice and payment, where that
/// is certain and changes nothing about those others.
pub fn plainly_linked(candidates: &[Candidate], tied: Vec<Held>) -> Option<BTreeSet<Pair>> {
    if tied.iter().any(Held::is_loose) {
        return None;
    }
    let mut claims = Claims::default();
    claims.add(candidates);
    let firm = tied.into_iter().flat_map(|held| held.owned).collect();
    let pairs = claims.firm(&firm).ok()?;
    (!pairs.is_empty()).then_some(pairs)
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
