//! A member's phones: the Kisi login that each was enrolled with, and what it is called. Never its
//! secret.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{QueryOrder, QuerySelect, Statement};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "devices")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub gym_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub member_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub login_id: i64,
    pub kisi_user_id: i64,
    #[sea_orm(column_type = "Text")]
    pub brand: String,
    #[sea_orm(column_type = "Text")]
    pub model: String,
    #[sea_orm(column_type = "Text")]
    pub os_name: String,
    pub is_primary: bool,
    pub enrolled_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// A member's phones, the one enrolled first first.
pub async fn list<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    member: &str,
) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::GymId.eq(gym))
        .filter(Column::MemberId.eq(member))
        .order_by_asc(Column::EnrolledAt)
        .order_by_asc(Column::LoginId)
        .all(db)
        .await
}

/// Their logins.
pub async fn logins<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    member: &str,
) -> Result<Vec<i64>, DbErr> {
    Entity::find()
        .select_only()
        .column(Column::LoginId)
        .filter(Column::GymId.eq(gym))
        .filter(Column::MemberId.eq(member))
        .into_tuple()
        .all(db)
        .await
}

/// One login is gone at Kisi.
pub async fn remove<C: ConnectionTrait>(db: &C, gym: &str, login: i64) -> Result<bool, DbErr> {
    let removed = Entity::delete_many()
        .filter(Column::GymId.eq(gym))
        .filter(Column::LoginId.eq(login))
        .exec(db)
        .await?;
    Ok(removed.rows_affected > 0)
}

/// A Kisi user is gone, and the phones with it.
pub async fn remove_of_user<C: ConnectionTrait>(db: &C, user: i64) -> Result<(), DbErr> {
    Entity::delete_many()
        .filter(Column::KisiUserId.eq(user))
        .exec(db)
        .await
        .map(drop)
}

/// Nothing of the member's phones is kept.
pub async fn remove_all<C: ConnectionTrait>(db: &C, gym: &str, member: &str) -> Result<(), DbErr> {
    Entity::delete_many()
        .filter(Column::GymId.eq(gym))
        .filter(Column::MemberId.eq(member))
        .exec(db)
        .await
        .map(drop)
}

/// One of a Kisi user's phones is the primary one, and no other is, whichever gym enrolled it.
pub async fn set_primary<C: ConnectionTrait>(db: &C, user: i64, login: i64) -> Result<(), DbErr> {
    Entity::update_many()
        .col_expr(Column::IsPrimary, Expr::col(Column::LoginId).eq(login))
        .filter(Column::KisiUserId.eq(user))
        .exec(db)
        .await
        .map(drop)
}

/// Logins that other gyms of the organization made for the same Kisi user.
pub async fn elsewhere<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    user: i64,
) -> Result<Vec<i64>, DbErr> {
    let sql = "select login_id from devices where kisi_user_id = $1 and gym_id <> $2
        union select login_id from member_logins where kisi_user_id = $1 and gym_id <> $2";
    let values = [user.into(), gym.into()];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let rows = db.query_all_raw(statement).await?;
    rows.iter().map(|row| row.try_get("", "login_id")).collect()
}
