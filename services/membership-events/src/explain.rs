//! Why a member was, is or will be let in or not, at any instant.
//!
//! What was decided is read: the decision that held then, as it was published, and those before it.
//! What is to come is computed from the facts held now: the decision last made, and from its
//! `changes_at` on each change that time alone will bring. Everything is read in one snapshot, in
//! which a decision is in the outbox or in the history, and in no other place.

use access_domain::entitlement::{MemberFacts, outlook};
use access_domain::gym::GymRules;
use access_domain::ids::{GymId, MemberId};
use contracts::membership::v1::{ExplainMemberResponse, MembershipStatusChanged};
use contracts::wire;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use sea_orm::ConnectionTrait;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::cause::CauseOf;
use crate::decide;
use crate::error::Error;
use crate::fields::Fields;
use crate::history::kept_since;
use crate::rows;
use crate::store::entity::members;
use crate::store::history::Decided;
use crate::store::{self, Step, StoreError, from_micros, micros};
use crate::unit::Decisions;

/// Causes that are told at most.
const CAUSES: usize = 20;
/// How far ahead may be asked.
const YEARS_AHEAD: i32 = 5;

/// Explains a member's access at `at`; without it, now.
///
/// # Errors
/// `INVALID_ARGUMENT` for more than five years ahead, `OUT_OF_RANGE` for more than 13 months ago,
/// `NOT_FOUND` for a gym or member that is not known, for an instant before the first decision, and
/// for one before an erasure.
pub async fn explain(
    decisions: &Decisions,
    gym: &GymId,
    member: &MemberId,
    at: Option<Timestamp>,
) -> Result<ExplainMemberResponse, Error> {
    let now = decisions.now();
    let at = at.unwrap_or(now);
    check(at, now)?;
    let txn = decisions.store().snapshot().await?;
    let Some(row) = store::members::find(&txn, gym, member).await? else {
        return Err(match store::gyms::find(&txn, gym).await? {
            None => Error::Unknown("gym"),
            Some(_) => Error::Unknown("member"),
        });
    };
    let Some(last) = rows::state(&row)? else {
        return Err(not_found(
            "nothing has been decided about the member yet".to_owned(),
        ));
    };
    if row.erased {
        return erased(last, at);
    }
    let mut held = list_held(&txn, gym, member, &row, last, at, now).await?;
    if held.is_empty() {
        let first = store::history::first(&txn, gym, member).await?;
        return Err(not_found(match first {
            Some(first) if first > micros(at) => format!(
                "the first decision about the member was made at {}",
                from_micros(first)
            ),
            _ => "nothing had been decided about the member by then".to_owned(),
        }));
    }
    if at >= now {
        let facts = decide::facts(&txn, gym, &row).await?;
        held.splice(0..0, to_come(&held, &facts, gym, at));
    }
    txn.rollback().await.step("ending a snapshot")?;
    Ok(told(held))
}

fn check(at: Timestamp, now: Timestamp) -> Result<(), Error> {
    let horizon = now
        .to_zoned_datetime(TimeZone::UTC)
        .checked_add(YEARS_AHEAD.years())
        .map_or(Timestamp::MAX, |then| then.timestamp());
    let mut fields = Fields::new();
    if at > horizon {
        fields.fault(
            "at",
            format!("an instant at most {YEARS_AHEAD} years ahead is expected"),
        );
    }
    fields.check(Some(()))?;
    let since = kept_since(now);
    if at < since {
        let problem = format!("decisions are kept for 13 months, which is from {since} on");
        let details = ErrorDetails::with_bad_request_violation("at", problem.as_str());
        let status = Status::with_error_details(Code::OutOfRange, problem, details);
        return Err(Error::from(status));
    }
    Ok(())
}

fn not_found(message: String) -> Error {
    Error::from(Status::not_found(message))
}

/// Of somebody who was erased there is the tombstone, which has no more than ids in it.
fn erased(
    tombstone: MembershipStatusChanged,
    at: Timestamp,
) -> Result<ExplainMemberResponse, Error> {
    let erased_at = tombstone.decided_at.as_ref().and_then(wire::instant);
    match erased_at {
        Some(erased_at) if at < erased_at => Err(not_found(format!(
            "the member was erased at {erased_at}, and what held before is gone"
        ))),
        _ => Ok(told(vec![tombstone])),
    }
}

/// What was decided by `at` (what was last decided, if that is not in the past), newest first.
async fn list_held(
    db: &impl ConnectionTrait,
    gym: &GymId,
    member: &MemberId,
    row: &members::Model,
    last: MembershipStatusChanged,
    at: Timestamp,
    now: Timestamp,
) -> Result<Vec<MembershipStatusChanged>, Error> {
    // Another replica's clock may be ahead of ours: the last decision holds now all the same.
    let until = if at >= now { i64::MAX } else { micros(at) };
    let mut decided = store::history::list_not_moved(db, gym, member).await?;
    decided.extend(store::history::list_until(db, gym, member, until, CAUSES).await?);
    decided.sort_by_key(|row| std::cmp::Reverse(row.version));
    decided.dedup_by_key(|row| row.version);
    let newest = decided.iter().position(|row| row.decided_at <= until);
    let held = newest.map_or(&[][..], |newest| &decided[newest..]);
    let mut states = Vec::with_capacity(CAUSES);
    // Of a version that was made before there was a history, this is all there is.
    let last_at = last.decided_at.as_ref().and_then(wire::instant);
    if held
        .first()
        .is_none_or(|newest| newest.version < row.version)
        && last_at.is_some_and(|last_at| micros(last_at) <= until)
    {
        states.push(last);
    }
    for row in held.iter().take(CAUSES) {
        states.push(state_of(row)?);
    }
    Ok(states)
}

fn state_of(row: &Decided) -> Result<MembershipStatusChanged, StoreError> {
    serde_json::from_str(&row.payload).map_err(|_| StoreError::Nonsense {
        table: "decision_history",
        column: "payload",
        row: format!("{}/{}/{}", row.gym_id, row.member_id, row.version),
    })
}

/// What time alone makes of the decision last made, until `at`; newest first. There is no version
/// for it yet, so that it goes under the last one.
fn to_come(
    held: &[MembershipStatusChanged],
    (facts, rules): &(MemberFacts, GymRules),
    gym: &GymId,
    at: Timestamp,
) -> Vec<MembershipStatusChanged> {
    let Some(last) = held.first() else {
        return Vec::new();
    };
    let Some(first) = last.changes_at.as_ref().and_then(wire::instant) else {
        return Vec::new();
    };
    let mut steps: Vec<_> = outlook(facts, rules, first, at)
        .into_iter()
        .map(|(at, entitlement)| {
            let (_, cause) = CauseOf::Timer.told(Some(at), at);
            wire::status_changed(
                gym,
                &facts.member,
                last.version,
                &entitlement,
                rules,
                at,
                cause,
            )
        })
        .collect();
    steps.reverse();
    steps
}

/// The newest of `states`, with the causes since access was last otherwise.
fn told(states: Vec<MembershipStatusChanged>) -> ExplainMemberResponse {
    let allowed = states.first().is_some_and(|newest| newest.allowed);
    let causes = states
        .iter()
        .take_while(|state| state.allowed == allowed)
        .filter_map(|state| state.cause.clone())
        .take(CAUSES)
        .collect();
    let state = states.into_iter().next();
    ExplainMemberResponse {
        since: state.as_ref().and_then(|state| state.decided_at),
        state,
        causes,
    }
}
