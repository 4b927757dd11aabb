//! What other Gymflow services change: gyms, people, memberships.
//!
//! Each function is one unit of work: compare the source version, write the rows, decide again
//! about everybody concerned. An older write changes nothing and says so. What staff do about
//! money is in [`crate::desk`], overrides and erasure in [`crate::people`].

use std::collections::{BTreeMap, BTreeSet};

use access_domain::ids::{GymId, MemberId, MembershipId};

use crate::decide::CauseOf;
use crate::error::Error;
use crate::linking::{self, Touched};
use crate::requests::{CancelMembership, Cancelling, PutGym, PutMember, PutMembership, Reference};
use crate::rows;
use crate::store::billing::Keys;
use crate::store::entity::{gyms, memberships as membership_rows};
use crate::store::{self, micros};
use crate::unit::{Decisions, Unit};

/// Who calls, and what.
#[derive(Debug, Clone)]
pub struct By {
    /// The RPC's name.
    pub rpc: &'static str,
    /// `service:…`, `staff:…` or `member:…`.
    pub actor: String,
}

impl By {
    pub(crate) fn cause(&self, decisions: &Decisions) -> CauseOf {
        CauseOf::Call {
            rpc: self.rpc,
            actor: self.actor.clone(),
            at: decisions.now(),
            traceparent: event_bus::trace_context::current(),
        }
    }
}

/// The answer of every write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// False when the write was older than what is held.
    pub applied: bool,
    /// The number held after the call; 0 for facts.
    pub source_version: i64,
    /// Everybody decided about, with the version held.
    pub members: BTreeMap<MemberId, i64>,
}

impl Outcome {
    /// Older than what is held.
    pub fn stale(held: i64) -> Self {
        Self {
            applied: false,
            source_version: held,
            members: BTreeMap::new(),
        }
    }

    /// Done.
    pub fn applied(source_version: i64, members: BTreeMap<MemberId, i64>) -> Self {
        Self {
            applied: true,
            source_version,
            members,
        }
    }
}

/// People decided about at once when a gym's rules change.
const PAGE: u64 = 500;

/// Creates or replaces a gym.
pub async fn put_gym(decisions: &Decisions, by: &By, put: PutGym) -> Result<Outcome, Error> {
    decisions
        .retrying(|| put_gym_once(decisions, by, &put))
        .await
}

async fn put_gym_once(decisions: &Decisions, by: &By, put: &PutGym) -> Result<Outcome, Error> {
    let mut unit = decisions.begin(by.cause(decisions)).await?;
    let mut locks: BTreeSet<String> = put
        .accounts
        .iter()
        .map(|(provider, account)| linking::account_lock(provider, account))
        .collect();
    locks.insert(format!("gym/{}", put.gym));
    store::billing::lock_keys(unit.db(), locks, None).await?;
    let held = store::gyms::find(unit.db(), &put.gym).await?;
    if let Some(held) = &held
        && held.source_version > put.source_version
    {
        return Ok(Outcome::stale(held.source_version));
    }
    let row = gyms::Model {
        gym_id: (&put.gym).into(),
        name: put.name.clone(),
        time_zone: put.time_zone.clone(),
        overdue_grace: rows::span_to_micros(put.overdue_grace),
        overdue_scope: put.overdue_scope.as_str().to_owned(),
        source_version: put.source_version,
    };
    let new_rules = held.as_ref().is_some_and(|held| {
        held.time_zone != row.time_zone
            || held.overdue_grace != row.overdue_grace
            || held.overdue_scope != row.overdue_scope
    });
    store::gyms::put(unit.db(), row).await?;
    let accounts: BTreeSet<_> = store::gyms::list_accounts(unit.db(), &put.gym)
        .await?
        .into_iter()
        .collect();
    let mut touched = Touched::new();
    if accounts != put.accounts {
        let all: Vec<_> = put.accounts.iter().cloned().collect();
        store::gyms::replace_accounts(unit.db(), &put.gym, &all).await?;
        for (provider, account) in put.accounts.difference(&accounts) {
            let parked =
                store::billing::list_parked_of_account(unit.db(), provider, account).await?;
            linking::attach(unit.db(), parked, &mut touched).await?;
        }
    }
    linking::decide_touched(&mut unit, &touched).await?;
    if new_rules {
        decide_gym(&mut unit, &put.gym).await?;
    }
    let members = unit.commit().await?;
    Ok(Outcome::applied(put.source_version, members))
}

/// Decides again about everybody, a page at a time in one transaction: the rules are one for all.
async fn decide_gym(unit: &mut Unit<'_>, gym: &GymId) -> Result<(), Error> {
    let mut after = String::new();
    loop {
        let page = store::members::list_ids(unit.db(), gym, &after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = last.to_string();
        let members = page.into_iter().map(|key| key.0).collect();
        unit.decide(gym, &members).await?;
    }
}

/// Creates or replaces a person.
pub async fn put_member(decisions: &Decisions, by: &By, put: PutMember) -> Result<Outcome, Error> {
    decisions
        .retrying(|| put_member_once(decisions, by, &put))
        .await
}

async fn put_member_once(
    decisions: &Decisions,
    by: &By,
    put: &PutMember,
) -> Result<Outcome, Error> {
    let unit = decisions.begin(by.cause(decisions)).await?;
    let lock = BTreeSet::from([format!("member/{}/{}", put.gym, put.member)]);
    store::billing::lock_keys(unit.db(), lock, None).await?;
    if store::gyms::find(unit.db(), &put.gym).await?.is_none() {
        return Err(Error::Unknown("gym"));
    }
    let id = BTreeSet::from([put.member.clone()]);
    let held = store::members::lock(unit.db(), &put.gym, &id).await?.pop();
    let version = held.as_ref().map_or(0, |held| held.version);
    if let Some(held) = held {
        if held.source_version > put.source_version {
            return Ok(Outcome::stale(held.source_version));
        }
        if held.erased {
            return Err(Error::Refused(
                "the member was erased; a person who comes back gets a new id".to_owned(),
            ));
        }
    }
    store::members::put(
        unit.db(),
        &put.gym,
        &put.member,
        &put.email,
        &put.name,
        put.source_version,
    )
    .await?;
    unit.commit().await?;
    let members = if version == 0 {
        BTreeMap::new()
    } else {
        BTreeMap::from([(put.member.clone(), version)])
    };
    Ok(Outcome::applied(put.source_version, members))
}

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
    let keys = reference.map(|reference| reference_keys(reference, &put.membership));
    let mut locks = keys.as_ref().map(linking::lock_names).unwrap_or_default();
    locks.insert(membership_lock(&put.gym, &put.membership));
    let account = reference.map(|r| linking::account_lock(r.provider.as_str(), r.account.as_str()));
    store::billing::lock_keys(unit.db(), locks, account).await?;
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
    check_known(&unit, &put.gym, &people, &concerned).await?;
    let row = membership_row(put, held.as_ref())?;
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
        if let Some(keys) = &keys {
            let parked = store::billing::list_parked_by_reference(unit.db(), keys).await?;
            linking::attach(unit.db(), parked, &mut touched).await?;
        }
    }
    // Other memberships can be touched as well, through invoices that two of them share.
    linking::decide_touched(&mut unit, &touched).await?;
    unit.decide(&put.gym, &concerned).await?;
    let members = unit.commit().await?;
    Ok(Outcome::applied(put.source_version, members))
}

/// A first write has no row to lock yet.
pub(crate) fn membership_lock(gym: &GymId, membership: &MembershipId) -> String {
    format!("membership/{gym}/{membership}")
}

fn reference_keys<'a>(reference: &'a Reference, membership: &'a MembershipId) -> Keys<'a> {
    Keys {
        provider: reference.provider.as_str(),
        account: reference.account.as_str(),
        invoice: None,
        payment: None,
        subscription: reference.subscription.as_ref().map(|id| id.as_str()),
        customer: reference.customer.as_ref().map(|id| id.as_str()),
        mandate: reference.mandate.as_ref().map(|id| id.as_str()),
        named_membership: Some(membership.as_str()),
    }
}

async fn check_known(
    unit: &Unit<'_>,
    gym: &GymId,
    people: &BTreeSet<MemberId>,
    concerned: &BTreeSet<MemberId>,
) -> Result<(), Error> {
    // All in one go and in the order of ids, before anything is decided about any of them.
    let mut known = store::members::lock(unit.db(), gym, concerned).await?;
    known.retain(|row| people.contains(&row.member_id.0));
    if known.len() < people.len() {
        return Err(Error::Unknown("member"));
    }
    if known.iter().any(|member| member.erased) {
        return Err(Error::Refused("a member was erased".to_owned()));
    }
    Ok(())
}

fn membership_row(
    put: &PutMembership,
    held: Option<&membership_rows::Model>,
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
        billing_provider: text(billing.map(|b| b.provider.as_str())),
        billing_account: text(billing.map(|b| b.account.as_str())),
        billing_subscription: text(
            billing.and_then(|b| b.subscription.as_ref().map(|id| id.as_str())),
        ),
        billing_customer: text(billing.and_then(|b| b.customer.as_ref().map(|id| id.as_str()))),
        billing_mandate: text(billing.and_then(|b| b.mandate.as_ref().map(|id| id.as_str()))),
        source_version: put.source_version,
    })
}

fn same_reference(held: &membership_rows::Model, row: &membership_rows::Model) -> bool {
    held.billing_provider == row.billing_provider
        && held.billing_account == row.billing_account
        && held.billing_subscription == row.billing_subscription
        && held.billing_customer == row.billing_customer
        && held.billing_mandate == row.billing_mandate
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
    store::memberships::put(unit.db(), row).await?;
    let members = decide_membership(unit, &cancel.gym, &cancel.membership).await?;
    Ok(Outcome::applied(cancel.source_version, members))
}

/// The membership's row, locked; an unknown gym or membership is named.
pub(crate) async fn lock_membership(
    unit: &Unit<'_>,
    gym: &GymId,
    membership: &MembershipId,
) -> Result<membership_rows::Model, Error> {
    if let Some(row) = store::memberships::lock(unit.db(), gym, membership).await? {
        return Ok(row);
    }
    match store::gyms::find(unit.db(), gym).await? {
        None => Err(Error::Unknown("gym")),
        Some(_) => Err(Error::Unknown("membership")),
    }
}

/// Decides again about the people of one membership, and commits.
pub(crate) async fn decide_membership(
    mut unit: Unit<'_>,
    gym: &GymId,
    membership: &MembershipId,
) -> Result<BTreeMap<MemberId, i64>, Error> {
    let touched = Touched::from([(gym.clone(), BTreeSet::from([membership.clone()]))]);
    linking::decide_touched(&mut unit, &touched).await?;
    unit.commit().await
}
