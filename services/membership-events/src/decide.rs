//! Deciding about members: rows in, the pure decision of `access-domain`, a new version out where
//! something changed.
//!
//! One statement per kind of row, however many members there are. The members are locked first and
//! everything else is read after that, the gym's rules included, so that a decision is never made
//! on rows that another writer has already replaced.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::billing::{BillingState, Fact, Ledger};
use access_domain::entitlement::{MemberFacts, MembershipFacts, entitle, next_version};
use access_domain::gym::GymRules;
use access_domain::ids::{GymId, MemberId, MembershipId};
use access_domain::membership::Membership;
use contracts::billing::v1::BillingEvent;
use contracts::membership::v1::MembershipStatusChanged;
use contracts::wire;
use jiff::Timestamp;
use sea_orm::ConnectionTrait;

use crate::cause::{CauseOf, Causes};
use crate::error::Error;
use crate::rows;
use crate::store::entity::members;
use crate::store::keys::MembershipKey;
use crate::store::{self, StoreError, from_micros};

/// What was decided about one member.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The member.
    pub member: MemberId,
    /// The version held before.
    pub held: i64,
    /// The new state, where anything but its version, time and cause differs.
    pub change: Option<Change>,
}

impl Decision {
    /// The version held after it.
    pub fn version(&self) -> i64 {
        self.change
            .as_ref()
            .map_or(self.held, |change| change.state.version)
    }
}

/// A new state.
#[derive(Debug, Clone)]
pub struct Change {
    /// What is published.
    pub state: MembershipStatusChanged,
    /// The member's next timer.
    pub changes_at: Option<Timestamp>,
    /// When the cause happened.
    pub occurred_at: Timestamp,
    /// The trace it belongs to.
    pub traceparent: Option<String>,
}

/// About whom to decide.
#[derive(Debug, Clone, Copy)]
pub enum Whom<'a> {
    /// These.
    Members(&'a BTreeSet<MemberId>),
    /// Everybody who holds or pays for these.
    PeopleOf(&'a BTreeSet<MembershipId>),
}

/// Locks the members and decides about each that is known and was not erased.
pub async fn decide(
    db: &impl ConnectionTrait,
    gym: &GymId,
    whom: Whom<'_>,
    now: impl Fn() -> Timestamp,
    causes: &Causes,
) -> Result<Vec<Decision>, Error> {
    let people = match whom {
        Whom::Members(ids) => store::members::lock(db, gym, ids).await?,
        Whom::PeopleOf(ids) => store::members::lock_people_of(db, gym, ids).await?,
    };
    decide_about(db, gym, &people, now, causes).await
}

/// As [`decide`], about people whose rows are locked, and as they are now.
pub async fn decide_about(
    db: &impl ConnectionTrait,
    gym: &GymId,
    people: &[members::Model],
    now: impl Fn() -> Timestamp,
    causes: &Causes,
) -> Result<Vec<Decision>, Error> {
    if people.is_empty() {
        return Ok(Vec::new());
    }
    let members = &people.iter().map(|row| row.member_id.0.clone()).collect();
    let (rules, held) = facts_about(db, gym, members).await?;
    if causes.are_billing() {
        ask_to_forget_again(db, gym, people, &held).await?;
    }
    let now = now();
    let mut decisions = Vec::with_capacity(people.len());
    for row in people.iter().filter(|row| !row.erased) {
        let member = row.member_id.0.clone();
        let facts = facts_of(row, &held)?;
        if row.version == 0 && facts.memberships.is_empty() && facts.overrides.is_empty() {
            continue;
        }
        let entitlement = entitle(&facts, &rules, now);
        let due = row.changes_at.map(from_micros);
        let by = causes.of(gym, &facts)?;
        let (occurred_at, cause) = by.told(due, now);
        let version = next_version(row.version, now);
        let state = wire::status_changed(gym, &member, version, &entitlement, &rules, now, cause);
        let before = rows::state(row)?;
        let differs = before.is_none_or(|before| decided(before) != decided(state.clone()));
        decisions.push(Decision {
            member,
            held: row.version,
            change: differs.then_some(Change {
                state,
                changes_at: entitlement.changes_at,
                occurred_at,
                traceparent: by.traceparent(),
            }),
        });
    }
    Ok(decisions)
}

/// What a provider says of somebody who was erased has to be forgotten too.
async fn ask_to_forget_again(
    db: &impl ConnectionTrait,
    gym: &GymId,
    people: &[members::Model],
    held: &[MembershipFacts],
) -> Result<(), StoreError> {
    let erased: Vec<MemberId> = people
        .iter()
        .filter(|row| row.erased)
        .map(|row| row.member_id.0.clone())
        // It is said of the one who pays.
        .filter(|member| {
            held.iter()
                .any(|facts| facts.membership.payer() == Some(member))
        })
        .collect();
    if erased.is_empty() {
        return Ok(());
    }
    store::erasures::reopen(db, gym, &erased).await
}

/// All that decides about one member now.
pub async fn facts(
    db: &impl ConnectionTrait,
    gym: &GymId,
    row: &members::Model,
) -> Result<(MemberFacts, GymRules), Error> {
    let one = BTreeSet::from([row.member_id.0.clone()]);
    let (rules, held) = facts_about(db, gym, &one).await?;
    Ok((facts_of(row, &held)?, rules))
}

/// The gym's rules, and every membership that any of these holds or pays for.
async fn facts_about(
    db: &impl ConnectionTrait,
    gym: &GymId,
    members: &BTreeSet<MemberId>,
) -> Result<(GymRules, Vec<MembershipFacts>), Error> {
    let held = store::memberships::list_held(db, gym, members).await?;
    let its_gym = match held.gym {
        Some(row) => row,
        None => store::gyms::find(db, gym)
            .await?
            .ok_or(Error::Unknown("gym"))?,
    };
    let facts = join_billing(&held.memberships, held.former_subscriptions, held.events)?;
    Ok((rows::rules(&its_gym)?, facts))
}

fn facts_of(row: &members::Model, held: &[MembershipFacts]) -> Result<MemberFacts, StoreError> {
    let member = row.member_id.0.clone();
    Ok(MemberFacts {
        memberships: held
            .iter()
            .filter(|facts| concerns(&facts.membership, &member))
            .cloned()
            .collect(),
        overrides: rows::to_overrides(rows::overrides(row)?),
        member,
    })
}

/// The last decision about a member.
pub fn tombstone(
    gym: &GymId,
    member: &MemberId,
    held: i64,
    now: Timestamp,
    cause: &CauseOf,
) -> Decision {
    let traceparent = cause.traceparent();
    let (occurred_at, cause) = cause.told(None, now);
    let version = next_version(held, now);
    Decision {
        member: member.clone(),
        held,
        change: Some(Change {
            state: wire::erased(gym, member, version, now, cause),
            changes_at: None,
            occurred_at,
            traceparent,
        }),
    }
}

/// A state without what changes when nothing else does.
fn decided(mut state: MembershipStatusChanged) -> MembershipStatusChanged {
    state.version = 0;
    state.decided_at = None;
    state.cause = None;
    state
}

fn concerns(membership: &Membership, member: &MemberId) -> bool {
    membership.is_held_by(member) || membership.payer() == Some(member)
}

/// These memberships, with what billing says of each.
pub(crate) async fn with_billing(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &[store::entity::memberships::Model],
) -> Result<Vec<MembershipFacts>, Error> {
    let without = memberships
        .iter()
        .filter(|row| row.billing_subscription.is_none())
        .map(|row| row.membership_id.0.clone())
        .collect();
    let former = store::memberships::list_former_subscriptions(db, gym, &without).await?;
    let ids = memberships
        .iter()
        .map(|row| row.membership_id.0.clone())
        .collect();
    let events = store::links::list_linked(db, gym, &ids).await?;
    join_billing(memberships, former, events)
}

/// Memberships with their former subscriptions and their events.
fn join_billing(
    memberships: &[store::entity::memberships::Model],
    former: Vec<(MembershipKey, String)>,
    events: Vec<(MembershipKey, String)>,
) -> Result<Vec<MembershipFacts>, Error> {
    let mut memberships = memberships
        .iter()
        .map(rows::membership)
        .collect::<Result<Vec<_>, _>>()?;
    for (id, former) in former {
        let held = memberships.iter_mut().find(|held| held.id == id.0);
        // One that is no id of a subscription is none that a fact could name.
        if let (Some(held), Ok(former)) = (held, former.parse()) {
            held.former_subscriptions.insert(former);
        }
    }
    let mut billing = billing_states(events)?;
    Ok(memberships
        .into_iter()
        .map(|membership| MembershipFacts {
            billing: billing
                .remove(&MembershipKey::from(&membership.id))
                .unwrap_or_default(),
            membership,
        })
        .collect())
}

pub(crate) fn billing_states(
    events: Vec<(MembershipKey, String)>,
) -> Result<BTreeMap<MembershipKey, BillingState>, StoreError> {
    let mut ledgers: BTreeMap<MembershipKey, Ledger> = BTreeMap::new();
    for (membership, json) in events {
        let fact = fact_of(&json).ok_or_else(|| StoreError::Nonsense {
            table: "billing_events",
            column: "event",
            row: format!("linked to {membership}"),
        })?;
        ledgers.entry(membership).or_default().join(fact);
    }
    Ok(ledgers
        .into_iter()
        .map(|(membership, ledger)| (membership, ledger.state()))
        .collect())
}

pub(crate) fn fact_of(json: &str) -> Option<Fact> {
    let event: BillingEvent = serde_json::from_str(json).ok()?;
    wire::fact(&event).ok()
}

/// The held states of these members, as (member, version, JSON); all of those who have one.
pub async fn held(
    db: &impl ConnectionTrait,
    gym: &GymId,
    members: &BTreeSet<MemberId>,
) -> Result<Vec<(MemberId, i64, String)>, Error> {
    let mut held = Vec::new();
    for row in store::members::lock(db, gym, members).await? {
        if let Some(state) = row.state {
            held.push((row.member_id.0, row.version, state));
        }
    }
    Ok(held)
}
