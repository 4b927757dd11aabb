//! Rows of the outbox: written with the change, claimed by a relay, moved to the history of
//! decisions after the ack (see [`super::history`]).
//!
//! A claim is a lease in a column and not an open transaction: on SQLite a transaction over the
//! publish would stop every writer. Only a member's oldest row can be claimed, which is what keeps
//! a member's messages in order over all replicas.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::ids::{GymId, MemberId};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter,
    QuerySelect, Statement, Value,
};

use super::entity::outbox;
use super::keys::{GymKey, MemberKey};
use super::{PORTION, Step, StoreError, portions};

/// A row to write.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// The gym.
    pub gym_id: GymKey,
    /// The member.
    pub member_id: MemberKey,
    /// The member's version.
    pub version: i64,
    /// The message, canonical proto3 JSON.
    pub payload: String,
    /// The trace it belongs to.
    pub traceparent: Option<String>,
    /// Provider's time of the cause, microseconds.
    pub occurred_at: i64,
    /// Now, microseconds.
    pub created_at: i64,
    /// Until when the writer keeps it to itself.
    pub claimed_until: i64,
}

/// Members of `ids` that have rows waiting, as (seq, member). The members must be locked.
pub async fn list_waiting(
    db: &impl ConnectionTrait,
    gym: &GymId,
    ids: &BTreeSet<MemberId>,
) -> Result<Vec<(i64, MemberKey)>, StoreError> {
    outbox::Entity::find()
        .select_only()
        .column(outbox::Column::Seq)
        .column(outbox::Column::MemberId)
        .filter(outbox::Column::GymId.eq(gym.as_str()))
        .filter(outbox::Column::MemberId.is_in(ids.iter().map(MemberId::as_str)))
        .into_tuple()
        .all(db)
        .await
        .step("reading the outbox")
}

/// What the table made of a [`NewRow`].
#[derive(Debug, FromQueryResult)]
struct Written {
    seq: i64,
    member_id: MemberKey,
    claimed_until: i64,
}

/// Writes the rows, at most one for each member, and answers them with their numbers. A row is
/// nobody's (`claimed_until` 0) where an older one of its member is still in the table; the members
/// must be locked, and then no other transaction can add one.
pub async fn insert(
    db: &impl ConnectionTrait,
    rows: Vec<NewRow>,
) -> Result<Vec<outbox::Model>, StoreError> {
    let mut written = Vec::with_capacity(rows.len());
    let given: Vec<_> = rows.iter().map(values_of).collect();
    for some in portions(db.get_database_backend(), given) {
        // One statement, and not a question before it: a door may be waiting. For an `exists`
        // PostgreSQL may read all of the table, as long as it has not counted its rows.
        let sql = format!(
            "insert into outbox (gym_id, member_id, version, payload, traceparent, occurred_at,
                                 created_at, claimed_until)
             select v.column1, v.column2, v.column3, v.column4, v.column5, v.column6, v.column7,
                    case when (
                        select older.seq from outbox older
                        where older.gym_id = v.column1 and older.member_id = v.column2
                        limit 1) is null
                    then v.column8 else 0 end
             from (values {}) as v where v.column1 is not null
             returning seq, member_id, claimed_until",
            some.tuples
        );
        let numbers = Written::find_by_statement(Statement::from_sql_and_values(
            db.get_database_backend(),
            sql,
            some.values,
        ))
        .all(db)
        .await
        .step("writing the outbox")?;
        written.extend(numbers);
    }
    let mut numbers: BTreeMap<MemberKey, (i64, i64)> = written
        .into_iter()
        .map(|row: Written| (row.member_id, (row.seq, row.claimed_until)))
        .collect();
    let numbered = rows.into_iter().filter_map(|row| {
        let (seq, claimed_until) = numbers.remove(&row.member_id)?;
        Some(outbox::Model {
            seq,
            gym_id: row.gym_id,
            member_id: row.member_id,
            version: row.version,
            payload: row.payload,
            traceparent: row.traceparent,
            occurred_at: row.occurred_at,
            created_at: row.created_at,
            claimed_until,
        })
    });
    Ok(numbered.collect())
}

fn values_of(row: &NewRow) -> [Value; 8] {
    [
        row.gym_id.clone().into(),
        row.member_id.clone().into(),
        row.version.into(),
        row.payload.as_str().into(),
        row.traceparent.clone().into(),
        row.occurred_at.into(),
        row.created_at.into(),
        row.claimed_until.into(),
    ]
}

/// Takes rows that [`insert`] left to nobody.
pub async fn take(db: &impl ConnectionTrait, seqs: &[i64], until: i64) -> Result<(), StoreError> {
    for some in seqs.chunks(PORTION) {
        outbox::Entity::update_many()
            .filter(outbox::Column::Seq.is_in(some.iter().copied()))
            .col_expr(outbox::Column::ClaimedUntil, Expr::value(until))
            .exec(db)
            .await
            .step("claiming outbox rows")?;
    }
    Ok(())
}

/// Claims up to `limit` rows that nobody holds, each its member's oldest.
pub async fn claim(
    db: &impl ConnectionTrait,
    now: i64,
    until: i64,
    limit: i64,
) -> Result<Vec<outbox::Model>, StoreError> {
    let backend = db.get_database_backend();
    let skip = match backend {
        DbBackend::Postgres => "for update of o skip locked",
        _ => "",
    };
    let sql = format!(
        "update outbox set claimed_until = $1 where seq in (
            select o.seq from outbox o
            where o.claimed_until <= $2 and not exists (
                select 1 from outbox older
                where older.gym_id = o.gym_id and older.member_id = o.member_id
                  and older.seq < o.seq)
            order by o.seq limit $3 {skip})
         returning seq, gym_id, member_id, version, payload, traceparent,
                   occurred_at, created_at, claimed_until"
    );
    let mut rows = outbox::Model::find_by_statement(Statement::from_sql_and_values(
        backend,
        sql,
        [until.into(), now.into(), limit.into()],
    ))
    .all(db)
    .await
    .step("claiming outbox rows")?;
    rows.sort_by_key(|row| row.seq);
    Ok(rows)
}

/// Gives claims back; all of them without `seqs`.
pub async fn release(db: &impl ConnectionTrait, seqs: Option<&[i64]>) -> Result<(), StoreError> {
    let mut update = outbox::Entity::update_many()
        .filter(outbox::Column::ClaimedUntil.gt(0))
        .col_expr(outbox::Column::ClaimedUntil, Expr::value(0_i64));
    if let Some(seqs) = seqs {
        update = update.filter(outbox::Column::Seq.is_in(seqs.iter().copied()));
    }
    update
        .exec(db)
        .await
        .step("releasing outbox rows")
        .map(drop)
}

/// What waits in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromQueryResult)]
pub struct Backlog {
    /// Rows.
    pub depth: i64,
    /// Rows that nobody holds.
    pub unclaimed: i64,
    /// When the oldest row was written, microseconds.
    pub oldest: Option<i64>,
}

/// Counts what waits.
pub async fn backlog(db: &impl ConnectionTrait, now: i64) -> Result<Backlog, StoreError> {
    let sql = "select count(*) as depth,
                      count(case when claimed_until <= $1 then 1 end) as unclaimed,
                      min(created_at) as oldest
               from outbox";
    let backlog = Backlog::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [now.into()],
    ))
    .one(db)
    .await
    .step("counting the outbox")?;
    Ok(backlog.unwrap_or(Backlog {
        depth: 0,
        unclaimed: 0,
        oldest: None,
    }))
}

/// True when more than `rows` wait.
pub async fn is_deeper(db: &impl ConnectionTrait, rows: u64) -> Result<bool, StoreError> {
    let sql = "select 1 as one from outbox limit 1 offset $1";
    db.query_one_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [(rows as i64).into()],
    ))
    .await
    .step("measuring the outbox")
    .map(|row| row.is_some())
}

/// Tells the relays of other replicas that rows wait which the writer does not publish itself.
pub async fn notify(db: &impl ConnectionTrait) -> Result<(), StoreError> {
    if db.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    db.execute_unprepared(&format!("notify {CHANNEL}"))
        .await
        .step("notifying")
        .map(drop)
}

/// The channel of [`notify`].
pub const CHANNEL: &str = "membership_events_outbox";
