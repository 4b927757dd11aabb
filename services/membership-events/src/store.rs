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
pub mod former_payers;
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
pub mod rule_changes;
mod statement;
pub mod timers;

pub use connection::{DatabaseSettings, Store};
pub(crate) use statement::{PORTION, Portion, columns, in_list, paired, placeholders, portions};

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
