//! Reconcile passes and what came of them.

use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "syncs")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub sync_id: String,
    pub gym_id: String,
    /// `queued`, `running`, `done`, `done_with_failures`, `held` or `failed`.
    pub state: String,
    /// `schedule`, `staff`, `first`, `associations` or `key`.
    pub activation: String,
    /// The digest that staff confirmed, if any.
    pub digest: Option<String>,
    pub created_at: i64,
    pub started_at: Option<i64>,
    pub ended_at: Option<i64>,
    /// JSON of the proto message SyncReport.
    #[sea_orm(column_type = "Text")]
    pub report: String,
    pub in_sync: bool,
    /// Who asked for it; absent for the schedule.
    pub actor: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Passes that are looked back at.
const LOOKED_BACK_AT: u64 = 20;

/// The gym's last passes that failed with none in between that did not, the newest first.
async fn failed_last<C: ConnectionTrait>(db: &C, gym: &str) -> Result<Vec<Model>, DbErr> {
    let mut ended = Entity::find()
        .filter(Column::GymId.eq(gym))
        .filter(Column::EndedAt.is_not_null())
        .order_by_desc(Column::CreatedAt)
        .limit(LOOKED_BACK_AT)
        .all(db)
        .await?;
    let failed = ended.iter().take_while(|pass| pass.state == "failed");
    ended.truncate(failed.count());
    Ok(ended)
}

/// Whether a pass for a changed mapping has failed, and none has been carried through since. A first one
/// owes nothing to what was before it.
pub async fn owe_mapping<C: ConnectionTrait>(db: &C, gym: &str) -> Result<bool, DbErr> {
    let failed = failed_last(db, gym).await?;
    let mut since = failed.iter().take_while(|pass| pass.activation != "first");
    Ok(since.any(|pass| pass.activation == "associations"))
}

/// Whether the gym's last pass failed.
pub async fn has_failed_last<C: ConnectionTrait>(db: &C, gym: &str) -> Result<bool, DbErr> {
    Ok(!failed_last(db, gym).await?.is_empty())
}

/// Since when every pass has failed for this reason; None where the last one has not.
pub async fn failing_since<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    why: &str,
) -> Result<Option<i64>, DbErr> {
    let failed = failed_last(db, gym).await?;
    let alike = failed.iter().take_while(|pass| pass.report.contains(why));
    Ok(alike.filter_map(|pass| pass.ended_at).last())
}
