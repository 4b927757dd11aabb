//! The timers: `members.changes_at`, the next instant at which time alone changes a decision.
//!
//! What is due is claimed a gym at a time, so that a gym with a few does not stand behind one with
//! thousands. Deliberately not here: firing them, see [`crate::timers`].

use access_domain::ids::GymId;
use jiff::Timestamp;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter, QueryOrder,
    QuerySelect, Statement, Value,
};

use super::entity::members;
use super::keys::{GymKey, MemberKey};
use super::{Step, StoreError, micros};

/// The earliest instant after `after` at which time alone changes a decision, microseconds.
pub async fn next_after(
    db: &impl ConnectionTrait,
    after: Timestamp,
) -> Result<Option<i64>, StoreError> {
    members::Entity::find()
        .select_only()
        .column(members::Column::ChangesAt)
        .filter(members::Column::ChangesAt.is_not_null())
        .filter(members::Column::ChangesAt.gt(micros(after)))
        .order_by_asc(members::Column::ChangesAt)
        .limit(1)
        .into_tuple::<Option<i64>>()
        .one(db)
        .await
        .step("reading the next timer")
        .map(Option::flatten)
}

/// Gyms with timers that are due, by id. One look into an index for each gym, however many are due.
pub async fn list_gyms(
    db: &impl ConnectionTrait,
    now: Timestamp,
) -> Result<Vec<GymKey>, StoreError> {
    #[derive(FromQueryResult)]
    struct Due {
        gym_id: GymKey,
    }
    let sql = "select g.gym_id from gyms g where exists (
                   select 1 from members m
                   where m.gym_id = g.gym_id and m.changes_at is not null and m.changes_at <= $1)
               order by g.gym_id";
    let due = Due::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [micros(now).into()],
    ))
    .all(db)
    .await
    .step("reading gyms with due timers")?;
    Ok(due.into_iter().map(|due| due.gym_id).collect())
}

/// Members of a gym whose timers are due, earliest first, locked until the transaction ends. On
/// PostgreSQL those whom somebody else has locked are left out: another replica fires them, or a
/// live event is about to.
pub async fn claim(
    db: &impl ConnectionTrait,
    gym: &GymId,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<MemberKey>, StoreError> {
    let lock = match db.get_database_backend() {
        DbBackend::Postgres => "for update skip locked",
        _ => "",
    };
    list(db, gym, now, limit, lock).await
}

/// As [`claim`], without any lock.
pub async fn list_due(
    db: &impl ConnectionTrait,
    gym: &GymId,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<MemberKey>, StoreError> {
    list(db, gym, now, limit, "").await
}

async fn list(
    db: &impl ConnectionTrait,
    gym: &GymId,
    now: Timestamp,
    limit: usize,
    lock: &str,
) -> Result<Vec<MemberKey>, StoreError> {
    #[derive(FromQueryResult)]
    struct Due {
        member_id: MemberKey,
    }
    let sql = format!(
        "select member_id from members
         where gym_id = $1 and changes_at is not null and changes_at <= $2
         order by changes_at, member_id limit {limit} {lock}"
    );
    let due = Due::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [gym.as_str().into(), micros(now).into()],
    ))
    .all(db)
    .await
    .step("reading due timers")?;
    Ok(due.into_iter().map(|due| due.member_id).collect())
}

/// A person in a gym.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, FromQueryResult)]
pub struct Person {
    /// The gym.
    pub gym_id: GymKey,
    /// The member.
    pub member_id: MemberKey,
}

/// Members after `after` about whom what holds was decided later than `now`, by id, at most
/// `limit`: there are none unless the clock was put back.
pub async fn list_decided_later(
    db: &impl ConnectionTrait,
    now: Timestamp,
    after: Option<&Person>,
    limit: usize,
) -> Result<Vec<Person>, StoreError> {
    let mut values: Vec<Value> = vec![micros(now).into()];
    let after = match after {
        None => "",
        Some(person) => {
            values.extend([
                Value::from(person.gym_id.clone()),
                person.member_id.clone().into(),
            ]);
            "and (m.gym_id, m.member_id) > ($2, $3)"
        }
    };
    // A decision is in one of the two, see `super::history`.
    let held = "join members m on m.gym_id = d.gym_id and m.member_id = d.member_id
                    and m.version = d.version";
    let sql = format!(
        "select m.gym_id, m.member_id from decision_history d {held}
         where d.decided_at > $1 {after}
         union
         select m.gym_id, m.member_id from outbox d {held}
         where d.created_at > $1 {after}
         order by 1, 2 limit {limit}"
    );
    Person::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading what was decided later than now")
}
