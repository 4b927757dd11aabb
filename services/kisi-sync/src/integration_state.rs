//! Changes of a gym's integration: each grows its version and is told to the others in the same
//! transaction. Never a secret in it.

use contracts::integration::v1 as wire_types;
use contracts::wire;
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QuerySelect,
};

use crate::record;
use crate::store::instant;
use crate::store::integrations::{self, Attention};

/// Reads the row, changes it by `edit`, and, where that changed anything, writes it with the next
/// version and tells. Answers the row as it is then; None when there is no integration.
pub async fn change<C: ConnectionTrait>(
    txn: &C,
    gym: &str,
    now: i64,
    edit: impl FnOnce(&mut integrations::Model) -> Result<(), DbErr> + Send,
) -> Result<Option<integrations::Model>, DbErr> {
    let Some(before) = locked(txn, gym).await? else {
        return Ok(None);
    };
    let mut after = before.clone();
    edit(&mut after)?;
    if after == before {
        return Ok(Some(before));
    }
    after.version = next_version(&before, now);
    after.changed_at = now;
    after
        .clone()
        .into_active_model()
        .reset_all()
        .update(txn)
        .await?;
    record::put(txn, "integration", &changed(&after)?, None, now).await?;
    Ok(Some(after))
}

/// The row, which nobody else changes until the transaction ends.
pub async fn locked<C: ConnectionTrait>(
    txn: &C,
    gym: &str,
) -> Result<Option<integrations::Model>, DbErr> {
    let mut query = integrations::Entity::find_by_id(gym.to_owned());
    if txn.get_database_backend() == sea_orm::DbBackend::Postgres {
        query = query.lock(sea_orm::sea_query::LockType::Update);
    }
    query.one(txn).await
}

/// By the clock, as a member's answers are numbered: so it lies above every version that was told before
/// these tables were restored from a backup.
pub fn next_version(row: &integrations::Model, now: i64) -> i64 {
    Ord::max(now, row.version + 1)
}

/// Adds a matter that needs somebody, once.
pub async fn attend<C: ConnectionTrait>(
    txn: &C,
    gym: &str,
    what: &str,
    subject: &str,
    message: &str,
    who: &str,
    now: i64,
) -> Result<(), DbErr> {
    change(txn, gym, now, |row| {
        let mut attention = row.attention()?;
        if !attention
            .iter()
            .any(|known| known.what == what && known.subject == subject)
        {
            attention.push(Attention {
                what: what.to_owned(),
                subject: subject.to_owned(),
                message: message.to_owned(),
                who: who.to_owned(),
                since: now,
            });
            set_attention(row, &attention);
        }
        Ok(())
    })
    .await
    .map(drop)
}

/// Takes matters away that are settled: those for which `settled` says so.
pub fn settle_attention(
    row: &mut integrations::Model,
    settled: impl Fn(&Attention) -> bool,
) -> Result<(), DbErr> {
    let mut attention = row.attention()?;
    attention.retain(|matter| !settled(matter));
    set_attention(row, &attention);
    Ok(())
}

/// Writes the list of matters.
pub fn set_attention(row: &mut integrations::Model, attention: &[Attention]) {
    row.attention = serde_json::to_string(attention).unwrap_or_else(|_| "[]".to_owned());
}

/// The message that tells the whole state.
pub fn changed(row: &integrations::Model) -> Result<wire_types::IntegrationChanged, DbErr> {
    Ok(wire_types::IntegrationChanged {
        gym_id: row.gym_id.clone(),
        version: row.version,
        state: row.state().to_owned(),
        place_id: row.place_id,
        associations: associations(row)?,
        attention: attention(row)?,
        groups: groups(row)?,
        policies: Some(policies(row)),
        changed_at: Some(wire::timestamp(instant(row.changed_at))),
        last_reconciled_at: row
            .last_reconciled_at
            .map(|at| wire::timestamp(instant(at))),
    })
}

pub fn associations(row: &integrations::Model) -> Result<Vec<wire_types::Association>, DbErr> {
    Ok(row
        .associations()?
        .into_iter()
        .map(|(plan_id, group_id)| wire_types::Association { plan_id, group_id })
        .collect())
}

pub fn attention(row: &integrations::Model) -> Result<Vec<wire_types::Attention>, DbErr> {
    Ok(row
        .attention()?
        .into_iter()
        .map(|matter| wire_types::Attention {
            what: matter.what,
            subject: matter.subject,
            message: matter.message,
            who: matter.who,
            since: Some(wire::timestamp(instant(matter.since))),
        })
        .collect())
}

pub fn groups(row: &integrations::Model) -> Result<Vec<wire_types::GroupDoors>, DbErr> {
    Ok(row
        .groups()?
        .into_iter()
        .map(|group| wire_types::GroupDoors {
            group_id: group.group_id,
            name: group.name,
            doors: group
                .doors
                .into_iter()
                .map(|door| wire_types::GroupDoor {
                    lock_id: door.lock_id,
                    name: door.name,
                    online: door.online,
                })
                .collect(),
        })
        .collect())
}

pub fn policies(row: &integrations::Model) -> wire_types::Policies {
    wire_types::Policies {
        unmanaged: row.unmanaged_policy.clone(),
        member_resume: row.member_resume.clone(),
        user_mode: row.user_mode.clone(),
    }
}
