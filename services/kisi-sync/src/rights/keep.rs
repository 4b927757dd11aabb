//! What was read, kept; and what follows from it for what is shown of each member.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{
    ActiveValue, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, TransactionTrait,
};

use super::Reading;
use crate::shared::Shared;
use crate::store::other_rights::{self, readings};
use crate::store::{integrations, members};

/// Replaces what was read before.
pub async fn keep(
    shared: &Shared,
    integration: &integrations::Model,
    groups: &BTreeSet<i64>,
    reading: &Reading,
) -> Result<(), DbErr> {
    let gym = &integration.gym_id;
    let now = shared.now();
    let txn = shared.db.begin().await?;
    other_rights::replace(&txn, gym, reading.rights.clone()).await?;
    let row = readings::Model {
        gym_id: gym.clone(),
        read_at: now,
        groups: serde_json::to_string(groups).unwrap_or_else(|_| "[]".to_owned()),
        complete: reading.complete,
    };
    readings::put(&txn, row).await?;
    settle_members(&txn, integration, now).await?;
    txn.commit().await
}

/// Brings what is shown of each member in line with what is kept. Whoever has another answer now is
/// answered again, which costs no request.
pub async fn settle_members<C: ConnectionTrait>(
    txn: &C,
    integration: &integrations::Model,
    now: i64,
) -> Result<(), DbErr> {
    let gym = &integration.gym_id;
    let associated: BTreeSet<i64> = integration.associations()?.into_values().collect();
    let mut elsewhere: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    for right in other_rights::list(txn, gym).await? {
        // A user's own right on one of our groups is seen, and its end too, by every reconcile.
        if right.is_plain(&associated) {
            continue;
        }
        if let Some(member) = &right.member_id {
            let groups = right.groups()?;
            let opened = elsewhere.entry(member.clone()).or_default();
            opened.extend(groups.intersection(&associated));
        }
    }
    let nothing = BTreeSet::new();
    let mut changed = Vec::new();
    for member in members::list(txn, gym).await? {
        let groups = elsewhere.get(&member.member_id).unwrap_or(&nothing);
        let text = serde_json::to_string(groups).unwrap_or_else(|_| "[]".to_owned());
        if text == member.opened_elsewhere.as_deref().unwrap_or("[]") {
            continue;
        }
        let set = members::ActiveModel {
            opened_elsewhere: ActiveValue::Set(Some(text)),
            ..Default::default()
        };
        members::Entity::update_many()
            .set(set)
            .filter(members::Column::GymId.eq(gym))
            .filter(members::Column::MemberId.eq(&member.member_id))
            .exec(txn)
            .await?;
        changed.push(member.member_id);
    }
    if integration.is_live() && integration.synced {
        let cause = members::Cause::new("reconcile", "other_rights", None);
        members::mark_pending(txn, gym, &changed, &cause, false, now).await?;
    }
    Ok(())
}
