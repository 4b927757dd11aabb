//! The table of what is ours, lost: rebuilt from what was told on `ACCESS`, whose last message of each
//! member names every right of ours.
//!
//! A row that comes of it is believed like any other: the next listing finds it at Kisi, or it is
//! fetched by its id and forgotten.

use std::collections::HashMap;
use std::time::Duration;

use contracts::access::v1::AccessApplied;
use contracts::{subjects, wire};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DbErr, EntityTrait, IntoActiveModel, PaginatorTrait,
    QueryFilter, TransactionTrait,
};
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;
use crate::store::{applied_grants, integrations, members, micros};

/// Longer than any gym's answers take to be read.
const WITHIN: Duration = Duration::from_secs(60);

/// Fills the table where it holds nothing of the gym, in any organization; answers how many rows came
/// of it.
pub async fn rebuild(
    shared: &Shared,
    integration: &integrations::Model,
    epoch: i64,
) -> Result<u64, DbErr> {
    let gym = &integration.gym_id;
    let held = applied_grants::Entity::find()
        .filter(applied_grants::Column::GymId.eq(gym))
        .count(&shared.db)
        .await?;
    if held > 0 {
        return Ok(0);
    }
    let Some(told) = last_told(shared, gym).await else {
        return Ok(0);
    };
    let now = shared.now();
    let mut rows = 0;
    let txn = shared.db.begin().await?;
    for answer in told.values() {
        let Some(user) = answer.kisi_user_id else {
            continue;
        };
        keep_member(&txn, answer, user).await?;
        for grant in &answer.grants {
            let at = |at: &Option<pbjson_types::Timestamp>| {
                at.as_ref().and_then(wire::instant).map(micros)
            };
            let row = applied_grants::Model {
                id: 0,
                organization_id: integration.organization(),
                gym_id: gym.clone(),
                member_id: answer.member_id.clone(),
                group_id: grant.group_id,
                kisi_user_id: user,
                assignment_id: Some(grant.assignment_id),
                state: applied_grants::STANDING.to_owned(),
                epoch,
                valid_from: at(&grant.valid_from),
                valid_until: at(&grant.valid_until),
                intended_at: now,
                updated_at: now,
            };
            applied_grants::insert(&txn, row).await?;
            rows += 1;
        }
    }
    txn.commit().await?;
    if rows > 0 {
        tracing::warn!(gym.id = %gym, grants.rebuilt = rows,
            "The table of what is ours held nothing of gym {gym}: {rows} rows are rebuilt from ACCESS");
    }
    Ok(rows)
}

/// Who the member is at Kisi, and the number of the last answer, where the tables know less.
async fn keep_member(
    txn: &sea_orm::DatabaseTransaction,
    answer: &AccessApplied,
    user: i64,
) -> Result<(), DbErr> {
    let held = members::find_for_update(txn, &answer.gym_id, &answer.member_id).await?;
    let is_known = held.is_some();
    let mut member =
        held.unwrap_or_else(|| members::Model::unheard_of(&answer.gym_id, &answer.member_id));
    member.applied_seq = member.applied_seq.max(answer.applied_seq);
    if member.kisi_user_id.is_none() {
        member.kisi_user_id = Some(user);
        member.kisi_user_ours = answer.kisi_user_ours;
    }
    let row = member.into_active_model().reset_all();
    if is_known {
        row.update(txn).await.map(drop)
    } else {
        members::Entity::insert(row)
            .exec_without_returning(txn)
            .await
            .map(drop)
    }
}

/// The last answer of each member of the gym; None when the bus does not tell all of them.
async fn last_told(shared: &Shared, gym: &str) -> Option<HashMap<String, AccessApplied>> {
    let projection = shared.bus.projection("ACCESS", &subjects::access(gym, "*"));
    let mut status = projection.status();
    let stop = CancellationToken::new();
    let _stops = stop.clone().drop_guard();
    let mut told = HashMap::new();
    let reading = projection.run(
        |entry| {
            if let Ok(answer) = entry.parse::<AccessApplied>() {
                told.insert(answer.member_id.clone(), answer);
            }
        },
        stop,
    );
    let caught_up = tokio::time::timeout(WITHIN, async {
        status.wait_for(|status| status.caught_up).await.is_ok()
    });
    let whole = tokio::select! {
        _ = reading => false,
        caught_up = caught_up => caught_up.unwrap_or(false),
    };
    whole.then_some(told)
}
