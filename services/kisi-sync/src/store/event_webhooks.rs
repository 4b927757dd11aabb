//! Our event webhook at a gym's Kisi, and the key that its calls are signed with, sealed.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "event_webhooks")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub gym_id: String,
    /// Kisi's id; absent until the answer is known.
    pub integration_id: Option<i64>,
    pub sealed_key: Vec<u8>,
    pub sealing_key_id: String,
    /// Kisi did not allow it.
    pub refused_at: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The gym's.
pub async fn find<C: ConnectionTrait>(db: &C, gym: &str) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(gym.to_owned()).one(db).await
}

/// Another key may be allowed what was refused to the one before.
pub async fn ask_again<C: ConnectionTrait>(db: &C, gym: &str) -> Result<(), DbErr> {
    Entity::update_many()
        .col_expr(Column::RefusedAt, Expr::value(Option::<i64>::None))
        .filter(Column::GymId.eq(gym))
        .exec(db)
        .await
        .map(drop)
}

/// Writes it, new or not.
pub async fn put<C: ConnectionTrait>(db: &C, row: Model) -> Result<(), DbErr> {
    use sea_orm::sea_query::OnConflict;
    use sea_orm::{ActiveModelTrait, IntoActiveModel};
    let overwrite = OnConflict::column(Column::GymId)
        .update_columns([
            Column::IntegrationId,
            Column::SealedKey,
            Column::SealingKeyId,
            Column::RefusedAt,
        ])
        .to_owned();
    Entity::insert(row.into_active_model().reset_all())
        .on_conflict(overwrite)
        .exec_without_returning(db)
        .await
        .map(drop)
}
