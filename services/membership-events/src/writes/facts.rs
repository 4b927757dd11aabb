//! What calls are weighed against: the rows they are about, locked, one statement for each kind.
//!
//! In the lock order of [`crate::store`]: keys, memberships, people.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::billing::BillingState;
use access_domain::ids::{GymId, MemberId, MembershipId};
use jiff::Timestamp;

use super::call::{Call, Write};
use super::member::member_lock;
use super::membership::{keys_of, membership_lock};
use crate::error::Error;
use crate::requests::{PutMembership, RecordPayment};
use crate::store::entity::{gyms, members, memberships};
use crate::store::keys::{MemberKey, MembershipKey};
use crate::store::{self, bulk, locks};
use crate::unit::Unit;
use crate::{decide, desk, linking, rows};

/// The rows that calls are about.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The gym.
    pub gym: gyms::Model,
    /// The accounts that are its own, where a membership is put.
    pub accounts: Vec<(String, String)>,
    /// The present instant.
    pub now: Timestamp,
    memberships: BTreeMap<MembershipKey, memberships::Model>,
    people: BTreeMap<MemberKey, members::Model>,
    billing: BTreeMap<MembershipKey, BillingState>,
    held_payments: BTreeSet<String>,
}

impl Facts {
    /// Reads and locks what calls to this gym are about; `None` where the gym is not known.
    pub async fn read(unit: &Unit<'_>, gym: &GymId, calls: &[Call]) -> Result<Option<Self>, Error> {
        let accounts = lock_keys(unit, gym, calls).await?;
        let db = unit.db();
        let Some(row) = store::gyms::find(db, gym).await? else {
            return Ok(None);
        };
        let ids = calls.iter().filter_map(|call| call.write.membership());
        let ids: BTreeSet<MembershipId> = ids.cloned().collect();
        let memberships = bulk::list_memberships(db, gym, &ids, true).await?;
        let named = calls.iter().flat_map(|call| call.write.people());
        let mut people: BTreeSet<MemberId> = named.cloned().collect();
        for row in &memberships {
            people.extend(rows::people(row)?);
        }
        let people = store::members::lock(db, gym, &people).await?;
        let mut facts = Self {
            gym: row,
            accounts,
            now: unit.now(),
            memberships: memberships
                .into_iter()
                .map(|row| (row.membership_id.clone(), row))
                .collect(),
            people: people
                .into_iter()
                .map(|row| (row.member_id.clone(), row))
                .collect(),
            billing: BTreeMap::new(),
            held_payments: BTreeSet::new(),
        };
        facts.read_billing(unit, gym, calls).await?;
        Ok(Some(facts))
    }

    /// What billing says of the memberships that staff make facts of.
    async fn read_billing(
        &mut self,
        unit: &Unit<'_>,
        gym: &GymId,
        calls: &[Call],
    ) -> Result<(), Error> {
        let is_about_money =
            |call: &&Call| matches!(call.write, Write::Payment(_) | Write::Forgive(_));
        let ids = calls.iter().filter(is_about_money);
        let ids = ids.filter_map(|call| call.write.membership());
        let ids: BTreeSet<MembershipId> = ids.cloned().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let events = store::links::list_linked(unit.db(), gym, &ids).await?;
        self.billing = decide::billing_states(events)?;
        // A repeat changes nothing, whatever it would be about by now.
        let doubted: Vec<&str> = payments(calls)
            .filter(|payment| desk::foreign_currency(payment, self).is_some())
            .map(|payment| payment.payment.as_str())
            .collect();
        let (provider, account) = (desk::PROVIDER, gym.as_str());
        self.held_payments = bulk::list_held_events(unit.db(), provider, account, &doubted).await?;
        Ok(())
    }

    /// The membership's row, if it is known.
    pub fn find_membership(&self, id: &MembershipId) -> Option<&memberships::Model> {
        self.memberships.get(&MembershipKey::from(id))
    }

    /// The membership's row.
    pub fn membership(&self, id: &MembershipId) -> Result<&memberships::Model, Error> {
        self.find_membership(id).ok_or(Error::Unknown("membership"))
    }

    /// The person's row, if it is known.
    pub fn find_person(&self, id: &MemberId) -> Option<&members::Model> {
        self.people.get(&MemberKey::from(id))
    }

    /// The person's row.
    pub fn person(&self, id: &MemberId) -> Result<&members::Model, Error> {
        self.find_person(id).ok_or(Error::Unknown("member"))
    }

    /// What billing says of a membership that staff make a fact of.
    pub fn billing(&self, id: &MembershipId) -> Option<&BillingState> {
        self.billing.get(&MembershipKey::from(id))
    }

    /// Whether a payment whose currency is in doubt is held already.
    pub fn is_held(&self, payment: &RecordPayment) -> bool {
        self.held_payments.contains(payment.payment.as_str())
    }

    /// Who holds and pays for the membership of a call, and whom the call names.
    pub(super) fn concerned(&self, call: &Call) -> Result<BTreeSet<MemberId>, Error> {
        let mut concerned: BTreeSet<MemberId> = call.write.people().into_iter().cloned().collect();
        let membership = call.write.membership();
        if let Some(row) = membership.and_then(|id| self.find_membership(id)) {
            concerned.extend(rows::people(row)?);
        }
        Ok(concerned)
    }

    /// The locked rows of these people, with overrides as they are written now.
    pub(super) fn take_people(
        &mut self,
        ids: &BTreeSet<MemberId>,
        overrides: &[(MemberId, String)],
    ) -> Vec<members::Model> {
        for (member, json) in overrides {
            if let Some(row) = self.people.get_mut(&MemberKey::from(member)) {
                row.overrides.clone_from(json);
            }
        }
        let people = ids.iter().filter_map(|id| self.people.remove(&id.into()));
        people.collect()
    }
}

fn payments(calls: &[Call]) -> impl Iterator<Item = &RecordPayment> {
    calls.iter().filter_map(|call| match &call.write {
        Write::Payment(payment) => Some(payment),
        _ => None,
    })
}

/// The memberships that calls put.
pub(super) fn puts(calls: &[Call]) -> impl Iterator<Item = &PutMembership> {
    calls.iter().filter_map(|call| match &call.write {
        Write::Membership(put) => Some(put),
        _ => None,
    })
}

/// Locks what has no row yet, and whatever providers may call the memberships that are put. Answers
/// the gym's accounts where there are such.
async fn lock_keys(
    unit: &Unit<'_>,
    gym: &GymId,
    calls: &[Call],
) -> Result<Vec<(String, String)>, Error> {
    let new = calls.iter().filter_map(|call| match &call.write {
        Write::Member(put) => Some(member_lock(gym, &put.member)),
        Write::Membership(put) => Some(membership_lock(gym, &put.membership)),
        _ => None,
    });
    let mut exclusive: BTreeSet<String> = new.collect();
    let mut shared = BTreeSet::new();
    let mut accounts = Vec::new();
    if puts(calls).next().is_some() {
        let gyms = [linking::gym_lock(gym)].into();
        locks::take(unit.db(), BTreeSet::new(), gyms).await?;
        accounts = store::gyms::list_accounts(unit.db(), gym).await?;
        for keys in puts(calls).flat_map(|put| keys_of(put, &accounts)) {
            exclusive.extend(linking::lock_names(&keys));
            shared.insert(linking::account_lock(keys.provider, keys.account));
        }
    }
    locks::take(unit.db(), exclusive, shared).await?;
    Ok(accounts)
}
