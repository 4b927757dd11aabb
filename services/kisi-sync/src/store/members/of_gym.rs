//! Many members of one gym at once: who they are, who waits for something, and marking them as having
//! work.

use std::collections::BTreeMap;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{FromQueryResult, QueryOrder, QuerySelect, Statement};

use super::{Cause, Column, Entity, Model};
use crate::store::columns;
use crate::store::places;

/// All members of a gym, by id.
pub async fn list<C: ConnectionTrait>(db: &C, gym: &str) -> Result<Vec<Model>, DbErr> {
    let sql = format!(
        "select {} from members where gym_id = $1 and member_id > $2
        order by member_id limit {}",
        columns::<Entity>(),
        places::AT_ONCE
    );
    let mut members: Vec<Model> = Vec::new();
    loop {
        let after = members.last().map_or("", |last| &last.member_id);
        let values = [gym.into(), after.into()];
        let statement = Statement::from_sql_and_values(db.get_database_backend(), &sql, values);
        let rows = db.query_all_raw(statement).await?;
        for row in &rows {
            members.push(Model::in_places(row)?);
        }
        if rows.len() < places::AT_ONCE as usize {
            return Ok(members);
        }
    }
}

/// Member to version, of the whole gym.
pub async fn versions<C: ConnectionTrait>(db: &C, gym: &str) -> Result<Vec<(String, i64)>, DbErr> {
    Entity::find()
        .select_only()
        .columns([Column::MemberId, Column::Version])
        .filter(Column::GymId.eq(gym))
        .into_tuple()
        .all(db)
        .await
}

/// These versions are the newest there are: what was answered about a later one does not count any more,
/// where tables restored from a backup say that something was.
pub async fn believe<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    versions: &BTreeMap<String, i64>,
) -> Result<(), DbErr> {
    let behind: Vec<(String, i64)> = Entity::find()
        .select_only()
        .columns([Column::MemberId, Column::Version])
        .filter(Column::GymId.eq(gym))
        .filter(Expr::col(Column::AnsweredVersion).gt(Expr::col(Column::Version)))
        .into_tuple()
        .all(db)
        .await?;
    let is_newest = |(member, version): &&(String, i64)| versions.get(member) == Some(version);
    for (member, version) in behind.iter().filter(is_newest) {
        Entity::update_many()
            .col_expr(Column::AnsweredVersion, Expr::value(*version))
            .filter(Column::GymId.eq(gym))
            .filter(Column::MemberId.eq(member))
            .filter(Column::Version.eq(*version))
            .exec(db)
            .await?;
    }
    Ok(())
}

/// Members with work that is due, oldest first: (member, background, plans).
pub async fn list_due<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    now: i64,
    limit: u64,
) -> Result<Vec<(String, bool, String)>, DbErr> {
    Entity::find()
        .select_only()
        .columns([Column::MemberId, Column::Background, Column::Plans])
        .filter(Column::GymId.eq(gym))
        .filter(Column::Pending.eq(true))
        .filter(Column::RetryAt.is_null().or(Column::RetryAt.lte(now)))
        .order_by_asc(Column::Background)
        .order_by_asc(Column::UpdatedAt)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await
}

/// What waits in one gym.
#[derive(Debug, FromQueryResult)]
pub struct Waiting {
    pub gym_id: String,
    /// How many members have work.
    pub members: i64,
    /// Since when the oldest has.
    pub since: i64,
    /// When the first of it is due.
    pub due_at: i64,
}

/// The gyms whose members have work; one look at an index of these members alone.
pub async fn waiting<C: ConnectionTrait>(db: &C) -> Result<Vec<Waiting>, DbErr> {
    let sql = "select gym_id, count(*) as members, min(updated_at) as since,
            min(coalesce(retry_at, 0)) as due_at
        from members where pending group by gym_id";
    Waiting::find_by_statement(Statement::from_string(db.get_database_backend(), sql))
        .all(db)
        .await
}

/// These persons have signed up with Kisi.
pub async fn signed_up<C: ConnectionTrait>(db: &C, gym: &str, users: &[i64]) -> Result<(), DbErr> {
    for part in users.chunks(500) {
        Entity::update_many()
            .col_expr(Column::SignUpNeeded, Expr::value(false))
            .filter(Column::GymId.eq(gym))
            .filter(Column::KisiUserId.is_in(part.iter().copied()))
            .exec(db)
            .await?;
    }
    Ok(())
}

/// The Kisi users of a gym who were not seen to have signed up.
pub async fn list_to_sign_up<C: ConnectionTrait>(db: &C, gym: &str) -> Result<Vec<i64>, DbErr> {
    Entity::find()
        .select_only()
        .column(Column::KisiUserId)
        .filter(Column::GymId.eq(gym))
        .filter(Column::SignUpNeeded.eq(true))
        .filter(Column::KisiUserId.is_not_null())
        .order_by_asc(Column::KisiUserId)
        .into_tuple()
        .all(db)
        .await
}

/// Marks members as having work to do, without regard to earlier failures. Work that waits already
/// keeps its own cause.
pub async fn mark_pending<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    members: &[String],
    cause: &Cause,
    approved: bool,
    now: i64,
) -> Result<(), DbErr> {
    for part in members.chunks(500) {
        if approved {
            Entity::update_many()
                .col_expr(Column::Approved, Expr::value(true))
                .filter(Column::GymId.eq(gym))
                .filter(Column::MemberId.is_in(part.iter().cloned()))
                .exec(db)
                .await?;
        }
        Entity::update_many()
            .col_expr(Column::Pending, Expr::value(true))
            .col_expr(Column::Background, Expr::value(true))
            .col_expr(Column::LookCause, Expr::value(cause.stored()))
            .col_expr(Column::RetryAt, Expr::value(Option::<i64>::None))
            .col_expr(Column::UpdatedAt, Expr::value(now))
            .filter(Column::GymId.eq(gym))
            .filter(Column::MemberId.is_in(part.iter().cloned()))
            .filter(Column::Pending.eq(false))
            .exec(db)
            .await?;
        Entity::update_many()
            .col_expr(Column::RetryAt, Expr::value(Option::<i64>::None))
            .filter(Column::GymId.eq(gym))
            .filter(Column::MemberId.is_in(part.iter().cloned()))
            .filter(Column::Pending.eq(true))
            .exec(db)
            .await?;
    }
    Ok(())
}
