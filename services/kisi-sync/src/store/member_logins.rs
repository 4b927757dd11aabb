//! A member's own Kisi login for unlocks from the server: made once, sealed, used again.

use sea_orm::IntoActiveModel;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;

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

/// Keeps a login, unless there is one already of the same Kisi user; answers whether it is kept.
pub async fn keep<C: ConnectionTrait>(db: &C, login: Model) -> Result<bool, DbErr> {
    Entity::delete_many()
        .filter(Column::GymId.eq(&login.gym_id))
        .filter(Column::MemberId.eq(&login.member_id))
        .filter(Column::KisiUserId.ne(login.kisi_user_id))
        .exec(db)
        .await?;
    let first_stays = OnConflict::columns([Column::GymId, Column::MemberId])
        .do_nothing()
        .to_owned();
    let kept = Entity::insert(login.into_active_model().reset_all())
        .on_conflict(first_stays)
        .exec_without_returning(db)
        .await?;
    Ok(kept > 0)
}

/// Kisi knows this login no more. One that was made meanwhile stays.
pub async fn forget<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    member: &str,
    login: i64,
) -> Result<(), DbErr> {
    Entity::delete_many()
        .filter(Column::GymId.eq(gym))
        .filter(Column::MemberId.eq(member))
        .filter(Column::LoginId.eq(login))
        .exec(db)
        .await
        .map(drop)
}
