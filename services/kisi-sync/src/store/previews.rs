//! Previews that were shown: what staff confirm by a preview's digest is the plan that it showed.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveModelTrait, IntoActiveModel};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "previews")]
pub struct Model {
    /// Of everything that was shown.
    #[sea_orm(primary_key, auto_increment = false)]
    pub digest: String,
    pub gym_id: String,
    /// Of the plan alone, which a pass compares with its own.
    pub plan_digest: String,
    pub shown_at: i64,
    /// What it was of, as `integrations.associations` keeps it.
    pub associations: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Keeps it; shown once more, it is as new.
pub async fn put<C: ConnectionTrait>(db: &C, row: Model) -> Result<(), DbErr> {
    let overwrite = OnConflict::column(Column::Digest)
        .update_columns([Column::PlanDigest, Column::ShownAt, Column::Associations])
        .to_owned();
    Entity::insert(row.into_active_model().reset_all())
        .on_conflict(overwrite)
        .exec_without_returning(db)
        .await
        .map(drop)
}

/// The one that was shown to this gym with this digest.
pub async fn find<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    digest: &str,
) -> Result<Option<Model>, DbErr> {
    let found = Entity::find_by_id(digest.to_owned()).one(db).await?;
    Ok(found.filter(|preview| preview.gym_id == gym))
}

/// Forgets those of before `line`.
pub async fn forget<C: ConnectionTrait>(db: &C, line: i64) -> Result<(), DbErr> {
    Entity::delete_many()
        .filter(Column::ShownAt.lt(line))
        .exec(db)
        .await
        .map(drop)
}
