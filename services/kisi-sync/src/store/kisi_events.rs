//! Kisi events that were acted upon, so that a repeat or a recording played again does nothing.

use sea_orm::ActiveValue;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "kisi_events")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub gym_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub uuid: String,
    pub received_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Whether it was noted.
pub async fn is_known<C: ConnectionTrait>(db: &C, gym: &str, uuid: &str) -> Result<bool, DbErr> {
    let id = (gym.to_owned(), uuid.to_owned());
    let found = Entity::find_by_id(id).one(db).await?;
    Ok(found.is_some())
}

/// Notes it; false when it was noted before.
pub async fn is_new<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    uuid: &str,
    now: i64,
) -> Result<bool, DbErr> {
    let row = ActiveModel {
        gym_id: ActiveValue::Set(gym.to_owned()),
        uuid: ActiveValue::Set(uuid.to_owned()),
        received_at: ActiveValue::Set(now),
    };
    let ignore = OnConflict::columns([Column::GymId, Column::Uuid])
        .do_nothing()
        .to_owned();
    let written = Entity::insert(row)
        .on_conflict(ignore)
        .exec_without_returning(db)
        .await?;
    Ok(written > 0)
}

/// Forgets those of before `line`, which are too old to be acted upon again.
pub async fn forget<C: ConnectionTrait>(db: &C, line: i64) -> Result<(), DbErr> {
    Entity::delete_many()
        .filter(Column::ReceivedAt.lt(line))
        .exec(db)
        .await
        .map(drop)
}
