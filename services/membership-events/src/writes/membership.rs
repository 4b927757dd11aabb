//! Memberships: made, changed, cancelled.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::ids::{GymId, MemberId, MembershipId};

use super::{Change, Facts, Outcome, Verdict};
use crate::error::Error;
use crate::fields::Fields;
use crate::requests::{CancelMembership, Cancelling, PutMembership, Reference};
use crate::rows;
use crate::store::billing::Keys;
use crate::store::bulk::{NewReference, Wanted};
use crate::store::entity::memberships as membership_rows;
use crate::store::micros;

/// Creates or replaces a membership. Pauses and a cancellation stay as they are.
pub(super) fn weigh(put: &PutMembership, facts: &Facts) -> Result<Verdict, Error> {
    let held = facts.find_membership(&put.membership);
    if let Some(held) = held
        && held.source_version > put.source_version
    {
        return Ok(Verdict::Stale(Outcome::stale(held.source_version)));
    }
    check_known(put, facts)?;
    let people: BTreeSet<MemberId> = put.holders.iter().chain(&put.payer).cloned().collect();
    let before = held.map(rows::people).transpose()?.unwrap_or_default();
    let row = membership_row(put, held, micros(facts.now))?;
    let outcome = Outcome::applied(put.source_version, BTreeMap::new());
    let mut change = Change::about(before.union(&people).cloned().collect(), outcome);
    change.is_new = held.is_none();
    change.people = (before != people).then_some(people);
    change.former_payer = match held {
        Some(held) => rows::former_payer(held, &row)?,
        None => None,
    };
    change.references = held
        .is_none_or(|held| !same_reference(held, &row))
        .then(|| references(put));
    change.membership = Some(row);
    Ok(change.into())
}

/// What providers may call it: its reference, and its name in each account of the gym.
pub(super) fn keys_of<'a>(
    put: &'a PutMembership,
    accounts: &'a [(String, String)],
) -> impl Iterator<Item = Keys<'a>> {
    let reference = put.billing.as_ref();
    let is_its = move |account: &(String, String)| {
        reference.is_some_and(|of| {
            (of.provider.as_str(), of.account.as_str()) == (&account.0, &account.1)
        })
    };
    accounts
        .iter()
        .filter(move |account| !is_its(account))
        .map(|(provider, account)| name_keys(provider, account, &put.membership))
        .chain(reference.map(|reference| reference_keys(reference, &put.membership)))
}

/// What events of an account may call these memberships.
pub(crate) fn wanted<'a>(
    puts: impl IntoIterator<Item = &'a PutMembership>,
    provider: &str,
    account: &str,
) -> Wanted {
    let mut wanted = Wanted::default();
    for put in puts {
        wanted.names.push(put.membership.to_string());
        let is_its = |reference: &&Reference| {
            (reference.provider.as_str(), reference.account.as_str()) == (provider, account)
        };
        if let Some(reference) = put.billing.as_ref().filter(is_its) {
            let ids = |id: Option<String>| id.into_iter();
            let subscription = reference.subscription.as_ref().map(ToString::to_string);
            let customer = reference.customer.as_ref().map(ToString::to_string);
            let mandate = reference.mandate.as_ref().map(ToString::to_string);
            wanted.subscriptions.extend(ids(subscription));
            wanted.customers.extend(ids(customer));
            wanted.mandates.extend(ids(mandate));
        }
    }
    wanted
}

/// The rows of its billing reference.
pub(crate) fn references(put: &PutMembership) -> Vec<NewReference> {
    let Some(reference) = &put.billing else {
        return Vec::new();
    };
    let ids = reference.ids().into_iter();
    ids.map(|(kind, id)| NewReference {
        membership: put.membership.clone(),
        provider: reference.provider.to_string(),
        account: reference.account.to_string(),
        kind,
        reference: id,
    })
    .collect()
}

fn name_keys<'a>(provider: &'a str, account: &'a str, membership: &'a MembershipId) -> Keys<'a> {
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

fn reference_keys<'a>(reference: &'a Reference, membership: &'a MembershipId) -> Keys<'a> {
    let (provider, account) = (reference.provider.as_str(), reference.account.as_str());
    Keys {
        subscription: reference.subscription.as_ref().map(|id| id.as_str()),
        customer: reference.customer.as_ref().map(|id| id.as_str()),
        mandate: reference.mandate.as_ref().map(|id| id.as_str()),
        ..name_keys(provider, account, membership)
    }
}

/// Holders and payer must be known and not erased.
fn check_known(put: &PutMembership, facts: &Facts) -> Result<(), Error> {
    let (mut unknown, mut erased) = (Fields::new(), Fields::new());
    let mut look = |field: String, id: &MemberId| match facts.find_person(id) {
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
        resumed_unnumbered_at: held.and_then(|held| held.resumed_unnumbered_at),
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
pub(super) fn membership_lock(gym: &GymId, membership: &MembershipId) -> String {
    format!("membership/{gym}/{membership}")
}

/// Cancels a membership, or takes the cancellation back.
pub(super) fn weigh_cancel(cancel: &CancelMembership, facts: &Facts) -> Result<Verdict, Error> {
    let held = facts.membership(&cancel.membership)?;
    if held.source_version > cancel.source_version {
        return Ok(Verdict::Stale(Outcome::stale(held.source_version)));
    }
    let mut row = held.clone();
    match cancel.change {
        Cancelling::TakeBack => {
            row.cancelled_at = None;
            row.cancel_ends_on = None;
        }
        Cancelling::Cancel(ends_on) => {
            let ends_on = ends_on.map(|date| date.to_string());
            // A repeat does not move the instant of a cancellation that is held.
            if row.cancelled_at.is_none() || row.cancel_ends_on != ends_on {
                row.cancelled_at = Some(micros(facts.now));
                row.cancel_ends_on = ends_on;
            }
        }
    }
    row.source_version = cancel.source_version;
    row.written_at = micros(facts.now);
    let outcome = Outcome::applied(cancel.source_version, BTreeMap::new());
    let mut change = Change::about(rows::people(&row)?, outcome);
    change.membership = Some(row);
    Ok(change.into())
}
