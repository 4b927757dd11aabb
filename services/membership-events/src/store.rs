//! The tables of membership-events, in PostgreSQL or SQLite.
//!
//! Read in this order: [`entity`] (the tables), [`migrations`], [`connection`], then one module
//! per kind of row. Every function takes the connection or the transaction it works in, because on
//! SQLite there is one connection alone and a second acquire inside a transaction would wait for
//! ever.
//!
//! Lock order, for all writers: billing keys (advisory), one or more memberships by id, members by
//! id. Whatever a decision reads is read after the members are locked, so that of two writers on
//! one member the later one sees all of the earlier.

pub mod billing;
pub mod bulk;
pub mod connection;
pub mod entity;
pub mod erasures;
pub mod gyms;
pub mod history;
pub mod keys;
pub mod links;
pub mod locks;
pub mod members;
pub mod memberships;
pub mod migrations;
pub mod outbox;
pub mod resume_requests;
pub mod roster;
pub mod timers;

pub use connection::{DatabaseSettings, Store};

use sea_orm::{DbBackend, EntityTrait, IdenStatic, Iterable, Value};

/// `count` placeholders from `$first` on, for a statement that is written out. Those that a door
/// waits for are: to build a query anew each time takes longer than to run it.
pub(crate) fn placeholders(first: usize, count: usize) -> String {
    let numbers: Vec<String> = (first..first + count).map(|n| format!("${n}")).collect();
    numbers.join(", ")
}

/// `rows` rows of `columns` placeholders each, from `$first` on.
pub(crate) fn tuples(first: usize, columns: usize, rows: usize) -> String {
    let tuples: Vec<String> = (0..rows)
        .map(|row| format!("({})", placeholders(first + row * columns, columns)))
        .collect();
    tuples.join(", ")
}

/// More rows than these are written in several statements: SQLite takes 32,766 values in one.
const PORTION: usize = 1_024;

/// Ids for an `in`, from `$first` on, and as values.
///
/// Filled up with nulls, which equal nothing, to one of a few lengths: databases keep what they have
/// prepared by its text, and a text for each number of ids would be prepared anew most of the time,
/// which takes longer than to run it.
pub(crate) fn in_list<'a>(
    first: usize,
    ids: impl IntoIterator<Item = &'a str>,
) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = ids.into_iter().map(Value::from).collect();
    if values.len() <= PORTION {
        values.resize(values.len().next_power_of_two(), Value::String(None));
    }
    (placeholders(first, values.len()), values)
}

/// The condition to be one of what `select` finds, found before anything else. As a join, which
/// PostgreSQL makes of `in`, it would read all rows of a gym where it does not know yet how many
/// there are.
pub(crate) fn among(backend: DbBackend, select: &str) -> String {
    match backend {
        DbBackend::Postgres => format!("= any (array({select}))"),
        _ => format!("in ({select})"),
    }
}

/// The values of `rows` rows, filled up with rows of nulls to one of a few lengths, for the same
/// reason as [`in_list`]. Answers how many rows that are.
pub(crate) fn filled<const N: usize>(rows: &[[Value; N]]) -> (usize, Vec<Value>) {
    let length = rows.len().next_power_of_two();
    let mut values: Vec<Value> = Vec::with_capacity(length * N);
    values.extend(rows.iter().flatten().cloned());
    if let Some(first) = rows.first() {
        // Of its column's type: PostgreSQL is told one for each value.
        let nothing = || first.iter().map(Value::as_null);
        values.extend((rows.len()..length).flat_map(|_| nothing()));
    }
    (length, values)
}

/// What an `insert` is to write, as what follows its columns, and the values of that; a thousand
/// rows in one. The first column of a row is never null.
pub(crate) fn inserted<const N: usize>(
    rows: &[[Value; N]],
) -> impl Iterator<Item = (String, Vec<Value>)> {
    rows.chunks(PORTION).map(|rows| {
        let (length, values) = filled(rows);
        let tuples = tuples(1, N, length);
        let sql = if length == rows.len() {
            format!("values {tuples}")
        } else {
            format!("select * from (values {tuples}) as v where v.column1 is not null")
        };
        (sql, values)
    })
}

/// The columns of a table, by name. A prepared `select *` fails on PostgreSQL in a replica that
/// still runs when a later migration adds a column.
pub(crate) fn columns<E: EntityTrait>(table: &str) -> String {
    let names: Vec<String> = E::Column::iter()
        .map(|column| format!("{table}.{}", column.as_str()))
        .collect();
    names.join(", ")
}

/// What can go wrong with a stored row or the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not do it.
    #[error("the database failed at: {step}")]
    Database {
        /// What was attempted.
        step: &'static str,
        /// Why not.
        #[source]
        source: sea_orm::DbErr,
    },
    /// A stored row makes no sense.
    #[error("{table}.{column} of row {row} makes no sense")]
    Nonsense {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key.
        row: String,
    },
}

impl StoreError {
    /// True when the database undid the transaction because of another one (deadlock,
    /// serialization failure): the same work may succeed when done again at once.
    pub fn is_conflict(&self) -> bool {
        let Self::Database { source, .. } = self else {
            return false;
        };
        let (sea_orm::DbErr::Exec(runtime) | sea_orm::DbErr::Query(runtime)) = source else {
            return false;
        };
        let sea_orm::RuntimeErr::SqlxError(error) = runtime else {
            return false;
        };
        error
            .as_database_error()
            .and_then(|error| error.code())
            .is_some_and(|code| matches!(code.as_ref(), "40001" | "40P01" | "23505" | "5" | "517"))
    }
}

/// Names the step at which the database failed.
pub(crate) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, StoreError>;
}

impl<T> Step<T> for Result<T, sea_orm::DbErr> {
    fn step(self, step: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Database { step, source })
    }
}

/// Instants are stored as microseconds since 1970.
pub(crate) fn micros(at: jiff::Timestamp) -> i64 {
    at.as_microsecond()
}

/// The instant of a stored number; the ends of time for what lies outside.
pub(crate) fn from_micros(at: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(at).unwrap_or(if at < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_rows_come_in_a_few_lengths() {
        for (ids, length) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (33, 64),
            (1_024, 1_024),
            (1_025, 1_025),
        ] {
            let (sql, values) = in_list(2, (0..ids).map(|_| "id"));
            assert_eq!(values.len(), length);
            assert!(sql.starts_with("$2") && sql.ends_with(&format!("${}", length + 1)));
        }
        let rows: Vec<[Value; 2]> = (0..1_027).map(|n| [n.into(), "text".into()]).collect();
        let parts: Vec<_> = inserted(&rows).collect();
        let lengths: Vec<usize> = parts.iter().map(|(_, values)| values.len()).collect();
        assert_eq!(lengths, [2_048, 8]);
        assert!(parts[0].0.starts_with("values ($1, $2), "));
        assert!(
            parts[1]
                .0
                .ends_with("($7, $8)) as v where v.column1 is not null")
        );
        let nothing = [Value::Int(None), Value::String(None)];
        assert_eq!(parts[1].1[6..], nothing);
    }
}
