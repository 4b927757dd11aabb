//! What a roster lacks: memberships that are held and not in it, and the endings that followed.

use std::collections::BTreeSet;

use access_domain::ids::{GymId, MembershipId};
use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};

use super::texts;
use crate::store::keys::{GymKey, MemberKey, MembershipKey};
use crate::store::{Step, StoreError, placeholders, portions};

/// A membership and when a caller last wrote it.
#[derive(Debug, FromQueryResult)]
pub struct Written {
    /// The membership.
    pub membership_id: MembershipKey,
    /// Microseconds.
    pub written_at: i64,
}

/// Memberships after `after`, by id.
pub async fn list_written(
    db: &impl ConnectionTrait,
    gym: &GymId,
    after: &str,
    limit: usize,
) -> Result<Vec<Written>, StoreError> {
    let sql = "select membership_id, written_at from memberships
        where gym_id = $1 and membership_id > $2 order by membership_id limit $3";
    let values: [Value; 3] = [gym.as_str().into(), after.into(), (limit as i64).into()];
    Written::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading memberships")
}

/// A member with the state last decided.
#[derive(Debug, FromQueryResult)]
pub struct Decided {
    /// The member.
    pub member_id: MemberKey,
    /// The state, canonical proto3 JSON.
    pub state: Option<String>,
}

/// The states of a gym's members after `after`, by id.
pub async fn list_states(
    db: &impl ConnectionTrait,
    gym: &GymId,
    after: &str,
    limit: usize,
) -> Result<Vec<Decided>, StoreError> {
    let sql = "select member_id, state from members where gym_id = $1 and member_id > $2
        order by member_id limit $3";
    let values: [Value; 3] = [gym.as_str().into(), after.into(), (limit as i64).into()];
    Decided::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading the states of members")
}

/// A membership that an import ended, with the cancellation it had before.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Ending {
    /// The gym.
    pub gym_id: GymKey,
    /// The membership.
    pub membership_id: MembershipKey,
    /// Its end: the `as_of` of the roster that lacked it.
    pub ended_at: i64,
    /// When it had been cancelled before.
    pub cancelled_at: Option<i64>,
    /// The last day of that cancellation.
    pub cancel_ends_on: Option<String>,
}

/// The endings of these memberships.
pub async fn list_endings(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &BTreeSet<MembershipId>,
) -> Result<Vec<Ending>, StoreError> {
    if memberships.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "select gym_id, membership_id, ended_at, cancelled_at, cancel_ends_on from roster_endings
         where gym_id = $1 and membership_id in ({})",
        placeholders(2, memberships.len())
    );
    let values = texts(std::iter::once(gym.as_str()))
        .chain(texts(memberships.iter().map(MembershipId::as_str)));
    Ending::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading endings of roster imports")
}

/// Keeps endings.
pub async fn put_endings(db: &impl ConnectionTrait, endings: &[Ending]) -> Result<(), StoreError> {
    let rows = endings
        .iter()
        .map(|ending| {
            [
                Value::from(ending.gym_id.clone()),
                ending.membership_id.clone().into(),
                ending.ended_at.into(),
                ending.cancelled_at.into(),
                ending.cancel_ends_on.clone().into(),
            ]
        })
        .collect();
    for some in portions(db.get_database_backend(), rows) {
        let sql = format!(
            "insert into roster_endings (gym_id, membership_id, ended_at, cancelled_at,
                 cancel_ends_on)
             {}
             on conflict (gym_id, membership_id) do update set ended_at = excluded.ended_at,
                 cancelled_at = excluded.cancelled_at, cancel_ends_on = excluded.cancel_ends_on",
            some.inserted()
        );
        db.execute_raw(Statement::from_sql_and_values(
            db.get_database_backend(),
            sql,
            some.values,
        ))
        .await
        .step("keeping endings of roster imports")?;
    }
    Ok(())
}

/// Forgets the endings of these memberships.
pub async fn delete_endings(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &BTreeSet<MembershipId>,
) -> Result<(), StoreError> {
    if memberships.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "delete from roster_endings where gym_id = $1 and membership_id in ({})",
        placeholders(2, memberships.len())
    );
    let values = texts(std::iter::once(gym.as_str()))
        .chain(texts(memberships.iter().map(MembershipId::as_str)));
    db.execute_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .await
    .step("forgetting endings of roster imports")
    .map(drop)
}
