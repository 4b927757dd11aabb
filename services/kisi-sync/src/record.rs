//! Writing down what came of a step, and the answer when a member is settled.
//!
//! A member's last change and its `AccessApplied` are one transaction: either both are durable or
//! neither is, and then the member is looked at again.

use contracts::access::v1::{AccessApplied, AppliedGrant, Timings};
use contracts::wire;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait,
    IntoActiveModel, QueryFilter, TransactionTrait,
};

use crate::audit::{self, Entry};
use crate::ownership::LeaseProof;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::store::{applied_grants, instant, losses, members, outbox};

/// A change of the tables that an answer of Kisi brought.
#[derive(Debug, Clone)]
pub enum Change {
    /// The row as it is now.
    Row(applied_grants::Model),
    RemoveRow(i64),
    /// Who the person is at Kisi: user, ours, looked, opened by others, conflict.
    Person,
    /// The member lost a last right for a group, or may have.
    Lost {
        class: &'static str,
    },
    /// For the audit log.
    Did(Box<Entry>),
}

/// How a member was left, for the answer.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub granted: u32,
    pub revoked: u32,
    pub windows: u32,
    pub duplicates: u32,
    pub requests: i32,
    pub sent_at: Option<i64>,
    pub groups_before: Vec<i64>,
    pub groups_missing: Vec<i64>,
    pub held: bool,
    pub erased: bool,
    pub failure: Option<&'static str>,
    pub kisi_code: Option<String>,
    /// More may come of it by itself: the intent stays.
    pub stays_pending: bool,
    /// Not before this instant.
    pub retry_at: Option<i64>,
}

impl Outcome {
    /// Tried again then, where it is not before.
    pub fn stays_pending_until(&mut self, at: i64) {
        let is_sooner = self.retry_at.is_none_or(|known| known <= at);
        if !(self.stays_pending && is_sooner) {
            self.stays_pending = true;
            self.retry_at = Some(at);
        }
    }

    /// The word of `AccessApplied.outcome`.
    pub fn word(&self) -> &'static str {
        let quiet = ["brake", "not_set_up", "no_association"];
        if self.erased {
            "erased"
        } else if self
            .failure
            .is_some_and(|failure| !quiet.contains(&failure))
        {
            "failed"
        } else if self.held {
            "held"
        } else if self.granted > 0 {
            "granted"
        } else if self.revoked > 0 {
            "revoked"
        } else {
            "unchanged"
        }
    }
}

/// Makes the changes durable.
pub async fn write<C: ConnectionTrait>(
    db: &C,
    snapshot: &Snapshot,
    changes: &[Change],
    now: i64,
) -> Result<(), DbErr> {
    for change in changes {
        match change {
            Change::Row(row) => {
                let mut row = row.clone();
                row.updated_at = now;
                row.into_active_model().reset_all().update(db).await?;
            }
            Change::RemoveRow(id) => {
                applied_grants::Entity::delete_by_id(*id).exec(db).await?;
            }
            Change::Person => {
                let member = &snapshot.member;
                let person = members::ActiveModel {
                    kisi_user_id: ActiveValue::Set(member.kisi_user_id),
                    kisi_user_ours: ActiveValue::Set(member.kisi_user_ours),
                    person_digest: ActiveValue::Set(member.person_digest.clone()),
                    sign_up_needed: ActiveValue::Set(member.sign_up_needed),
                    former_user_id: ActiveValue::Set(member.former_user_id),
                    former_users: ActiveValue::Set(member.former_users.clone()),
                    conflict: ActiveValue::Set(member.conflict.clone()),
                    ..Default::default()
                };
                // Where somebody has asked for another look meanwhile, what this one saw is not the last.
                let is_last = Condition::all().add_option(match &member.look_cause {
                    Some(cause) => Some(members::Column::LookCause.eq(cause)),
                    None => Some(members::Column::LookCause.is_null()),
                });
                let seen =
                    |this: Expr, nothing: Expr| Expr::case(is_last.clone(), this).finally(nothing);
                let looked = seen(Expr::value(member.looked), Expr::value(false));
                let others = member.opened_by_others.as_str();
                let others = seen(Expr::value(others), Expr::value("[]"));
                members::Entity::update_many()
                    .set(person)
                    .col_expr(members::Column::Looked, looked.into())
                    .col_expr(members::Column::OpenedByOthers, others.into())
                    .filter(members::Column::GymId.eq(&member.gym_id))
                    .filter(members::Column::MemberId.eq(&member.member_id))
                    .exec(db)
                    .await?;
            }
            Change::Lost { class } => {
                let loss = losses::ActiveModel {
                    id: ActiveValue::NotSet,
                    gym_id: ActiveValue::Set(snapshot.member.gym_id.clone()),
                    member_id: ActiveValue::Set(snapshot.member.member_id.clone()),
                    class: ActiveValue::Set((*class).to_owned()),
                    lost_at: ActiveValue::Set(now),
                };
                losses::Entity::insert(loss)
                    .exec_without_returning(db)
                    .await?;
            }
            // At the end of the transaction, by [`log`].
            Change::Did(_) => {}
        }
    }
    Ok(())
}

/// Appends what was done, and this besides, to the gym's audit log.
pub async fn log<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    changes: &[Change],
    more: Option<Entry>,
    now: i64,
) -> Result<(), DbErr> {
    let done = changes.iter().filter_map(|change| match change {
        Change::Did(entry) => Some((**entry).clone()),
        _ => None,
    });
    let entries: Vec<Entry> = done.chain(more).collect();
    audit::append(db, gym, &entries, now).await
}

/// What is worth a row without a request: that nothing was done, and why.
fn left_undone(member: &members::Model, outcome: &Outcome) -> Option<Entry> {
    let word = outcome.word();
    matches!(word, "held" | "failed").then(|| {
        let entry = Entry::new(word).of(member);
        entry.detail(outcome.failure.unwrap_or_default())
    })
}

/// The last changes, the member's state and the answer, in one transaction; when a newer version has
/// come meanwhile, the intent stays. Answers false, and writes nothing, when others have the lease.
pub async fn settle(
    shared: &Shared,
    lease: &LeaseProof,
    snapshot: &mut Snapshot,
    changes: &[Change],
    outcome: &Outcome,
) -> Result<bool, DbErr> {
    let now = shared.now();
    let (gym, id) = (
        snapshot.member.gym_id.clone(),
        snapshot.member.member_id.clone(),
    );
    let version = snapshot.member.version;
    let txn = shared.db.begin().await?;
    if !lease.keep(&txn).await? {
        return Ok(false);
    }
    write(&txn, snapshot, changes, now).await?;
    let Some(held) = members::find_for_update(&txn, &gym, &id).await? else {
        log(&txn, &gym, changes, None, now).await?;
        txn.commit().await?;
        return Ok(true);
    };
    // Somebody asked for another look meanwhile: it is not answered by this one.
    let asked_again = held.look_cause != snapshot.member.look_cause;
    // Or found more for her to do, which this one may not have seen.
    let is_marked = held.retry_at != snapshot.member.retry_at;
    let newest = held.version == version && !asked_again && !is_marked;
    let told = held.answered_version >= version
        // Whoever rebuilds the table of what is ours needs each row that came, went or took another's
        // place, whatever else was refused.
        && outcome.granted + outcome.revoked + outcome.windows + outcome.duplicates == 0
        && held.failure.as_deref() == outcome.failure
        && held.held_by.is_some() == outcome.held
        && !snapshot.member.others_changed();
    let mut member = members::ActiveModel {
        ..Default::default()
    };
    if !told {
        snapshot.member.applied_seq = held.next_seq(now);
        snapshot.member.answered_version = held.answered_version.max(version);
        member.applied_seq = ActiveValue::Set(snapshot.member.applied_seq);
        member.answered_version = ActiveValue::Set(snapshot.member.answered_version);
        member.others_told = ActiveValue::Set(Some(snapshot.member.told()));
        let message = applied(snapshot, outcome, now);
        tell(&txn, &message, snapshot.member.traceparent.clone(), now).await?;
    }
    member.failure = ActiveValue::Set(outcome.failure.map(str::to_owned));
    member.kisi_code = ActiveValue::Set(outcome.kisi_code.clone());
    if newest {
        member.pending = ActiveValue::Set(outcome.stays_pending);
        member.retry_at = ActiveValue::Set(outcome.retry_at);
        member.approved = ActiveValue::Set(outcome.stays_pending && held.approved);
        member.background = ActiveValue::Set(outcome.stays_pending && held.background);
        if !outcome.stays_pending {
            member.look_cause = ActiveValue::Set(None);
        }
        if outcome.erased {
            member.kisi_user_id = ActiveValue::Set(None);
            member.looked = ActiveValue::Set(false);
        }
    }
    if asked_again {
        member.looked = ActiveValue::Set(false);
        if held.version == version && !outcome.stays_pending {
            // What it was asked for besides is done.
            member.look_cause = ActiveValue::Set(held.look_alone());
        }
    }
    members::Entity::update_many()
        .set(member)
        .filter(members::Column::GymId.eq(&gym))
        .filter(members::Column::MemberId.eq(&id))
        .exec(&txn)
        .await?;
    let undone = left_undone(&snapshot.member, outcome).filter(|_| !told);
    log(&txn, &gym, changes, undone, now).await?;
    txn.commit().await?;
    if !told {
        shared.outbox.notify_one();
    }
    Ok(true)
}

/// The message of an outcome, with the member's whole applied state.
pub fn applied(snapshot: &Snapshot, outcome: &Outcome, now: i64) -> AccessApplied {
    applied_of(&snapshot.member, &snapshot.rows, outcome, now)
}

/// The same from the parts.
pub fn applied_of(
    member: &members::Model,
    rows: &[applied_grants::Model],
    outcome: &Outcome,
    now: i64,
) -> AccessApplied {
    let at = |micros: i64| wire::timestamp(instant(micros));
    let grants = rows
        .iter()
        .filter_map(|row| {
            Some(AppliedGrant {
                group_id: row.group_id,
                assignment_id: row.assignment_id?,
                valid_from: row.valid_from.map(at),
                valid_until: row.valid_until.map(at),
            })
        })
        .collect();
    AccessApplied {
        gym_id: member.gym_id.clone(),
        member_id: member.member_id.clone(),
        version: member.version,
        applied_seq: member.applied_seq,
        outcome: outcome.word().to_owned(),
        groups_before: outcome.groups_before.clone(),
        grants,
        kisi_user_id: member.kisi_user_id,
        kisi_user_ours: member.kisi_user_ours,
        groups_missing: outcome.groups_missing.clone(),
        failure: outcome.failure.map(str::to_owned),
        kisi_code: outcome.kisi_code.clone(),
        groups_opened_by_others: member.opened_by_others().unwrap_or_default(),
        sign_up_needed: member.sign_up_needed,
        groups_opened_elsewhere: member.opened_elsewhere().unwrap_or_default(),
        timings: Some(Timings {
            received_at: member.received_at.map(at),
            decided_at: member.decided_at.map(at),
            sent_at: outcome.sent_at.map(at),
            applied_at: Some(at(now)),
            requests: outcome.requests,
        }),
    }
}

/// A row of the outbox.
pub async fn tell<C: ConnectionTrait>(
    db: &C,
    message: &AccessApplied,
    traceparent: Option<String>,
    now: i64,
) -> Result<(), DbErr> {
    put(db, "access", message, traceparent, now).await
}

/// A row of the outbox, for any message.
pub async fn put<C: ConnectionTrait, M: serde::Serialize>(
    db: &C,
    kind: &str,
    message: &M,
    traceparent: Option<String>,
    now: i64,
) -> Result<(), DbErr> {
    let body = serde_json::to_string(message)
        .map_err(|_| DbErr::Custom(format!("a message for {kind} has no JSON form")))?;
    let row = outbox::ActiveModel {
        id: ActiveValue::NotSet,
        kind: ActiveValue::Set(kind.to_owned()),
        body: ActiveValue::Set(body),
        traceparent: ActiveValue::Set(traceparent),
        created_at: ActiveValue::Set(now),
    };
    outbox::Entity::insert(row)
        .exec_without_returning(db)
        .await
        .map(drop)
}
