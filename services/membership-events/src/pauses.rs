//! The club's pauses: made, edited, ended.
//!
//! Each pause has an id and a source version of its own. Its start can be edited until it has
//! begun, its end at any time. A provider's pauses are billing facts and not stored here; resuming
//! everything ends those that began by then too.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::error::Error;
use crate::fields::Fields;
use crate::requests::{PauseMembership, ResumeMembership};
use crate::rows::{self, StoredPause};
use crate::store::entity::memberships as membership_rows;
use crate::store::{from_micros, micros};
use crate::writes::{Change, Facts, Outcome, Verdict};

/// Makes or edits a pause.
pub(crate) fn weigh_pause(put: &PauseMembership, facts: &Facts) -> Result<Verdict, Error> {
    let row = facts.membership(&put.membership)?;
    let mut pauses = rows::pauses(row)?;
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
            return Ok(Verdict::Stale(Outcome::stale(held.source_version)));
        }
        // A repeat of the pause that was resumed since does not pause again.
        Some(held) if held.source_version == put.source_version => {
            return about(row, put.source_version).map(Verdict::from);
        }
        Some(held) => {
            let has_begun = rows::rules(&facts.gym)?.begins(held.from) <= facts.now;
            if held.resumed_at.is_none() && has_begun && held.from != put.from {
                let problem = "the pause has begun: only its end can be changed";
                let mut fields = Fields::new();
                fields.fault("from", problem);
                return Err(fields.into_refusal(problem).into());
            }
            *held = new;
        }
    }
    kept(row.clone(), &pauses, put.source_version, facts.now)
}

/// Ends one pause, or all that are in force.
pub(crate) fn weigh_resume(resume: &ResumeMembership, facts: &Facts) -> Result<Verdict, Error> {
    let mut row = facts.membership(&resume.membership)?.clone();
    let mut pauses = rows::pauses(&row)?;
    let at = resume.at.unwrap_or(facts.now);
    if let Some(id) = &resume.pause {
        let held = pauses
            .iter_mut()
            .find(|pause| pause.id == *id)
            .ok_or(Error::Unknown("pause"))?;
        if held.source_version > resume.source_version {
            return Ok(Verdict::Stale(Outcome::stale(held.source_version)));
        }
        end(held, at, resume.source_version);
    } else {
        // A repeat that comes late must not resume what was paused after it.
        match row.resumed_source_version {
            Some(held) if held > resume.source_version => {
                return Ok(Verdict::Stale(Outcome::stale(held)));
            }
            Some(held) if held == resume.source_version => {
                return about(&row, held).map(Verdict::from);
            }
            _ => row.resumed_source_version = Some(resume.source_version),
        }
        let rules = rows::rules(&facts.gym)?;
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
    kept(row, &pauses, resume.source_version, facts.now)
}

/// A repeat under the same number does not move the end.
fn end(pause: &mut StoredPause, at: Timestamp, source_version: i64) {
    if pause.resumed_at.is_none() || pause.source_version < source_version {
        pause.resumed_at = Some(at);
    }
    pause.source_version = source_version;
}

fn about(row: &membership_rows::Model, source_version: i64) -> Result<Change, Error> {
    let outcome = Outcome::applied(source_version, BTreeMap::new());
    Ok(Change::about(rows::people(row)?, outcome))
}

fn kept(
    mut row: membership_rows::Model,
    pauses: &[StoredPause],
    source_version: i64,
    now: Timestamp,
) -> Result<Verdict, Error> {
    row.pauses = serde_json::to_string(pauses).map_err(Error::Json)?;
    row.written_at = micros(now);
    let mut change = about(&row, source_version)?;
    change.membership = Some(row);
    Ok(change.into())
}
