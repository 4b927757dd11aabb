//! Reconcile passes and what came of them.

use sea_orm::entity::prelude::*;

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
