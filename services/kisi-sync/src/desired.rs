//! What membership-events decided, stored: one short transaction that also writes the intent.
//!
//! After its commit nothing is lost by a kill: the member is `pending`, and rows about to be
//! granted stand as `intended`. The same transaction answers a version that was overtaken before
//! it could be settled, so that every version is answered.

use std::collections::BTreeSet;

use access_domain::ids::GymId;
use contracts::membership::v1::MembershipStatusChanged;
use contracts::wire;
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, TransactionTrait,
};

use crate::apply::new_row;
use crate::held;
use crate::hints;
use crate::record::{self, Outcome};
use crate::shared::Shared;
use crate::sharing;
use crate::snapshot::Snapshot;
use crate::steps::{self, Step};
use crate::store::members::{self, WantedPlan};
use crate::store::{applied_grants, integrations, micros};
use crate::worker::Urgency;

/// A member's state as it came, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    pub gym: String,
    pub member: String,
    pub version: i64,
    pub plans: Vec<WantedPlan>,
    pub erased: bool,
    pub cause_kind: String,
    pub cause_id: String,
    pub cause_actor: Option<String>,
    pub received_at: Option<i64>,
    pub decided_at: Option<i64>,
    pub traceparent: Option<String>,
}

impl Desired {
    /// Reads the message; the error names the field that makes no sense.
    pub fn parse(
        message: &MembershipStatusChanged,
        traceparent: Option<String>,
    ) -> Result<Self, &'static str> {
        let instant =
            |at: &Option<pbjson_types::Timestamp>| at.as_ref().and_then(wire::instant).map(micros);
        if !is_id(&message.gym_id) {
            return Err("gym_id");
        }
        if !is_id(&message.member_id) {
            return Err("member_id");
        }
        if message.version <= 0 {
            return Err("version");
        }
        let mut plans = Vec::new();
        for plan in &message.plans {
            if !is_id(&plan.plan_id) {
                return Err("plans.plan_id");
            }
            plans.push(WantedPlan {
                plan_id: plan.plan_id.clone(),
                from: instant(&plan.valid_from),
                until: instant(&plan.valid_until),
            });
        }
        let cause = message.cause.clone().unwrap_or_default();
        Ok(Self {
            gym: message.gym_id.clone(),
            member: message.member_id.clone(),
            version: message.version,
            plans: if message.allowed { plans } else { Vec::new() },
            erased: message.erased,
            cause_kind: cause.kind,
            cause_id: cause.id,
            cause_actor: Some(cause.actor).filter(|actor| !actor.is_empty()),
            received_at: instant(&cause.received_at),
            decided_at: instant(&message.decided_at),
            traceparent,
        })
    }
}

/// An opaque id of Gymflow's.
pub fn is_id(text: &str) -> bool {
    GymId::parse(text).is_ok()
}

/// What became of it.
#[derive(Debug)]
pub enum Stored {
    /// Not newer than what is held.
    Stale,
    /// Durable, and nothing is to be done at Kisi.
    Answered,
    /// Durable, with work for the gym's owner. The snapshot is as committed.
    Intent(Box<Snapshot>, Urgency),
}

/// Stores it if it is newer. When this answers, it is durable.
pub async fn store(shared: &Shared, desired: &Desired) -> Result<Stored, DbErr> {
    let now = shared.now();
    let txn = shared.db.begin().await?;
    let held = members::find_for_update(&txn, &desired.gym, &desired.member).await?;
    let known = held.is_some();
    let mut member =
        held.unwrap_or_else(|| members::Model::unheard_of(&desired.gym, &desired.member));
    if member.version >= desired.version {
        txn.commit().await?;
        return Ok(Stored::Stale);
    }
    let integration = integrations::find(&txn, &desired.gym).await?;
    let organization = integration
        .as_ref()
        .map_or(0, integrations::Model::organization);
    let ours = applied_grants::of_member(&txn, organization, &desired.gym, &desired.member).await?;
    // By itself the new version explains no loss, nor is one of the version before under way.
    let explains = !keeps_plans(&member, desired) || (member.pending && member.is_explained());
    answer_overtaken(&txn, &mut member, &ours.rows, now).await?;
    take_over(&mut member, desired, now);

    let works = integration
        .as_ref()
        .is_some_and(|row| row.enabled && row.activated);
    member.pending = works;
    let Some(integration) = integration.filter(|_| works) else {
        answer_not_set_up(&txn, &mut member, &ours.rows, now).await?;
        save(&txn, member, known).await?;
        txn.commit().await?;
        shared.outbox.notify_one();
        return Ok(Stored::Answered);
    };
    if !explains && loses(&member, &integration, &ours.rows, now)? {
        // A changed mapping takes it from her, whose pass has not come to her yet.
        member.background = true;
    }
    let others = sharing::wanted_by(&txn, &ours.others, now).await?;
    let mut snapshot = Snapshot {
        integration: integration.into(),
        member: save(&txn, member, known).await?,
        rows: ours.rows,
        shared: others,
        keeps_former: false,
        read_at: now,
    };
    let urgency = Urgency::of_change(snapshot.closes(now)?);
    match shared.leases.held(&snapshot.integration.lease_key) {
        Some(lease) => intend(&txn, &mut snapshot, lease.epoch(), now).await?,
        None => hints::give(&txn, &desired.gym, &desired.member, urgency).await?,
    }
    txn.commit().await?;
    Ok(Stored::Intent(Box::new(snapshot), urgency))
}

fn take_over(member: &mut members::Model, desired: &Desired, now: i64) {
    // A fact about this very member explains what follows. That she has the plans that she had is none:
    // what a mapping would take from her stays held.
    if !keeps_plans(member, desired) || held::holds_grants(member.held_by.as_deref()) {
        member.held_by = None;
    }
    member.version = desired.version;
    member.plans = serde_json::to_string(&desired.plans).unwrap_or_else(|_| "[]".to_owned());
    member.erased = desired.erased;
    member.cause_kind.clone_from(&desired.cause_kind);
    member.cause_id.clone_from(&desired.cause_id);
    member.cause_actor.clone_from(&desired.cause_actor);
    member.look_cause = member.look_besides();
    member.received_at = desired.received_at;
    member.decided_at = desired.decided_at;
    member.traceparent.clone_from(&desired.traceparent);
    member.background = false;
    // What a person confirmed was about what was decided before.
    member.approved = false;
    member.retry_at = None;
    member.updated_at = now;
}

/// The member had these very plans before.
fn keeps_plans(member: &members::Model, desired: &Desired) -> bool {
    let before = member.plans().unwrap_or_default();
    let ids = |plans: &[WantedPlan]| -> BTreeSet<String> {
        plans.iter().map(|plan| plan.plan_id.clone()).collect()
    };
    !desired.erased && !desired.plans.is_empty() && ids(&before) == ids(&desired.plans)
}

/// Something of ours stands, and opens something, that the member's plans do not open.
fn loses(
    member: &members::Model,
    integration: &integrations::Model,
    rows: &[applied_grants::Model],
    now: i64,
) -> Result<bool, DbErr> {
    let wanted = steps::wanted(&member.plans()?, &integration.associations()?, now);
    let mut standing = rows
        .iter()
        .filter(|row| row.state == applied_grants::STANDING);
    Ok(standing
        .any(|row| !wanted.contains_key(&row.group_id) && !steps::row_window(row).has_ended(now)))
}

/// The rows that are about to be granted, where nothing has to be found out first.
async fn intend<C: ConnectionTrait>(
    txn: &C,
    snapshot: &mut Snapshot,
    epoch: i64,
    now: i64,
) -> Result<(), DbErr> {
    if !snapshot.integration.is_live() {
        return Ok(());
    }
    let wanted = snapshot.wanted(now)?;
    let others = snapshot.member.opened_by_others()?;
    let refused = Default::default();
    let step = snapshot
        .situation(&wanted, &others, &refused, epoch, now)
        .next_step();
    let (Some(Step::Intend(groups)), Some(user)) = (step, snapshot.member.kisi_user_id) else {
        return Ok(());
    };
    for (group, window) in groups {
        let row = new_row(snapshot, group, window, user, epoch, now);
        let row = applied_grants::insert(txn, row).await?;
        snapshot.rows.push(row);
    }
    Ok(())
}

/// A version that nobody got to answer: it changed nothing by itself.
async fn answer_overtaken<C: ConnectionTrait>(
    txn: &C,
    member: &mut members::Model,
    rows: &[applied_grants::Model],
    now: i64,
) -> Result<(), DbErr> {
    if member.version == 0 || member.answered_version >= member.version {
        return Ok(());
    }
    member.applied_seq = member.next_seq(now);
    member.answered_version = member.version;
    let outcome = Outcome {
        groups_before: rows.iter().map(|row| row.group_id).collect(),
        ..Outcome::default()
    };
    let message = record::applied_of(member, rows, &outcome, now);
    record::tell(txn, &message, member.traceparent.clone(), now).await
}

/// The gym is not set up: the state is kept for a first sync, and the answer says so.
async fn answer_not_set_up<C: ConnectionTrait>(
    txn: &C,
    member: &mut members::Model,
    rows: &[applied_grants::Model],
    now: i64,
) -> Result<(), DbErr> {
    member.applied_seq = member.next_seq(now);
    member.answered_version = member.version;
    member.failure = Some("not_set_up".to_owned());
    let outcome = Outcome {
        failure: Some("not_set_up"),
        // Without a key there is nothing more that could be taken back.
        erased: member.erased,
        groups_before: rows.iter().map(|row| row.group_id).collect(),
        ..Outcome::default()
    };
    let message = record::applied_of(member, rows, &outcome, now);
    record::tell(txn, &message, member.traceparent.clone(), now).await
}

async fn save<C: ConnectionTrait>(
    txn: &C,
    member: members::Model,
    known: bool,
) -> Result<members::Model, DbErr> {
    if known {
        members::put_version(txn, &member).await?;
    } else {
        let row = member.clone().into_active_model().reset_all();
        members::Entity::insert(row)
            .exec_without_returning(txn)
            .await?;
    }
    Ok(member)
}
