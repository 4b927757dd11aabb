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
