//! Members who lost their last right for a group, for the brake's counts.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "losses")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub gym_id: String,
    pub member_id: String,
    /// `explained` or `unexplained`.
    pub class: String,
    pub lost_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Distinct members who lost access in one class since an instant.
pub async fn count_since<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    class: &str,
    since: i64,
) -> Result<u64, DbErr> {
    use sea_orm::{PaginatorTrait, QuerySelect};
    Entity::find()
        .select_only()
        .column(Column::MemberId)
        .filter(Column::GymId.eq(gym))
        .filter(Column::Class.eq(class))
        .filter(Column::LostAt.gte(since))
        .distinct()
        .count(db)
        .await
}
