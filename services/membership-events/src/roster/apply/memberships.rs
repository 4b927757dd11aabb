//! Memberships: as PutMembership writes one, a batch at once.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::ids::{GymId, MemberId, MembershipId};

use super::{Work, advanced, cause, is_change, kept};
use crate::error::Error;
use crate::linking::{self, Touched};
use crate::requests::PutMembership;
use crate::roster::Stop;
use crate::roster::claim::Claimed;
use crate::roster::compare::{self, ComparedMembership};
use crate::rows;
use crate::store::bulk::{self, NewReference};
use crate::store::roster::imports::Import;
use crate::store::roster::missing;
use crate::store::roster::staged::Staged;
use crate::store::{self, StoreError};
use crate::unit::Unit;
use crate::writes::membership::{references, same_reference, wanted};

pub(super) async fn apply(claimed: &Claimed, page: &[Staged]) -> Result<Work, Stop> {
    let decisions = &claimed.importer.decisions;
    let db = decisions.store().reads();
    let (gym, as_of) = (&claimed.row.gym_id, claimed.row.as_of);
    let puts = compare::parse_memberships(page)?;
    let erased = erased(&bulk::list_people(db, gym, &compare::named(&puts), false).await?);
    let seen = compare::memberships(db, gym, puts.clone(), as_of, &erased, false).await?;
    if !seen.iter().any(|seen| seen.verdict.is_written()) {
        return Ok(Work::Nothing);
    }
    let row = decisions
        .retrying(|| apply_once(claimed, page, &puts))
        .await?;
    kept(row)
}

fn erased(people: &[bulk::Person]) -> BTreeSet<MemberId> {
    people
        .iter()
        .filter(|person| person.erased)
        .map(|person| person.member_id.0.clone())
        .collect()
}

async fn apply_once(
    claimed: &Claimed,
    page: &[Staged],
    puts: &[(PutMembership, i64)],
) -> Result<Option<Import>, Error> {
    let (gym, as_of) = (&claimed.row.gym_id, claimed.row.as_of);
    let mut unit = claimed.importer.decisions.begin(cause(claimed)).await?;
    let accounts = lock_accounts(&unit, gym, puts).await?;
    // Memberships before people, like everybody.
    let ids = puts.iter().map(|(put, _)| put.membership.clone()).collect();
    bulk::list_memberships(unit.db(), gym, &ids, true).await?;
    let mut before: BTreeMap<MembershipId, BTreeSet<MemberId>> = BTreeMap::new();
    for (membership, member) in bulk::list_people_of(unit.db(), gym, &ids).await? {
        before.entry(membership.0).or_default().insert(member.0);
    }
    let mut people = compare::named(puts);
    people.extend(before.values().flatten().cloned());
    let known = bulk::list_people(unit.db(), gym, &people, true).await?;
    let compared =
        compare::memberships(unit.db(), gym, puts.to_vec(), as_of, &erased(&known), true).await?;
    let written: Vec<ComparedMembership> = compared
        .into_iter()
        .filter(|compared| compared.verdict.is_written())
        .collect();
    let rows: Vec<_> = written.iter().map(|one| one.row.clone()).collect();
    bulk::put_memberships(unit.db(), &rows).await?;
    let mut concerned = put_people(&unit, gym, &written, &before).await?;
    let mut touched = Touched::new();
    put_references(&unit, gym, &written, &accounts, &mut touched).await?;
    let back = written
        .iter()
        .filter(|one| one.is_back)
        .map(|one| one.put.membership.clone())
        .collect();
    missing::delete_endings(unit.db(), gym, &back).await?;
    // Other memberships can be touched as well, through invoices that two of them share.
    linking::decide_touched(&mut unit, &touched).await?;
    let known: BTreeSet<&MemberId> = known.iter().map(|person| &person.member_id.0).collect();
    concerned.retain(|id| known.contains(id));
    if !concerned.is_empty() {
        unit.decide(gym, &concerned).await?;
    }
    let changes = written.iter().filter(|one| is_change(one.verdict)).count();
    let row = advanced(claimed, unit.db(), page, changes).await?;
    if row.is_some() {
        unit.commit().await?;
    }
    Ok(row)
}

/// Keeps out whoever else changes memberships of the gym or takes events of its accounts in, and
/// answers those accounts.
async fn lock_accounts(
    unit: &Unit<'_>,
    gym: &GymId,
    puts: &[(PutMembership, i64)],
) -> Result<BTreeSet<(String, String)>, StoreError> {
    let nobody = BTreeSet::new;
    store::locks::take(unit.db(), [linking::gym_lock(gym)].into(), nobody()).await?;
    let accounts = store::gyms::list_accounts(unit.db(), gym).await?;
    let mut accounts: BTreeSet<(String, String)> = accounts.into_iter().collect();
    for reference in puts.iter().filter_map(|(put, _)| put.billing.as_ref()) {
        accounts.insert((
            reference.provider.to_string(),
            reference.account.to_string(),
        ));
    }
    let locks: BTreeSet<String> = accounts
        .iter()
        .map(|(provider, account)| linking::account_lock(provider, account))
        .collect();
    if !locks.is_empty() {
        store::locks::take(unit.db(), locks, nobody()).await?;
    }
    Ok(accounts)
}

/// Writes holders and payers where they changed, before the references are, and answers everybody who is concerned.
async fn put_people(
    unit: &Unit<'_>,
    gym: &GymId,
    written: &[ComparedMembership],
    before: &BTreeMap<MembershipId, BTreeSet<MemberId>>,
) -> Result<BTreeSet<MemberId>, StoreError> {
    let mut concerned = BTreeSet::new();
    let mut replaced = BTreeSet::new();
    let mut pairs = Vec::new();
    let mut former_payers = Vec::new();
    for one in written {
        let put = &one.put;
        // What is older than what is held keeps its people; only its end is taken back.
        let is_said = one.row.holders == serde_json::to_string(&put.holders).unwrap_or_default();
        let held = before.get(&put.membership);
        if is_change(one.verdict) {
            concerned.extend(held.into_iter().flatten().cloned());
        }
        if !is_said {
            continue;
        }
        let people: BTreeSet<MemberId> = put.holders.iter().chain(&put.payer).cloned().collect();
        if is_change(one.verdict) {
            concerned.extend(people.iter().cloned());
        }
        if let Some(before) = &one.held {
            let former = rows::former_payer(before, &one.row)?;
            former_payers.extend(former.map(|id| (put.membership.clone(), id)));
        }
        if held != Some(&people) {
            replaced.insert(put.membership.clone());
            pairs.extend(people.into_iter().map(|id| (put.membership.clone(), id)));
        }
    }
    store::former_payers::insert(unit.db(), gym, &former_payers).await?;
    bulk::replace_people(unit.db(), gym, &replaced, &pairs).await?;
    Ok(concerned)
}

/// Writes billing references where they changed, and gives events that waited for them their
/// memberships.
async fn put_references(
    unit: &Unit<'_>,
    gym: &GymId,
    written: &[ComparedMembership],
    accounts: &BTreeSet<(String, String)>,
    touched: &mut Touched,
) -> Result<(), Error> {
    let new: Vec<&ComparedMembership> = written
        .iter()
        .filter(|one| {
            one.held
                .as_ref()
                .is_none_or(|held| !same_reference(held, &one.row))
        })
        .collect();
    let ids: BTreeSet<MembershipId> = new.iter().map(|one| one.put.membership.clone()).collect();
    let references: Vec<NewReference> = new.iter().flat_map(|one| references(&one.put)).collect();
    bulk::replace_references(unit.db(), gym, &ids, &references).await?;
    for (provider, account) in accounts {
        let wanted = wanted(new.iter().map(|one| &one.put), provider, account);
        let claimable = bulk::list_claimable(unit.db(), provider, account, &wanted).await?;
        if !claimable.is_empty() {
            linking::settle_held(unit.db(), claimable, unit.now(), touched).await?;
        }
    }
    Ok(())
}
