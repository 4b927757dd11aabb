//! Members who asked to be resumed.

use access_domain::ids::{GymId, MemberId, MembershipId};
use jiff::Timestamp;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, Set};

use super::entity::resume_requests;
use super::{Step, StoreError, micros};

/// The member's open request.
pub async fn find_open(
    db: &impl ConnectionTrait,
    gym: &GymId,
    member: &MemberId,
) -> Result<Option<resume_requests::Model>, StoreError> {
    resume_requests::Entity::find()
        .filter(resume_requests::Column::GymId.eq(gym.as_str()))
        .filter(resume_requests::Column::MemberId.eq(member.as_str()))
        .filter(resume_requests::Column::ClosedAt.is_null())
        .one(db)
        .await
        .step("reading a request to resume")
}

/// Keeps a request. The member has no open one.
pub async fn insert(
    db: &impl ConnectionTrait,
    gym: &GymId,
    member: &MemberId,
    membership: &MembershipId,
    at: Timestamp,
    by: &str,
) -> Result<(), StoreError> {
    let row = resume_requests::ActiveModel {
        gym_id: Set(gym.into()),
        member_id: Set(member.into()),
        requested_at: Set(micros(at)),
        membership_id: Set(membership.into()),
        requested_by: Set(by.to_owned()),
        notified_at: Set(None),
        closed_at: Set(None),
    };
    resume_requests::Entity::insert(row)
        .exec_without_returning(db)
        .await
        .step("keeping a request to resume")
        .map(drop)
}

/// All open requests, the oldest first.
pub async fn list_open(
    db: &impl ConnectionTrait,
) -> Result<Vec<resume_requests::Model>, StoreError> {
    resume_requests::Entity::find()
        .filter(resume_requests::Column::ClosedAt.is_null())
        .order_by_asc(resume_requests::Column::RequestedAt)
        .all(db)
        .await
        .step("listing requests to resume")
}

/// Keeps when the notification was durable.
pub async fn set_notified(
    db: &impl ConnectionTrait,
    row: &resume_requests::Model,
    at: Timestamp,
) -> Result<(), StoreError> {
    set(db, row, resume_requests::Column::NotifiedAt, at).await
}

/// Closes a request.
pub async fn close(
    db: &impl ConnectionTrait,
    row: &resume_requests::Model,
    at: Timestamp,
) -> Result<(), StoreError> {
    set(db, row, resume_requests::Column::ClosedAt, at).await
}

async fn set(
    db: &impl ConnectionTrait,
    row: &resume_requests::Model,
    column: resume_requests::Column,
    at: Timestamp,
) -> Result<(), StoreError> {
    resume_requests::Entity::update_many()
        .filter(resume_requests::Column::GymId.eq(row.gym_id.clone()))
        .filter(resume_requests::Column::MemberId.eq(row.member_id.clone()))
        .filter(resume_requests::Column::RequestedAt.eq(row.requested_at))
        .filter(column.is_null())
        .col_expr(column, Expr::value(micros(at)))
        .exec(db)
        .await
        .step("going on with a request to resume")
        .map(drop)
}
