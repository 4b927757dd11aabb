//! Stored rows as domain values. A row that makes no sense names its table, column and key.

use std::collections::BTreeSet;

use access_domain::entitlement::{Override, OverrideKind};
use access_domain::gym::GymRules;
use access_domain::ids::{MemberId, OverrideId, PauseId};
use access_domain::membership::{Cancellation, Membership, NextPlan, Pause};
use contracts::membership::v1::MembershipStatusChanged;
use contracts::wire;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::store::entity::{billing_events, gyms, members, memberships};
use crate::store::{StoreError, from_micros};

/// A pause of the club as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPause {
    /// Its id.
    pub id: PauseId,
    /// First day paused.
    pub from: Date,
    /// First day back.
    pub until: Option<Date>,
    /// When it was resumed.
    pub resumed_at: Option<Timestamp>,
    /// The caller's number.
    pub source_version: i64,
}

/// An override as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOverride {
    /// Its id.
    pub id: OverrideId,
    /// Let in or bar.
    pub kind: OverrideKind,
    /// When it was made.
    pub from: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// Why, in the caller's words.
    pub reason: String,
    /// Who made it.
    pub actor: String,
    /// It was cleared, and its id is kept until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared_until: Option<Timestamp>,
}

impl StoredOverride {
    /// One that holds for no time at all, as the mark that its id was cleared.
    pub fn cleared(id: OverrideId, now: Timestamp, kept_until: Timestamp) -> Self {
        Self {
            id,
            kind: OverrideKind::Bar,
            from: now,
            until: now,
            reason: String::new(),
            actor: String::new(),
            cleared_until: Some(kept_until),
        }
    }

    /// Whether it holds, or is a mark still needed, at `now`.
    pub fn matters(&self, now: Timestamp) -> bool {
        self.cleared_until.unwrap_or(self.until) > now
    }
}

fn nonsense(table: &'static str, column: &'static str, row: impl ToString) -> StoreError {
    StoreError::Nonsense {
        table,
        column,
        row: row.to_string(),
    }
}

/// For an event whose JSON cannot be read.
pub fn nonsense_event(row: &billing_events::Model) -> StoreError {
    let key = format!("{}/{}/{}", row.provider, row.account, row.event_id);
    nonsense("billing_events", "event", key)
}

/// A stored span, microseconds.
pub fn span_to_micros(span: SignedDuration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// The gym's zone.
pub fn zone(row: &gyms::Model) -> Result<TimeZone, StoreError> {
    TimeZone::get(&row.time_zone).map_err(|_| nonsense("gyms", "time_zone", &row.gym_id))
}

/// The gym's rules.
pub fn rules(row: &gyms::Model) -> Result<GymRules, StoreError> {
    Ok(GymRules {
        time_zone: zone(row)?,
        overdue_grace: SignedDuration::from_micros(row.overdue_grace),
        overdue_scope: row
            .overdue_scope
            .parse()
            .map_err(|_| nonsense("gyms", "overdue_scope", &row.gym_id))?,
    })
}

/// The club's pauses of a membership.
pub fn pauses(row: &memberships::Model) -> Result<Vec<StoredPause>, StoreError> {
    serde_json::from_str(&row.pauses)
        .map_err(|_| nonsense("memberships", "pauses", &row.membership_id))
}

/// Everybody who holds or pays for a membership.
pub fn people(row: &memberships::Model) -> Result<BTreeSet<MemberId>, StoreError> {
    let mut people: BTreeSet<MemberId> = serde_json::from_str(&row.holders)
        .map_err(|_| nonsense("memberships", "holders", &row.membership_id))?;
    people.extend(row.payer_member_id.as_ref().map(|key| key.0.clone()));
    Ok(people)
}

/// Who pays for a membership.
pub fn payer(row: &memberships::Model) -> Result<Option<MemberId>, StoreError> {
    if let Some(named) = &row.payer_member_id {
        return Ok(Some(named.0.clone()));
    }
    let holders: Vec<MemberId> = serde_json::from_str(&row.holders)
        .map_err(|_| nonsense("memberships", "holders", &row.membership_id))?;
    Ok(holders.into_iter().next())
}

/// Who paid for a membership before and does not any more.
pub fn former_payer(
    before: &memberships::Model,
    after: &memberships::Model,
) -> Result<Option<MemberId>, StoreError> {
    let (before, after) = (payer(before)?, payer(after)?);
    Ok(before.filter(|before| after.as_ref() != Some(before)))
}

/// The overrides of a member.
pub fn overrides(row: &members::Model) -> Result<Vec<StoredOverride>, StoreError> {
    serde_json::from_str(&row.overrides)
        .map_err(|_| nonsense("members", "overrides", &row.member_id))
}

/// The overrides as the domain wants them.
pub fn to_overrides(stored: Vec<StoredOverride>) -> Vec<Override> {
    stored
        .into_iter()
        .filter(|held| held.cleared_until.is_none())
        .map(|held| Override {
            id: held.id,
            kind: held.kind,
            from: held.from,
            until: held.until,
        })
        .collect()
}

/// The decision last made about a member.
pub fn state(row: &members::Model) -> Result<Option<MembershipStatusChanged>, StoreError> {
    row.state
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .map_err(|_| nonsense("members", "state", &row.member_id))
}

/// The membership in a row.
pub fn membership(row: &memberships::Model) -> Result<Membership, StoreError> {
    let bad = |column: &'static str| nonsense("memberships", column, &row.membership_id);
    let date = |column: &'static str, text: &str| wire::date(text).ok_or_else(|| bad(column));
    let optional_date = |column: &'static str, text: &Option<String>| {
        text.as_deref().map(|text| date(column, text)).transpose()
    };
    let next_plan = match (&row.next_plan_id, &row.next_plan_from) {
        (Some(plan), Some(from)) => Some(NextPlan {
            plan: plan.0.clone(),
            from: date("next_plan_from", from)?,
        }),
        _ => None,
    };
    let cancellation = match row.cancelled_at {
        Some(at) => Some(Cancellation {
            ends_on: optional_date("cancel_ends_on", &row.cancel_ends_on)?,
            at: from_micros(at),
        }),
        None => None,
    };
    Ok(Membership {
        id: row.membership_id.0.clone(),
        plan: row.plan_id.0.clone(),
        holders: serde_json::from_str(&row.holders).map_err(|_| bad("holders"))?,
        payer: row.payer_member_id.as_ref().map(|key| key.0.clone()),
        starts_on: date("starts_on", &row.starts_on)?,
        ends_on: optional_date("ends_on", &row.ends_on)?,
        cancellation,
        next_plan,
        pauses: pauses(row)?
            .into_iter()
            .map(|pause| Pause {
                id: pause.id,
                from: pause.from,
                until: pause.until,
                resumed_at: pause.resumed_at,
            })
            .collect(),
        provider_pauses_ended_at: row.provider_pauses_ended_at.map(from_micros),
        current_subscription: row
            .billing_subscription
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|_| bad("billing_subscription"))?,
        // Another table's; read where it matters.
        former_subscriptions: BTreeSet::new(),
    })
}
