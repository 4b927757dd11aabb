//! Plans past the brake's line, held for a person.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "held_plans")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub gym_id: String,
    /// Of the members, from when it was sealed.
    pub digest: String,
    /// `explained`, `unexplained` or `grants`.
    pub class: String,
    /// JSON list of words.
    #[sea_orm(column_type = "Text")]
    pub causes: String,
    /// JSON list of the member ids it is about, from when it was sealed.
    #[sea_orm(column_type = "Text")]
    pub members: String,
    pub revokes: i64,
    pub grants: i64,
    /// `held`, `approved`, `discarded` or `expired`.
    pub state: String,
    /// It was shown to somebody: from then on it does not grow.
    pub sealed: bool,
    pub held_at: i64,
    pub expires_at: i64,
    pub decided_by: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
