//! Summing up: what differs, who is missing, and whether that is done, held or refused.
//!
//! All of it is read a page at a time. What would be ended is kept with the staged rows, so that
//! what is applied is what was counted, and hashed into the digest that a person confirms.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::gym::GymRules;
use access_domain::ids::{GymId, MemberId, MembershipId};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tracing::info;

use super::claim::Claimed;
use super::compare::{self, Verdict};
use super::progress::Progress;
use super::{Stop, apply, some_ids};
use crate::decide::with_billing;
use crate::error::Error;
use crate::fields::Fields;
use crate::requests::roster::Kind;
use crate::rows;
use crate::store::bulk;
use crate::store::roster::staged::Staged;
use crate::store::roster::{missing, staged};
use crate::store::{self, from_micros};

/// Rows compared at once.
const PAGE: usize = 250;
/// Memberships looked at for absence at once.
const SCAN: usize = 1_000;
/// Faults named in one answer.
const FAULTS: usize = 50;

/// What kind of staged row a membership is that the roster lacks.
pub(super) const ABSENT: &str = "absent";
/// What kind of staged row a holder of one is.
const LEAVER: &str = "leaver";

/// What comes of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is applied, whatever happens to us from here on.
    Apply,
    /// More are missing than the guard allows.
    Held,
    /// What was confirmed is not what would be done.
    OtherSet,
}

/// Sums up what was staged, and makes the import `applying` or `held`.
pub(super) async fn summarize(
    claimed: &mut Claimed,
    confirmed: Option<&str>,
    progress: &mut Progress,
) -> Result<Finding, Stop> {
    claimed.is_work = false;
    let mut erased = BTreeSet::new();
    people(claimed, progress, &mut erased).await?;
    invoices(claimed, progress).await?;
    memberships(claimed, progress).await?;
    if !erased.is_empty() {
        info!(
            import.id = claimed.row.import_id,
            "Members of the roster who were erased stay so: {}",
            some_ids(&erased)
        );
    }
    absent(claimed, progress).await?;
    let settings = claimed.importer.settings.clone();
    claimed.row.allowed = settings.allowed(0);
    if claimed.row.missing > claimed.row.allowed {
        claimed.row.allowed = settings.allowed(count_current(claimed).await?);
    }
    let finding = match confirmed {
        Some(digest) if digest != claimed.row.digest => Finding::OtherSet,
        None if claimed.row.missing > claimed.row.allowed => Finding::Held,
        _ => Finding::Apply,
    };
    if finding == Finding::Apply {
        if !progress.is_heard(&claimed.row).await {
            return Err(Stop::Gone);
        }
        claimed.row.state = "applying".to_owned();
        claimed.is_work |= claimed.row.ending > 0;
        claimed.row.phase = apply::first_phase(claimed.is_work).to_owned();
        claimed.keep().await?;
    } else {
        // Until then it is being received, and a kill leaves nothing of it.
        claimed.clear().await?;
        claimed.row.state = "held".to_owned();
        claimed.close().await?;
    }
    Ok(finding)
}

/// The answer to a confirmation of something else.
pub(super) fn other_set(row: &store::roster::imports::Import) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(
        "ROSTER_CHANGED",
        "gymflow.membership.v1",
        [
            ("digest".to_owned(), row.digest.clone()),
            ("missing".to_owned(), row.missing.to_string()),
        ],
    );
    let message = format!(
        "What would be ended has changed: {} members are missing now, digest {}.",
        row.missing, row.digest
    );
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// The next page of staged rows, with the claim moved on and the caller looked for.
async fn next_page(
    claimed: &mut Claimed,
    kind: Kind,
    after: &mut String,
    progress: &mut Progress,
) -> Result<Vec<Staged>, Stop> {
    claimed.breathe().await?;
    if progress.is_gone() {
        return Err(Stop::Gone);
    }
    progress.pass(&claimed.row, 0);
    let db = claimed.importer.decisions.store().reads();
    let page = staged::page(db, claimed.row.import_id, kind.as_str(), after, PAGE).await?;
    if let Some(last) = page.last() {
        after.clone_from(&last.row_id);
    }
    Ok(page)
}

fn count(claimed: &mut Claimed, verdict: Verdict) {
    claimed.is_work |= verdict.is_written();
    match verdict {
        Verdict::Same | Verdict::Renumbered => claimed.row.unchanged += 1,
        Verdict::Differs => claimed.row.changed += 1,
        Verdict::LeftAlone => claimed.row.left_alone += 1,
    }
}

async fn people(
    claimed: &mut Claimed,
    progress: &mut Progress,
    erased: &mut BTreeSet<String>,
) -> Result<(), Stop> {
    let mut after = String::new();
    loop {
        let page = next_page(claimed, Kind::Member, &mut after, progress).await?;
        if page.is_empty() {
            return Ok(());
        }
        let db = claimed.importer.decisions.store().reads();
        for person in compare::people(db, &claimed.row.gym_id, &page, false).await? {
            count(claimed, person.verdict);
            // As many as a line shows.
            if person.is_erased && erased.len() <= 20 {
                erased.insert(person.put.member.to_string());
            }
        }
    }
}

async fn invoices(claimed: &mut Claimed, progress: &mut Progress) -> Result<(), Stop> {
    let mut after = String::new();
    loop {
        let page = next_page(claimed, Kind::OpenInvoice, &mut after, progress).await?;
        if page.is_empty() {
            return Ok(());
        }
        let db = claimed.importer.decisions.store().reads();
        for invoice in compare::invoices(db, &page).await? {
            count(claimed, invoice.verdict);
        }
    }
}

async fn memberships(claimed: &mut Claimed, progress: &mut Progress) -> Result<(), Stop> {
    let mut after = String::new();
    let mut faults = Fields::new();
    let mut named = 0;
    loop {
        let page = next_page(claimed, Kind::Membership, &mut after, progress).await?;
        if page.is_empty() {
            return Ok(faults.check(Some(()))?);
        }
        let db = claimed.importer.decisions.store().reads();
        let (gym, import) = (claimed.row.gym_id.clone(), claimed.row.import_id);
        let puts = compare::parse_memberships(&page)?;
        let people = compare::named(&puts);
        let known = bulk::list_people(db, &gym, &people, false).await?;
        let erased = known
            .iter()
            .filter(|person| person.erased)
            .map(|person| person.member_id.0.clone())
            .collect();
        let mut unknown: BTreeSet<MemberId> = people;
        for person in &known {
            unknown.remove(&person.member_id.0);
        }
        let ids: Vec<&str> = unknown.iter().map(MemberId::as_str).collect();
        for staged in staged::list_known(db, import, Kind::Member.as_str(), &ids).await? {
            unknown.retain(|id| id.as_str() != staged);
        }
        for (put, position) in &puts {
            let holders = put.places.iter().zip(&put.holders);
            let names = holders.map(|(place, id)| (format!("member_ids[{place}]"), id));
            let payer = put
                .payer
                .iter()
                .map(|id| ("payer_member_id".to_owned(), id));
            for (field, _) in names.chain(payer).filter(|(_, id)| unknown.contains(*id)) {
                named += 1;
                faults.fault(
                    format!("messages[{position}].membership.{field}"),
                    "a member who is in the roster, or known, is expected",
                );
            }
        }
        if named > FAULTS {
            return Ok(faults.check(Some(()))?);
        }
        let as_of = claimed.row.as_of;
        for compared in compare::memberships(db, &gym, puts, as_of, &erased, false).await? {
            count(claimed, compared.verdict);
        }
    }
}

/// Finds the memberships that the roster lacks, and whose they are.
async fn absent(claimed: &mut Claimed, progress: &mut Progress) -> Result<(), Stop> {
    let store = claimed.importer.decisions.store().clone();
    let db = store.reads();
    let gym = claimed.row.gym_id.clone();
    let its_gym = store::gyms::find(db, &gym)
        .await?
        .ok_or(Error::Unknown("gym"))?;
    let rules = rows::rules(&its_gym)?;
    let mut digest = Sha256::new();
    digest.update(format!("{gym}\n{}\n", from_micros(claimed.row.as_of)));
    let mut after = String::new();
    loop {
        claimed.breathe().await?;
        if progress.is_gone() {
            return Err(Stop::Gone);
        }
        let page = missing::list_written(db, &gym, &after, SCAN).await?;
        let Some(last) = page.last() else {
            claimed.row.digest = hex::encode(digest.finalize());
            return Ok(());
        };
        after = last.membership_id.to_string();
        let mut ids: BTreeSet<MembershipId> = page
            .into_iter()
            .filter(|row| row.written_at <= claimed.row.as_of)
            .map(|row| row.membership_id.0)
            .collect();
        let asked: Vec<&str> = ids.iter().map(MembershipId::as_str).collect();
        let kind = Kind::Membership.as_str();
        for there in staged::list_known(db, claimed.row.import_id, kind, &asked).await? {
            ids.remove(there.as_str());
        }
        let ids: Vec<MembershipId> = ids.into_iter().collect();
        // Facts of hundreds of memberships can be a lot: a part at a time.
        for ids in ids.chunks(PAGE) {
            leave(claimed, &rules, ids, &mut digest).await?;
        }
    }
}

/// Stages the ends of those of these memberships that have not ended.
async fn leave(
    claimed: &mut Claimed,
    rules: &GymRules,
    ids: &[MembershipId],
    digest: &mut Sha256,
) -> Result<(), Stop> {
    let decisions = &claimed.importer.decisions;
    let (db, now) = (decisions.store().reads(), decisions.now());
    let (gym, import) = (&claimed.row.gym_id, claimed.row.import_id);
    let ids = ids.iter().cloned().collect();
    let rows = bulk::list_memberships(db, gym, &ids, false).await?;
    let mut held = with_billing(db, gym, &rows).await?;
    // The digest is of a sorted set, whatever order a database sorts in.
    held.sort_by(|a, b| a.membership.id.cmp(&b.membership.id));
    let holders = held.iter().flat_map(|held| held.membership.holders.iter());
    let holders: BTreeSet<MemberId> = holders.cloned().collect();
    let erased: BTreeSet<MemberId> = bulk::list_people(db, gym, &holders, false)
        .await?
        .into_iter()
        .filter(|person| person.erased)
        .map(|person| person.member_id.0)
        .collect();
    let mut endings = Vec::new();
    let mut leavers = BTreeMap::new();
    for held in &held {
        let membership = &held.membership;
        let end = membership.end(&held.billing, rules);
        let left: Vec<&MemberId> = membership
            .holders
            .iter()
            .filter(|id| !erased.contains(*id))
            .collect();
        if end.is_some_and(|end| end <= now) || left.is_empty() {
            continue;
        }
        digest.update(format!("{}\n", membership.id));
        endings.push(bare(ABSENT, membership.id.as_str()));
        for id in left {
            leavers.insert(id.as_str(), bare(LEAVER, id.as_str()));
        }
    }
    let leavers: Vec<Staged> = leavers.into_values().collect();
    staged::insert(db, import, &endings).await?;
    // A member with two of them counts once.
    let mut missing = 0;
    for leavers in leavers.chunks(1_000) {
        missing += staged::insert(db, import, leavers).await? as i64;
    }
    claimed.row.ending += endings.len() as i64;
    claimed.row.missing += missing;
    Ok(())
}

fn bare(kind: &str, id: &str) -> Staged {
    Staged {
        kind: kind.to_owned(),
        row_id: id.to_owned(),
        position: 0,
        body: String::new(),
    }
}

/// Of a state, what says whether any membership still runs.
#[derive(Deserialize)]
struct Held {
    #[serde(default)]
    memberships: Vec<Membership>,
}

#[derive(Deserialize)]
struct Membership {
    #[serde(default)]
    status: String,
}

/// Members with a membership that has not ended.
async fn count_current(claimed: &mut Claimed) -> Result<i64, Stop> {
    let store = claimed.importer.decisions.store().clone();
    let gym: GymId = claimed.row.gym_id.0.clone();
    let mut after = String::new();
    let mut current = 0;
    loop {
        claimed.breathe().await?;
        let page = missing::list_states(store.reads(), &gym, &after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(current);
        };
        after = last.member_id.to_string();
        for decided in &page {
            let state: Option<Held> = decided
                .state
                .as_deref()
                .and_then(|json| serde_json::from_str(json).ok());
            let runs = |held: Held| held.memberships.iter().any(|m| m.status != "ended");
            current += i64::from(state.is_some_and(runs));
        }
    }
}
