//! Memberships: made, changed, cancelled.

use std::collections::BTreeSet;

use access_domain::ids::{GymId, MemberId, MembershipId};

use super::{By, Outcome, decide_membership, lock_membership};
use crate::error::Error;
use crate::fields::Fields;
use crate::linking::{self, Touched};
use crate::requests::{CancelMembership, Cancelling, PutMembership, Reference};
use crate::store::billing::Keys;
use crate::store::entity::memberships as membership_rows;
use crate::store::{self, micros};
use crate::unit::{Decisions, Unit};

/// Creates or replaces a membership. Pauses and a cancellation stay as they are.
pub async fn put_membership(
    decisions: &Decisions,
    by: &By,
    put: PutMembership,
) -> Result<Outcome, Error> {
    decisions
        .retrying(|| put_membership_once(decisions, by, &put))
        .await
}

async fn put_membership_once(
    decisions: &Decisions,
    by: &By,
    put: &PutMembership,
) -> Result<Outcome, Error> {
    let mut unit = decisions.begin(by.cause(decisions)).await?;
    let reference = put.billing.as_ref();
    let gym = [linking::gym_lock(&put.gym)].into();
    store::locks::take(unit.db(), BTreeSet::new(), gym).await?;
    let accounts = store::gyms::list_accounts(unit.db(), &put.gym).await?;
    // What providers may call it: its reference, and its name in each account of the gym.
    let mut keys: Vec<Keys<'_>> = accounts
        .iter()
        .filter(|(provider, account)| {
            reference
                .is_none_or(|r| (r.provider.as_str(), r.account.as_str()) != (provider, account))
        })
        .map(|(provider, account)| name_keys(provider, account, &put.membership))
        .collect();
    keys.extend(reference.map(|reference| reference_keys(reference, &put.membership)));
    let mut locks: BTreeSet<String> = keys.iter().flat_map(linking::lock_names).collect();
    locks.insert(membership_lock(&put.gym, &put.membership));
    let shared = keys
        .iter()
        .map(|keys| linking::account_lock(keys.provider, keys.account))
        .collect();
    store::locks::take(unit.db(), locks, shared).await?;
    if store::gyms::find(unit.db(), &put.gym).await?.is_none() {
        return Err(Error::Unknown("gym"));
    }
    let held = store::memberships::lock(unit.db(), &put.gym, &put.membership).await?;
    if let Some(held) = &held
        && held.source_version > put.source_version
    {
        return Ok(Outcome::stale(held.source_version));
    }
    let people: BTreeSet<MemberId> = put.holders.iter().chain(&put.payer).cloned().collect();
    let ids = BTreeSet::from([put.membership.clone()]);
    let before = store::memberships::people_of(unit.db(), &put.gym, &ids).await?;
    let before: BTreeSet<MemberId> = before.into_iter().map(|key| key.0).collect();
    let concerned: BTreeSet<MemberId> = before.union(&people).cloned().collect();
    lock_known(&unit, put, &concerned).await?;
    let row = membership_row(put, held.as_ref(), micros(unit.now()))?;
    let new_reference = held.as_ref().is_none_or(|held| !same_reference(held, &row));
    store::memberships::put(unit.db(), row).await?;
    if before != people {
        store::memberships::replace_people(unit.db(), &put.gym, &put.membership, &people).await?;
    }
    let mut touched = Touched::new();
    if new_reference {
        let ids = reference.map(Reference::ids).unwrap_or_default();
        let account = reference.map(|r| (r.provider.as_str(), r.account.as_str()));
        store::memberships::replace_references(unit.db(), &put.gym, &put.membership, account, &ids)
            .await?;
        for keys in &keys {
            let claimable = store::billing::list_claimable(unit.db(), keys).await?;
            linking::settle_held(unit.db(), claimable, unit.now(), &mut touched).await?;
        }
    }
    // Other memberships can be touched as well, through invoices that two of them share.
    linking::decide_touched(&mut unit, &touched).await?;
    unit.decide(&put.gym, &concerned).await?;
    let members = unit.commit().await?;
    Ok(Outcome::applied(put.source_version, members))
}

pub(crate) fn name_keys<'a>(
    provider: &'a str,
    account: &'a str,
    membership: &'a MembershipId,
) -> Keys<'a> {
    Keys {
        provider,
        account,
        invoice: None,
        payment: None,
        subscription: None,
        customer: None,
        mandate: None,
        named_membership: Some(membership.as_str()),
    }
}

pub(crate) fn reference_keys<'a>(
    reference: &'a Reference,
    membership: &'a MembershipId,
) -> Keys<'a> {
    let (provider, account) = (reference.provider.as_str(), reference.account.as_str());
    Keys {
        subscription: reference.subscription.as_ref().map(|id| id.as_str()),
        customer: reference.customer.as_ref().map(|id| id.as_str()),
        mandate: reference.mandate.as_ref().map(|id| id.as_str()),
        ..name_keys(provider, account, membership)
    }
}

/// Locks everybody concerned, all in one go and in the order of ids, before anything is decided
/// about any of them. Holders and payer must be known and not erased.
async fn lock_known(
    unit: &Unit<'_>,
    put: &PutMembership,
    concerned: &BTreeSet<MemberId>,
) -> Result<(), Error> {
    let rows = store::members::lock(unit.db(), &put.gym, concerned).await?;
    let (mut unknown, mut erased) = (Fields::new(), Fields::new());
    let mut look =
        |field: String, id: &MemberId| match rows.iter().find(|row| row.member_id.0 == *id) {
            None => unknown.fault(field, "no such member: PutMember comes first"),
            Some(row) if row.erased => erased.fault(field, "the member was erased"),
            Some(_) => {}
        };
    for (place, id) in put.places.iter().zip(&put.holders) {
        look(format!("member_ids[{place}]"), id);
    }
    if let Some(id) = &put.payer {
        look("payer_member_id".to_owned(), id);
    }
    if !erased.is_empty() {
        return Err(erased.into_refusal("a member was erased").into());
    }
    if !unknown.is_empty() {
        return Err(unknown.into_not_found("the member is not known").into());
    }
    Ok(())
}

pub(crate) fn membership_row(
    put: &PutMembership,
    held: Option<&membership_rows::Model>,
    written_at: i64,
) -> Result<membership_rows::Model, Error> {
    let text = |id: Option<&str>| id.map(str::to_owned);
    let billing = put.billing.as_ref();
    Ok(membership_rows::Model {
        gym_id: (&put.gym).into(),
        membership_id: (&put.membership).into(),
        plan_id: (&put.plan).into(),
        holders: serde_json::to_string(&put.holders).map_err(Error::Json)?,
        payer_member_id: put.payer.as_ref().map(Into::into),
        starts_on: put.starts_on.to_string(),
        ends_on: put.ends_on.map(|date| date.to_string()),
        next_plan_id: put.next_plan.as_ref().map(|(plan, _)| plan.into()),
        next_plan_from: put.next_plan.as_ref().map(|(_, from)| from.to_string()),
        cancelled_at: held.and_then(|held| held.cancelled_at),
        cancel_ends_on: held.and_then(|held| held.cancel_ends_on.clone()),
        pauses: held.map_or_else(|| "[]".to_owned(), |held| held.pauses.clone()),
        provider_pauses_ended_at: held.and_then(|held| held.provider_pauses_ended_at),
        resumed_source_version: held.and_then(|held| held.resumed_source_version),
        billing_provider: text(billing.map(|b| b.provider.as_str())),
        billing_account: text(billing.map(|b| b.account.as_str())),
        billing_subscription: text(
            billing.and_then(|b| b.subscription.as_ref().map(|id| id.as_str())),
        ),
        billing_customer: text(billing.and_then(|b| b.customer.as_ref().map(|id| id.as_str()))),
        billing_mandate: text(billing.and_then(|b| b.mandate.as_ref().map(|id| id.as_str()))),
        source_version: put.source_version,
        written_at,
    })
}

pub(crate) fn same_reference(held: &membership_rows::Model, row: &membership_rows::Model) -> bool {
    held.billing_provider == row.billing_provider
        && held.billing_account == row.billing_account
        && held.billing_subscription == row.billing_subscription
        && held.billing_customer == row.billing_customer
        && held.billing_mandate == row.billing_mandate
}

/// A first write has no row to lock yet.
fn membership_lock(gym: &GymId, membership: &MembershipId) -> String {
    format!("membership/{gym}/{membership}")
}

/// Cancels a membership, or takes the cancellation back.
pub async fn cancel_membership(
    decisions: &Decisions,
    by: &By,
    cancel: CancelMembership,
) -> Result<Outcome, Error> {
    decisions
        .retrying(|| cancel_membership_once(decisions, by, &cancel))
        .await
}

async fn cancel_membership_once(
    decisions: &Decisions,
    by: &By,
    cancel: &CancelMembership,
) -> Result<Outcome, Error> {
    let unit = decisions.begin(by.cause(decisions)).await?;
    let mut row = lock_membership(&unit, &cancel.gym, &cancel.membership).await?;
    if row.source_version > cancel.source_version {
        return Ok(Outcome::stale(row.source_version));
    }
    match cancel.change {
        Cancelling::TakeBack => {
            row.cancelled_at = None;
            row.cancel_ends_on = None;
        }
        Cancelling::Cancel(ends_on) => {
            let ends_on = ends_on.map(|date| date.to_string());
            // A repeat does not move the instant of a cancellation that is held.
            if row.cancelled_at.is_none() || row.cancel_ends_on != ends_on {
                row.cancelled_at = Some(micros(unit.now()));
                row.cancel_ends_on = ends_on;
            }
        }
    }
    row.source_version = cancel.source_version;
    row.written_at = micros(unit.now());
    store::memberships::put(unit.db(), row).await?;
    let members = decide_membership(unit, &cancel.gym, &cancel.membership).await?;
    Ok(Outcome::applied(cancel.source_version, members))
}
