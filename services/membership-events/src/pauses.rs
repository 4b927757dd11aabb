//! The club's pauses: made, edited, ended.
//!
//! Each pause has an id and a source version of its own. Its start can be edited until it has
//! begun, its end at any time. Who keeps no numbers resumes by the instant alone, which no number is
//! compared with. A provider's pauses are billing facts and not stored here; resuming
//! everything ends those that began by then too.

use std::collections::BTreeMap;

use access_domain::gym::GymRules;
use jiff::Timestamp;

use crate::error::Error;
use crate::fields::Fields;
use crate::requests::{CLOCK_SKEW, PauseMembership, ResumeMembership};
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
            let is_resumed = held.resumed_at.is_some_and(|at| at <= facts.now);
            if !is_resumed && has_begun && held.from != put.from {
                let problem = "the pause has begun: only its end can be changed";
                let mut fields = Fields::new();
                fields.fault("from", problem);
                return Err(fields.into_refusal(problem).into());
            }
            // A resume that is to come stays: its end is what was changed.
            let resumed_at = held.resumed_at.filter(|_| !is_resumed);
            *held = StoredPause { resumed_at, ..new };
        }
    }
    kept(row.clone(), &pauses, put.source_version, facts.now)
}

/// Ends one pause, or all that are in force.
pub(crate) fn weigh_resume(resume: &ResumeMembership, facts: &Facts) -> Result<Verdict, Error> {
    let mut row = facts.membership(&resume.membership)?.clone();
    let mut pauses = rows::pauses(&row)?;
    let at = resume.at.unwrap_or(facts.now);
    let Some(source_version) = resume.source_version else {
        return weigh_unnumbered(row, pauses, at, facts);
    };
    if let Some(id) = &resume.pause {
        let held = pauses
            .iter_mut()
            .find(|pause| pause.id == *id)
            .ok_or(Error::Unknown("pause"))?;
        if held.source_version > source_version {
            return Ok(Verdict::Stale(Outcome::stale(held.source_version)));
        }
        end(held, at, source_version);
    } else {
        // A repeat that comes late must not resume what was paused after it.
        match row.resumed_source_version {
            Some(held) if held > source_version => {
                return Ok(Verdict::Stale(Outcome::stale(held)));
            }
            Some(held) if held == source_version => {
                return about(&row, held).map(Verdict::from);
            }
            _ => row.resumed_source_version = Some(source_version),
        }
        let rules = rows::rules(&facts.gym)?;
        for pause in &mut pauses {
            if is_in_force(pause, &rules, at) && pause.source_version <= source_version {
                end(pause, at, source_version);
            }
        }
        end_providers(&mut row, at);
    }
    kept(row, &pauses, source_version, facts.now)
}

/// Ends all that are in force as of an instant, and leaves the numbers to those who keep them.
fn weigh_unnumbered(
    mut row: membership_rows::Model,
    mut pauses: Vec<StoredPause>,
    at: Timestamp,
    facts: &Facts,
) -> Result<Verdict, Error> {
    if at > facts.now.saturating_add(CLOCK_SKEW).unwrap_or(facts.now) {
        let problem = "without a number the instant cannot be to come";
        let mut fields = Fields::new();
        fields.fault("at", problem);
        return Err(fields.into_refusal(problem).into());
    }
    match row.resumed_unnumbered_at {
        Some(held) if held > micros(at) => {
            return Ok(Verdict::Stale(Outcome::stale(row.source_version)));
        }
        Some(held) if held == micros(at) => {
            let held = row.source_version;
            return about(&row, held).map(Verdict::from);
        }
        _ => row.resumed_unnumbered_at = Some(micros(at)),
    }
    let rules = rows::rules(&facts.gym)?;
    for pause in &mut pauses {
        if is_in_force(pause, &rules, at) {
            pause.resumed_at = Some(at);
        }
    }
    end_providers(&mut row, at);
    let held = row.source_version;
    kept(row, &pauses, held, facts.now)
}

/// Whether a pause has begun by `at`, and nobody has resumed it by then.
fn is_in_force(pause: &StoredPause, rules: &GymRules, at: Timestamp) -> bool {
    rules.begins(pause.from) <= at && pause.resumed_at.is_none_or(|resumed| resumed > at)
}

fn end_providers(row: &mut membership_rows::Model, at: Timestamp) {
    let ended = row.provider_pauses_ended_at.map(from_micros);
    row.provider_pauses_ended_at = Some(micros(ended.map_or(at, |ended| ended.max(at))));
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
