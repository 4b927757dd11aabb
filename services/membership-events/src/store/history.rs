//! Past decisions. The outbox row, written in the deciding transaction, is the record of a
//! decision; once published it moves here, in the transaction that takes it out of the outbox. So
//! the way to the door pays nothing for it, and what is not here yet is still there.
//!
//! A row is the message as it was published. Its key holds the instant of the decision, which the
//! message tells, so that a state sent again under its version is the same row.

use access_domain::ids::{GymId, MemberId};
use contracts::wire;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult, Statement, Value};
use serde::Deserialize;

use super::keys::{GymKey, MemberKey};
use super::{PORTION, Step, StoreError, in_list, micros, portions};

/// A decision about a member.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Decided {
    /// The gym.
    pub gym_id: GymKey,
    /// The member.
    pub member_id: MemberKey,
    /// When it was made, microseconds.
    pub decided_at: i64,
    /// The member's version.
    pub version: i64,
    /// The message, canonical proto3 JSON.
    pub payload: String,
}

/// An outbox row whose message was acked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// Its number in the outbox.
    pub seq: i64,
    /// See [`decided_at`].
    pub decided_at: i64,
}

/// When the decision in a message was made, microseconds; the whole message is not read for it.
/// One that does not tell counts from its version, which is that instant or shortly after it.
pub fn decided_at(payload: &str, version: i64) -> i64 {
    #[derive(Deserialize)]
    struct Told {
        #[serde(rename = "decidedAt")]
        decided_at: pbjson_types::Timestamp,
    }
    serde_json::from_str::<Told>(payload)
        .ok()
        .and_then(|told| wire::instant(&told.decided_at))
        .map_or(version, micros)
}

/// Moves acked rows here from the outbox. `db` is a transaction; rows that are gone from the outbox
/// were moved by somebody else.
pub async fn keep(db: &impl ConnectionTrait, acked: &[Acked]) -> Result<(), StoreError> {
    let backend = db.get_database_backend();
    // Locked before they are copied: an erasure that removes the row first must find it here, or
    // we must not find it there. One by one and in their order: as a join PostgreSQL may read all of
    // the table, as long as it has not counted its rows.
    let found = match backend {
        DbBackend::Postgres => {
            "cross join lateral (
                 select gym_id, member_id, version, payload from outbox
                 where seq = v.column1 for update) as o"
        }
        _ => "cross join outbox as o where o.seq = v.column1",
    };
    let mut sorted = acked.to_vec();
    sorted.sort_unstable_by_key(|row| row.seq);
    let rows = sorted
        .iter()
        .map(|row| [Value::from(row.seq), row.decided_at.into()])
        .collect();
    for some in portions(backend, rows) {
        let sql = format!(
            "insert into decision_history (gym_id, member_id, decided_at, version, payload)
             select o.gym_id, o.member_id, v.column2, o.version, o.payload
             from (values {}) as v {found}
             on conflict do nothing",
            some.tuples
        );
        db.execute_raw(Statement::from_sql_and_values(backend, sql, some.values))
            .await
            .step("keeping decisions")?;
    }
    for some in acked.chunks(PORTION) {
        let (list, values) = in_list(1, some.iter().map(|row| row.seq));
        let sql = format!("delete from outbox where seq in ({list})");
        db.execute_raw(Statement::from_sql_and_values(backend, sql, values))
            .await
            .step("removing outbox rows")?;
    }
    Ok(())
}

/// Adds rows that are not there yet.
pub(super) async fn insert(db: &impl ConnectionTrait, rows: Vec<Decided>) -> Result<(), DbErr> {
    let rows = rows
        .into_iter()
        .map(|row| {
            [
                Value::from(row.gym_id),
                row.member_id.into(),
                row.decided_at.into(),
                row.version.into(),
                row.payload.into(),
            ]
        })
        .collect();
    let backend = db.get_database_backend();
    for some in portions(backend, rows) {
        let sql = format!(
            "insert into decision_history (gym_id, member_id, decided_at, version, payload)
             {} on conflict do nothing",
            some.inserted()
        );
        db.execute_raw(Statement::from_sql_and_values(backend, sql, some.values))
            .await?;
    }
    Ok(())
}

/// The newest decision made about a member by `at` (microseconds) and those before it, newest
/// first; at most `limit`, and of those alone that have left the outbox.
pub async fn list_until(
    db: &impl ConnectionTrait,
    gym: &GymId,
    member: &MemberId,
    at: i64,
    limit: usize,
) -> Result<Vec<Decided>, StoreError> {
    // By version: a clock that was put back makes later decisions at earlier instants. The keys
    // are sorted first, so that no more payloads are read than are wanted.
    let sql = format!(
        "select gym_id, member_id, decided_at, version, payload from decision_history
         where gym_id = $1 and member_id = $2 and (decided_at, version) in (
             select decided_at, version from decision_history
             where gym_id = $1 and member_id = $2 and version <= (
                 select max(version) from decision_history
                 where gym_id = $1 and member_id = $2 and decided_at <= $3)
             order by version desc limit {limit})
         order by version desc"
    );
    let values = [gym.as_str().into(), member.as_str().into(), at.into()];
    Decided::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading past decisions")
}

/// (version, message) of a member's decisions that are still in the outbox.
pub async fn list_not_moved(
    db: &impl ConnectionTrait,
    gym: &GymId,
    member: &MemberId,
) -> Result<Vec<Decided>, StoreError> {
    #[derive(FromQueryResult)]
    struct Waiting {
        version: i64,
        payload: String,
    }
    let waiting = Waiting::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        "select version, payload from outbox where gym_id = $1 and member_id = $2",
        [gym.as_str().into(), member.as_str().into()],
    ))
    .all(db)
    .await
    .step("reading the outbox")?;
    Ok(waiting
        .into_iter()
        .map(|row| Decided {
            gym_id: gym.into(),
            member_id: member.into(),
            decided_at: decided_at(&row.payload, row.version),
            version: row.version,
            payload: row.payload,
        })
        .collect())
}

/// When the first decision that is kept about a member was made, microseconds.
pub async fn first(
    db: &impl ConnectionTrait,
    gym: &GymId,
    member: &MemberId,
) -> Result<Option<i64>, StoreError> {
    #[derive(FromQueryResult)]
    struct First {
        decided_at: Option<i64>,
    }
    let first = First::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        "select min(decided_at) as decided_at from decision_history
         where gym_id = $1 and member_id = $2",
        [gym.as_str().into(), member.as_str().into()],
    ))
    .one(db)
    .await
    .step("reading the first decision")?;
    Ok(first.and_then(|row| row.decided_at))
}

/// A row's place in the order of time.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Place {
    /// When, microseconds.
    pub decided_at: i64,
    /// The gym.
    pub gym_id: GymKey,
    /// The member.
    pub member_id: MemberKey,
    /// The version.
    pub version: i64,
}

/// Rows of up to `until` (microseconds) after a place, in the order of time, at most `limit`.
pub async fn list_places(
    db: &impl ConnectionTrait,
    after: Option<&Place>,
    until: i64,
    limit: usize,
) -> Result<Vec<Place>, StoreError> {
    let mut values: Vec<Value> = vec![until.into()];
    let after = match after {
        None => "",
        Some(place) => {
            values.extend([
                Value::from(place.decided_at),
                place.gym_id.clone().into(),
                place.member_id.clone().into(),
                place.version.into(),
            ]);
            "and (decided_at, gym_id, member_id, version) > ($2, $3, $4, $5)"
        }
    };
    let sql = format!(
        "select decided_at, gym_id, member_id, version from decision_history
         where decided_at <= $1 {after}
         order by decided_at, gym_id, member_id, version limit {limit}"
    );
    Place::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("looking for old decisions")
}

/// Removes what these decisions replaced: the older versions of the same members. Answers how many.
pub async fn remove_replaced(db: &impl ConnectionTrait, by: &[Place]) -> Result<u64, StoreError> {
    let rows = by
        .iter()
        .map(|place| {
            [
                Value::from(place.gym_id.clone()),
                place.member_id.clone().into(),
                place.version.into(),
            ]
        })
        .collect();
    let (backend, mut removed) = (db.get_database_backend(), 0);
    for some in portions(backend, rows) {
        let sql = format!(
            "delete from decision_history where (gym_id, member_id, decided_at, version) in (
                 select h.gym_id, h.member_id, h.decided_at, h.version
                 from (values {}) as v, decision_history h
                 where h.gym_id = v.column1 and h.member_id = v.column2 and h.version < v.column3)",
            some.tuples
        );
        let done = db
            .execute_raw(Statement::from_sql_and_values(backend, sql, some.values))
            .await
            .step("removing old decisions")?;
        removed += done.rows_affected();
    }
    Ok(removed)
}

/// Removes all that was decided about an erased member before the tombstone, which has no more
/// than ids in it. `db` is a transaction, and the tombstone has been published: what is older in
/// the outbox was acked before it. Does nothing about a member who is not erased.
pub async fn erase(
    db: &impl ConnectionTrait,
    gym: &GymId,
    member: &MemberId,
) -> Result<(), StoreError> {
    // The outbox first: a row on its way here is locked there, see [`keep`].
    for table in ["outbox", "decision_history"] {
        let sql = format!(
            "delete from {table} where gym_id = $1 and member_id = $2 and version < (
                 select m.version from members m
                 where m.gym_id = $1 and m.member_id = $2 and m.erased)"
        );
        let values = [gym.as_str().into(), member.as_str().into()];
        db.execute_raw(Statement::from_sql_and_values(
            db.get_database_backend(),
            sql,
            values,
        ))
        .await
        .step("erasing past decisions")?;
    }
    Ok(())
}
