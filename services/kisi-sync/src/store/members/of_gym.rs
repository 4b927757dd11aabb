//! Many members of one gym at once: who they are, who waits for something, and marking them as having
//! work.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{FromQueryResult, QueryOrder, QuerySelect, Statement, Value};

use super::{Cause, Column, Entity, HELD_PLAN, Model};
use crate::steps::Window;
use crate::store::{columns, places};

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

/// The same of these members.
pub async fn versions_of<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    members: &[String],
) -> Result<Vec<(String, i64)>, DbErr> {
    Entity::find()
        .select_only()
        .columns([Column::MemberId, Column::Version])
        .filter(Column::GymId.eq(gym))
        .filter(Column::MemberId.is_in(members))
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

/// The members of a gym of whom something was decided since, or given and answered.
pub async fn moved_since<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    since: i64,
) -> Result<BTreeSet<String>, DbErr> {
    let sql = "select member_id from members
            where gym_id = $1 and updated_at >= $2
        union select member_id from applied_grants
            where gym_id = $1 and updated_at >= $2";
    let values: [Value; 2] = [gym.into(), since.into()];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let rows = db.query_all_raw(statement).await?;
    rows.iter()
        .map(|row| row.try_get("", "member_id"))
        .collect()
}

/// The members of a gym with work.
pub async fn list_pending<C: ConnectionTrait>(db: &C, gym: &str) -> Result<Vec<String>, DbErr> {
    Entity::find()
        .select_only()
        .column(Column::MemberId)
        .filter(Column::GymId.eq(gym))
        .filter(Column::Pending.eq(true))
        .into_tuple()
        .all(db)
        .await
}

/// A member with work that is due.
#[derive(Debug)]
pub struct Due {
    pub member_id: String,
    pub background: bool,
    /// As [`Model::plans`].
    pub plans: String,
    /// Group and window of what is ours.
    pub rows: Vec<(i64, Window)>,
}

#[derive(FromQueryResult)]
struct DueRow {
    member_id: String,
    background: bool,
    plans: String,
    group_id: Option<i64>,
    valid_from: Option<i64>,
    valid_until: Option<i64>,
}

/// What was told of these is not so any more: the next look at each tells it.
pub async fn tell_again<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    members: &[String],
) -> Result<(), DbErr> {
    for part in members.chunks(500) {
        Entity::update_many()
            .col_expr(Column::OthersTold, Expr::value(""))
            .filter(Column::GymId.eq(gym))
            .filter(Column::MemberId.is_in(part.iter().cloned()))
            .exec(db)
            .await?;
    }
    Ok(())
}

/// Members with work that is due: who is out first, and then the oldest first.
pub async fn list_due<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    now: i64,
    limit: u64,
) -> Result<Vec<Due>, DbErr> {
    // With the organization, by which the index begins.
    let sql = "select d.member_id, d.background, d.plans, a.group_id, a.valid_from, a.valid_until
        from (
            select m.member_id, m.background, m.plans, m.updated_at, i.organization_id
            from members m left join integrations i on i.gym_id = m.gym_id
            where m.gym_id = $1 and m.pending and (m.retry_at is null or m.retry_at <= $2)
            order by m.plans <> '[]', m.background, m.updated_at limit $3) d
        left join applied_grants a on a.organization_id = d.organization_id
            and a.gym_id = $1 and a.member_id = d.member_id
        order by d.plans <> '[]', d.background, d.updated_at, d.member_id";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let values: [Value; 3] = [gym.into(), now.into(), limit.into()];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let rows = DueRow::find_by_statement(statement).all(db).await?;
    let mut listed: Vec<Due> = Vec::new();
    for row in rows {
        let window = Window {
            from: row.valid_from,
            until: row.valid_until,
        };
        let held = row.group_id.map(|group| (group, window));
        match listed.last_mut() {
            Some(last) if last.member_id == row.member_id => last.rows.extend(held),
            _ => listed.push(Due {
                member_id: row.member_id,
                background: row.background,
                plans: row.plans,
                rows: held.into_iter().collect(),
            }),
        }
    }
    Ok(listed)
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
/// keeps its own cause; an attempt at it that is under way knows by `retry_at` that there is more.
pub async fn mark_pending<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    members: &[String],
    cause: &Cause,
    approved: bool,
    now: i64,
) -> Result<(), DbErr> {
    // With the mark, or an attempt that ends in between takes the approval for its own.
    let approval = || match approved {
        true => Expr::value(true),
        false => Expr::col(Column::Approved),
    };
    for part in members.chunks(500) {
        let mut waiting = Entity::update_many()
            .col_expr(Column::Approved, approval())
            .col_expr(Column::RetryAt, Expr::value(now));
        if approved && cause.kind == HELD_PLAN {
            // It covers the loss, whatever this waited for before.
            let cause = Expr::value(cause.stored(now));
            waiting = waiting.col_expr(Column::LookCause, cause);
        }
        waiting
            .filter(Column::GymId.eq(gym))
            .filter(Column::MemberId.is_in(part.iter().cloned()))
            .filter(Column::Pending.eq(true))
            .exec(db)
            .await?;
        Entity::update_many()
            .col_expr(Column::Approved, approval())
            .col_expr(Column::Pending, Expr::value(true))
            .col_expr(Column::Background, Expr::value(true))
            .col_expr(Column::LookCause, Expr::value(cause.stored(now)))
            .col_expr(Column::RetryAt, Expr::value(Option::<i64>::None))
            .col_expr(Column::UpdatedAt, Expr::value(now))
            .filter(Column::GymId.eq(gym))
            .filter(Column::MemberId.is_in(part.iter().cloned()))
            .filter(Column::Pending.eq(false))
            .exec(db)
            .await?;
    }
    Ok(())
}
