//! A member's own Kisi login for unlocks from the server: made once, sealed, used again.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "member_logins")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub gym_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub member_id: String,
    pub kisi_user_id: i64,
    pub login_id: i64,
    pub sealed_secret: Vec<u8>,
    pub sealing_key_id: String,
    pub created_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
