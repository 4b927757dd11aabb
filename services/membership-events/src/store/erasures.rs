//! Who is to be forgotten, and how far that is: what stays of it is this row, without a name.

use access_domain::ids::{GymId, MemberId};
use jiff::Timestamp;
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect, Set,
};

use super::entity::erasures;
use super::{Step, StoreError, micros};

/// Keeps that a member is to be forgotten once the doors have answered `version`.
pub async fn insert(
    db: &impl ConnectionTrait,
    gym: &GymId,
    member: &MemberId,
    version: i64,
    requested_at: Timestamp,
    requested_by: &str,
) -> Result<(), StoreError> {
    let row = erasures::ActiveModel {
        gym_id: Set(gym.into()),
        member_id: Set(member.into()),
        version: Set(version),
        requested_at: Set(micros(requested_at)),
        requested_by: Set(requested_by.to_owned()),
        answered_at: Set(None),
        purged_at: Set(None),
    };
    erasures::Entity::insert(row)
        .on_conflict(
            OnConflict::columns([erasures::Column::GymId, erasures::Column::MemberId])
                .do_nothing()
                .to_owned(),
        )
        .exec_without_returning(db)
        .await
        .step("keeping an erasure")
        .map(drop)
}

/// Erasures that are not done, the longest waiting first.
pub async fn list_open(
    db: &impl ConnectionTrait,
    limit: u64,
) -> Result<Vec<erasures::Model>, StoreError> {
    erasures::Entity::find()
        .filter(erasures::Column::PurgedAt.is_null())
        .order_by_asc(erasures::Column::RequestedAt)
        .limit(limit)
        .all(db)
        .await
        .step("listing erasures")
}

/// How many are not done.
pub async fn count_open(db: &impl ConnectionTrait) -> Result<u64, StoreError> {
    erasures::Entity::find()
        .filter(erasures::Column::PurgedAt.is_null())
        .count(db)
        .await
        .step("counting erasures")
}

/// Keeps when the doors answered.
pub async fn set_answered(
    db: &impl ConnectionTrait,
    row: &erasures::Model,
    at: Timestamp,
) -> Result<(), StoreError> {
    set(db, row, erasures::Column::AnsweredAt, at).await
}

/// Opens the erasures of these members again, where they were done: more was said of them.
pub async fn reopen(
    db: &impl ConnectionTrait,
    gym: &GymId,
    members: &[MemberId],
) -> Result<(), StoreError> {
    erasures::Entity::update_many()
        .filter(erasures::Column::GymId.eq(gym.as_str()))
        .filter(erasures::Column::MemberId.is_in(members.iter().map(MemberId::as_str)))
        .col_expr(erasures::Column::PurgedAt, Expr::value(None::<i64>))
        .exec(db)
        .await
        .step("opening an erasure again")
        .map(drop)
}

/// Keeps when everything was gone.
pub async fn set_purged(
    db: &impl ConnectionTrait,
    row: &erasures::Model,
    at: Timestamp,
) -> Result<(), StoreError> {
    set(db, row, erasures::Column::PurgedAt, at).await
}

async fn set(
    db: &impl ConnectionTrait,
    row: &erasures::Model,
    column: erasures::Column,
    at: Timestamp,
) -> Result<(), StoreError> {
    erasures::Entity::update_many()
        .filter(erasures::Column::GymId.eq(row.gym_id.clone()))
        .filter(erasures::Column::MemberId.eq(row.member_id.clone()))
        .filter(column.is_null())
        .col_expr(column, Expr::value(micros(at)))
        .exec(db)
        .await
        .step("going on with an erasure")
        .map(drop)
}
