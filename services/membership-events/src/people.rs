//! What is done to one person: overrides, erasure, and sending states again.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::ids::{GymId, MemberId};
use jiff::SignedDuration;

use crate::error::Error;
use crate::requests::{CLOCK_SKEW, ClearOverride, OVERRIDE_AT_MOST, PutOverride};
use crate::rows::{self, StoredOverride};
use crate::store;
use crate::store::entity::members;
use crate::unit::{Decisions, Unit};
use crate::writes::{By, Change, Facts, Outcome, Verdict};

/// States sent again in one transaction.
const PAGE: u64 = 500;
/// How long the id of a cleared override is kept: past the longest one, and the clocks' difference,
/// no repeat of it is taken any more.
const CLEARED_KEPT: SignedDuration = OVERRIDE_AT_MOST.saturating_add(CLOCK_SKEW);

/// Lets one person in, or bars one, until an instant. One that was cleared stays cleared: a late
/// repeat, or a call that the clearing overtook, is not applied.
pub(crate) fn weigh_override(
    put: &PutOverride,
    actor: String,
    facts: &Facts,
) -> Result<Verdict, Error> {
    let row = facts.person(&put.member)?;
    if row.erased {
        return Err(Error::Refused("the member was erased".to_owned()));
    }
    let now = facts.now;
    let mut held = rows::overrides(row)?;
    held.retain(|held| held.matters(now));
    let same = held.iter().find(|held| held.id == put.id);
    if same.is_some_and(|held| held.cleared_until.is_some()) {
        return Ok(Verdict::Stale(Outcome::stale(0)));
    }
    let began = same
        .filter(|held| held.kind == put.kind)
        .map_or(now, |held| held.from);
    held.retain(|held| held.id != put.id);
    held.push(StoredOverride {
        id: put.id.clone(),
        kind: put.kind,
        from: began,
        until: put.until,
        reason: put.reason.clone(),
        actor,
        cleared_until: None,
    });
    kept(&put.member, &held)
}

/// Ends an override now, and keeps its id, known or not, until no repeat of it can be valid.
pub(crate) fn weigh_clear(clear: &ClearOverride, facts: &Facts) -> Result<Verdict, Error> {
    let now = facts.now;
    let mut held = rows::overrides(facts.person(&clear.member)?)?;
    held.retain(|held| held.id != clear.id && held.matters(now));
    held.push(StoredOverride::cleared(
        clear.id.clone(),
        now,
        now + CLEARED_KEPT,
    ));
    kept(&clear.member, &held)
}

fn kept(member: &MemberId, held: &[StoredOverride]) -> Result<Verdict, Error> {
    let json = serde_json::to_string(held).map_err(Error::Json)?;
    let outcome = Outcome::applied(0, BTreeMap::new());
    let mut change = Change::about(BTreeSet::from([member.clone()]), outcome);
    change.overrides = Some((member.clone(), json));
    Ok(change.into())
}

/// Erases a person: the tombstone version goes out, and no decision is made about the member any
/// more. When the doors have answered it, personal data goes; see [`crate::erasure`].
///
/// What the member holds stays as rows without personal data.
pub async fn delete(
    decisions: &Decisions,
    by: &By,
    gym: &GymId,
    member: &MemberId,
) -> Result<Outcome, Error> {
    decisions
        .retrying(|| async {
            let mut unit = decisions.begin(by.cause(decisions)).await?;
            let row = lock_known(&unit, gym, member).await?;
            if !row.erased {
                unit.erase(gym, member, row.version).await?;
            }
            let members = unit.commit().await?;
            decisions.ask_erasure();
            Ok(Outcome::applied(row.source_version, members))
        })
        .await
}

async fn lock_known(
    unit: &Unit<'_>,
    gym: &GymId,
    member: &MemberId,
) -> Result<members::Model, Error> {
    let one = BTreeSet::from([member.clone()]);
    if let Some(row) = store::members::lock(unit.db(), gym, &one).await?.pop() {
        return Ok(row);
    }
    match store::gyms::find(unit.db(), gym).await? {
        None => Err(Error::Unknown("gym")),
        Some(_) => Err(Error::Unknown("member")),
    }
}

/// Sends the held states of these members again, of all without any named; how many.
pub async fn republish(
    decisions: &Decisions,
    by: &By,
    gym: &GymId,
    members: BTreeSet<MemberId>,
) -> Result<usize, Error> {
    let store = decisions.store();
    if store::gyms::find(store.reads(), gym).await?.is_none() {
        return Err(Error::Unknown("gym"));
    }
    let mut sent = 0;
    if !members.is_empty() {
        let named: Vec<MemberId> = members.into_iter().collect();
        for page in named.chunks(PAGE as usize) {
            let page = page.iter().cloned().collect();
            sent += republish_page(decisions, by, gym, &page).await?;
        }
        return Ok(sent);
    }
    let mut after = String::new();
    loop {
        let page = store::members::list_ids(store.reads(), gym, &after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(sent);
        };
        after = last.to_string();
        let members = page.into_iter().map(|key| key.0).collect();
        sent += republish_page(decisions, by, gym, &members).await?;
    }
}

async fn republish_page(
    decisions: &Decisions,
    by: &By,
    gym: &GymId,
    members: &BTreeSet<MemberId>,
) -> Result<usize, Error> {
    decisions
        .retrying(|| async {
            let mut unit = decisions.begin(by.cause(decisions)).await?;
            let sent = unit.republish(gym, members).await?;
            unit.commit().await?;
            Ok(sent)
        })
        .await
}
