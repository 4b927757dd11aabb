//! What is ours at Kisi: one row per role assignment that we made, or are about to make.
//!
//! The row is written before the request leaves and completed by its answer. A row that is still
//! `intended` under another lease's epoch, or `unknown`, may or may not stand at Kisi: a look
//! settles it, never a second grant.

use std::collections::BTreeSet;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::LockType;
use sea_orm::{DbBackend, FromQueryResult, QueryOrder, QuerySelect, Statement};

use super::columns;
use super::places::{self, model_in_places};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "applied_grants")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub organization_id: i64,
    pub gym_id: String,
    pub member_id: String,
    pub group_id: i64,
    pub kisi_user_id: i64,
    /// Kisi's id; absent until the answer is known.
    pub assignment_id: Option<i64>,
    /// `intended`, `unknown` or `standing`.
    pub state: String,
    /// The lease under which the request was to be sent.
    pub epoch: i64,
    pub valid_from: Option<i64>,
    pub valid_until: Option<i64>,
    pub intended_at: i64,
    pub updated_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The request has not been sent under this epoch.
pub const INTENDED: &str = "intended";
/// The request was sent and its answer lost.
pub const UNKNOWN: &str = "unknown";
/// Kisi has it.
pub const STANDING: &str = "standing";

/// What is ours of one member.
#[derive(Debug, Clone, Default)]
pub struct OfMember {
    /// The member's rows, by id.
    pub rows: Vec<Model>,
    /// Rows of other gyms that hold the same assignments.
    pub others: Vec<Model>,
}

/// One member's rows in the organization that the gym's key belongs to. Rows of a former one are
/// not that key's to touch.
pub async fn of_member<C: ConnectionTrait>(
    db: &C,
    organization: i64,
    gym: &str,
    member: &str,
) -> Result<OfMember, DbErr> {
    // In one statement, because a revoke waits for it; with the organization in each branch, so
    // that SQLite uses the index of each and does not read the whole organization.
    let columns = columns::<Entity>();
    let sql = format!(
        "select {columns} from applied_grants
        where (organization_id = $1 and gym_id = $2 and member_id = $3)
           or (organization_id = $1 and assignment_id in (
                   select assignment_id from applied_grants
                   where organization_id = $1 and gym_id = $2 and member_id = $3
                     and assignment_id is not null))
        order by id"
    );
    let values = [organization.into(), gym.into(), member.into()];
    let found = Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await?;
    let (rows, others): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|row| row.gym_id == gym && row.member_id == member);
    Ok(OfMember { rows, others })
}

#[derive(FromQueryResult)]
struct Numbered {
    id: i64,
}

/// Writes a new row, whose `id` is not looked at, and answers it with its number.
pub async fn insert<C: ConnectionTrait>(db: &C, row: Model) -> Result<Model, DbErr> {
    let sql = "insert into applied_grants (organization_id, gym_id, member_id, group_id,
            kisi_user_id, assignment_id, state, epoch, valid_from, valid_until, intended_at,
            updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) returning id";
    let values: [Value; 12] = [
        row.organization_id.into(),
        row.gym_id.clone().into(),
        row.member_id.clone().into(),
        row.group_id.into(),
        row.kisi_user_id.into(),
        row.assignment_id.into(),
        row.state.clone().into(),
        row.epoch.into(),
        row.valid_from.into(),
        row.valid_until.into(),
        row.intended_at.into(),
        row.updated_at.into(),
    ];
    let numbered = Numbered::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .one(db)
    .await?;
    let Numbered { id } = numbered.ok_or(DbErr::RecordNotInserted)?;
    Ok(Model { id, ..row })
}

model_in_places!(Model {
    id,
    organization_id,
    gym_id,
    member_id,
    group_id,
    kisi_user_id,
    assignment_id,
    state,
    epoch,
    valid_from,
    valid_until,
    intended_at,
    updated_at,
});

/// All of one gym's rows in an organization, by member and then by id.
pub async fn of_gym<C: ConnectionTrait>(
    db: &C,
    organization: i64,
    gym: &str,
) -> Result<Vec<Model>, DbErr> {
    let sql = format!(
        "select {} from applied_grants
        where gym_id = $1 and organization_id = $2 and (member_id, id) > ($3, $4)
        order by member_id, id limit {}",
        columns::<Entity>(),
        places::AT_ONCE
    );
    let mut held: Vec<Model> = Vec::new();
    loop {
        let (member, id) = held
            .last()
            .map_or(("", 0), |last| (last.member_id.as_str(), last.id));
        let values = [gym.into(), organization.into(), member.into(), id.into()];
        let statement = Statement::from_sql_and_values(db.get_database_backend(), &sql, values);
        let rows = db.query_all_raw(statement).await?;
        for row in &rows {
            held.push(Model::in_places(row)?);
        }
        if rows.len() < places::AT_ONCE as usize {
            return Ok(held);
        }
    }
}

/// The assignments of every gym in an organization.
pub async fn assignments<C: ConnectionTrait>(
    db: &C,
    organization: i64,
) -> Result<BTreeSet<i64>, DbErr> {
    use sea_orm::QuerySelect;
    let ids: Vec<i64> = Entity::find()
        .select_only()
        .column(Column::AssignmentId)
        .filter(Column::OrganizationId.eq(organization))
        .filter(Column::AssignmentId.is_not_null())
        .into_tuple()
        .all(db)
        .await?;
    Ok(ids.into_iter().collect())
}

/// Rows of other gyms in the organization that hold an assignment of this one too.
pub async fn of_others<C: ConnectionTrait>(
    db: &C,
    organization: i64,
    gym: &str,
) -> Result<Vec<Model>, DbErr> {
    let columns = columns::<Entity>();
    let sql = format!(
        "select {columns} from applied_grants
        where organization_id = $1 and gym_id <> $2 and assignment_id in (
            select assignment_id from applied_grants
            where organization_id = $1 and gym_id = $2 and assignment_id is not null)"
    );
    let values = [organization.into(), gym.into()];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let rows = db.query_all_raw(statement).await?;
    rows.iter().map(Model::in_places).collect()
}

/// Every row that holds this assignment holds that one from now on, with this window. A pass that
/// listed it before leaves these members for the next one.
pub async fn move_all<C: ConnectionTrait>(
    db: &C,
    organization: i64,
    (from, to): (i64, i64),
    window: crate::steps::Window,
    now: i64,
) -> Result<(), DbErr> {
    use sea_orm::sea_query::Expr;
    Entity::update_many()
        .col_expr(Column::AssignmentId, Expr::value(to))
        .col_expr(Column::ValidFrom, Expr::value(window.from))
        .col_expr(Column::ValidUntil, Expr::value(window.until))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::OrganizationId.eq(organization))
        .filter(Column::AssignmentId.eq(from))
        .exec(db)
        .await
        .map(drop)
}

/// The window that Kisi has, unless the row was touched since it was read. The pass that found it goes
/// on with the row, and so it does not count as touched.
pub async fn correct_window<C: ConnectionTrait>(
    db: &C,
    row: &Model,
    window: crate::steps::Window,
) -> Result<bool, DbErr> {
    use sea_orm::sea_query::Expr;
    let done = Entity::update_many()
        .col_expr(Column::ValidFrom, Expr::value(window.from))
        .col_expr(Column::ValidUntil, Expr::value(window.until))
        .filter(Column::Id.eq(row.id))
        .filter(Column::UpdatedAt.eq(row.updated_at))
        .exec(db)
        .await?;
    Ok(done.rows_affected > 0)
}

/// The rows of one Kisi user, whoever's they are.
pub async fn of_user<C: ConnectionTrait>(
    db: &C,
    organization: i64,
    user: i64,
) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::OrganizationId.eq(organization))
        .filter(Column::KisiUserId.eq(user))
        .all(db)
        .await
}

/// The rows that hold this assignment, whoever's they are, kept from other writers until the
/// transaction ends.
pub async fn lock_assignment<C: ConnectionTrait>(
    txn: &C,
    organization: i64,
    assignment: i64,
) -> Result<Vec<Model>, DbErr> {
    let mut rows = Entity::find()
        .filter(Column::OrganizationId.eq(organization))
        .filter(Column::AssignmentId.eq(assignment))
        .order_by_asc(Column::Id);
    if txn.get_database_backend() == DbBackend::Postgres {
        rows = rows.lock(LockType::Update);
    }
    rows.all(txn).await
}

/// How many rows hold the same assignment: more than one where two gyms share it.
pub async fn holders<C: ConnectionTrait>(
    db: &C,
    organization: i64,
    assignment: i64,
) -> Result<u64, DbErr> {
    use sea_orm::PaginatorTrait;
    Entity::find()
        .filter(Column::OrganizationId.eq(organization))
        .filter(Column::AssignmentId.eq(assignment))
        .count(db)
        .await
}
