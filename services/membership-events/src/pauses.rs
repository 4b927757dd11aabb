//! The club's pauses: made, edited, ended.
//!
//! Each pause has an id and a source version of its own. Its start can be edited until it has
//! begun, its end at any time. A provider's pauses are billing facts and not stored here; resuming
//! everything ends those that began by then too.

use std::collections::BTreeMap;

use access_domain::ids::MemberId;
use jiff::Timestamp;

use crate::error::Error;
use crate::fields::Fields;
use crate::requests::{PauseMembership, ResumeMembership};
use crate::rows::{self, StoredPause};
use crate::store::entity::memberships as membership_rows;
use crate::store::{self, from_micros, micros};
use crate::unit::{Decisions, Unit};
use crate::writes::{By, Outcome, decide_membership, lock_membership};

/// Makes or edits a pause.
pub async fn pause(decisions: &Decisions, by: &By, put: PauseMembership) -> Result<Outcome, Error> {
    decisions.retrying(|| pause_once(decisions, by, &put)).await
}

async fn pause_once(
    decisions: &Decisions,
    by: &By,
    put: &PauseMembership,
) -> Result<Outcome, Error> {
    let unit = decisions.begin(by.cause(decisions)).await?;
    let row = lock_membership(&unit, &put.gym, &put.membership).await?;
    let mut pauses = rows::pauses(&row)?;
    let new = StoredPause {
        id: put.pause.clone(),
        from: put.from,
        until: put.until,
        resumed_at: None,
        source_version: put.source_version,
    };
    match pauses.iter_mut().find(|pause| pause.id == put.pause) {
        None => pauses.push(new),
        Some(held) if held.source_version > put.source_version => {
            return Ok(Outcome::stale(held.source_version));
        }
        // A repeat of the pause that was resumed since does not pause again.
        Some(held) if held.source_version == put.source_version => {
            let members = decide_membership(unit, &put.gym, &put.membership).await?;
            return Ok(Outcome::applied(put.source_version, members));
        }
        Some(held) => {
            let gym = store::gyms::find(unit.db(), &put.gym)
                .await?
                .ok_or(Error::Unknown("gym"))?;
            let has_begun = rows::rules(&gym)?.begins(held.from) <= unit.now();
            if held.resumed_at.is_none() && has_begun && held.from != put.from {
                let problem = "the pause has begun: only its end can be changed";
                let mut fields = Fields::new();
                fields.fault("from", problem);
                return Err(fields.into_refusal(problem).into());
            }
            *held = new;
        }
    }
    let members = keep(unit, row, &pauses).await?;
    Ok(Outcome::applied(put.source_version, members))
}

/// Ends one pause, or all that are in force.
pub async fn resume(
    decisions: &Decisions,
    by: &By,
    resume: ResumeMembership,
) -> Result<Outcome, Error> {
    decisions
        .retrying(|| resume_once(decisions, by, &resume))
        .await
}

async fn resume_once(
    decisions: &Decisions,
    by: &By,
    resume: &ResumeMembership,
) -> Result<Outcome, Error> {
    let unit = decisions.begin(by.cause(decisions)).await?;
    let mut row = lock_membership(&unit, &resume.gym, &resume.membership).await?;
    let mut pauses = rows::pauses(&row)?;
    let at = resume.at.unwrap_or_else(|| unit.now());
    if let Some(id) = &resume.pause {
        let held = pauses
            .iter_mut()
            .find(|pause| pause.id == *id)
            .ok_or(Error::Unknown("pause"))?;
        if held.source_version > resume.source_version {
            return Ok(Outcome::stale(held.source_version));
        }
        end(held, at, resume.source_version);
    } else {
        // A repeat that comes late must not resume what was paused after it.
        match row.resumed_source_version {
            Some(held) if held > resume.source_version => return Ok(Outcome::stale(held)),
            Some(held) if held == resume.source_version => {
                let members = decide_membership(unit, &resume.gym, &resume.membership).await?;
                return Ok(Outcome::applied(held, members));
            }
            _ => row.resumed_source_version = Some(resume.source_version),
        }
        let gym = store::gyms::find(unit.db(), &resume.gym)
            .await?
            .ok_or(Error::Unknown("gym"))?;
        let rules = rows::rules(&gym)?;
        for pause in &mut pauses {
            let in_force = rules.begins(pause.from) <= at
                && pause.resumed_at.is_none_or(|resumed| resumed > at);
            if in_force && pause.source_version <= resume.source_version {
                end(pause, at, resume.source_version);
            }
        }
        let ended = row.provider_pauses_ended_at.map(from_micros);
        row.provider_pauses_ended_at = Some(micros(ended.map_or(at, |ended| ended.max(at))));
    }
    let members = keep(unit, row, &pauses).await?;
    Ok(Outcome::applied(resume.source_version, members))
}

/// A repeat under the same number does not move the end.
fn end(pause: &mut StoredPause, at: Timestamp, source_version: i64) {
    if pause.resumed_at.is_none() || pause.source_version < source_version {
        pause.resumed_at = Some(at);
    }
    pause.source_version = source_version;
}

async fn keep(
    unit: Unit<'_>,
    mut row: membership_rows::Model,
    pauses: &[StoredPause],
) -> Result<BTreeMap<MemberId, i64>, Error> {
    row.pauses = serde_json::to_string(pauses).map_err(Error::Json)?;
    row.written_at = micros(unit.now());
    let (gym, membership) = (row.gym_id.clone(), row.membership_id.clone());
    store::memberships::put(unit.db(), row).await?;
    decide_membership(unit, &gym, &membership).await
}
