//! The audit log: per gym numbered rows, each chained by hash to the one before, and the head of
//! each gym's chain. What the rows mean is in [`crate::audit`].

use sea_orm::entity::prelude::*;
use sea_orm::{FromQueryResult, QueryOrder, QuerySelect, Statement};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub gym_id: String,
    /// From 1, without gaps.
    #[sea_orm(primary_key, auto_increment = false)]
    pub seq: i64,
    /// When it was written; never before the row before.
    pub at: i64,
    pub member_id: Option<String>,
    /// JSON of an [`crate::audit::Entry`]; hashed as it stands.
    #[sea_orm(column_type = "Text")]
    pub entry: String,
    /// The hash of the row before; empty for the first.
    pub previous: String,
    pub hash: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The last row of a gym's chain.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Head {
    /// 0 before the first.
    pub seq: i64,
    pub at: i64,
    pub hash: String,
}

/// The gym's head, kept from other writers until the transaction ends.
pub async fn lock_head<C: ConnectionTrait>(txn: &C, gym: &str) -> Result<Head, DbErr> {
    let sql = "insert into audit_heads (gym_id, seq, at, hash) values ($1, 0, 0, '')
        on conflict (gym_id) do update set gym_id = excluded.gym_id returning seq, at, hash";
    let values = [gym.into()];
    let statement = Statement::from_sql_and_values(txn.get_database_backend(), sql, values);
    let head = Head::find_by_statement(statement).one(txn).await?;
    head.ok_or(DbErr::RecordNotInserted)
}

/// The gym's head; None before its first row.
pub async fn find_head<C: ConnectionTrait>(db: &C, gym: &str) -> Result<Option<Head>, DbErr> {
    let sql = "select seq, at, hash from audit_heads where gym_id = $1";
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, [gym.into()]);
    Head::find_by_statement(statement).one(db).await
}

/// Writes the next row and makes it the head.
pub async fn put<C: ConnectionTrait>(txn: &C, row: &Model) -> Result<(), DbErr> {
    let sql = "insert into audit (gym_id, seq, at, member_id, entry, previous, hash)
        values ($1, $2, $3, $4, $5, $6, $7)";
    let values: [Value; 7] = [
        row.gym_id.clone().into(),
        row.seq.into(),
        row.at.into(),
        row.member_id.clone().into(),
        row.entry.clone().into(),
        row.previous.clone().into(),
        row.hash.clone().into(),
    ];
    let backend = txn.get_database_backend();
    txn.execute_raw(Statement::from_sql_and_values(backend, sql, values))
        .await?;
    let sql = "update audit_heads set seq = $1, at = $2, hash = $3 where gym_id = $4";
    let values: [Value; 4] = [
        row.seq.into(),
        row.at.into(),
        row.hash.clone().into(),
        row.gym_id.clone().into(),
    ];
    txn.execute_raw(Statement::from_sql_and_values(backend, sql, values))
        .await
        .map(drop)
}

/// The gym's rows after `after`, in order.
pub async fn list_after<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    after: i64,
    limit: u64,
) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::GymId.eq(gym))
        .filter(Column::Seq.gt(after))
        .order_by_asc(Column::Seq)
        .limit(limit)
        .all(db)
        .await
}

/// One member's rows before `before`, newest first.
pub async fn list_of_member<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    member: &str,
    before: i64,
    limit: u64,
) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::GymId.eq(gym))
        .filter(Column::MemberId.eq(member))
        .filter(Column::Seq.lt(before))
        .order_by_desc(Column::Seq)
        .limit(limit)
        .all(db)
        .await
}

/// The gyms that have rows.
pub async fn list_gyms<C: ConnectionTrait>(db: &C) -> Result<Vec<String>, DbErr> {
    let sql = "select gym_id from audit_heads union select gym_id from audit order by gym_id";
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let rows = db.query_all_raw(statement).await?;
    rows.iter().map(|row| row.try_get("", "gym_id")).collect()
}
