//! Locks on what has no row yet.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};

use super::{Step, StoreError};

/// Serialises, on PostgreSQL, everybody who works on any of these keys until the transaction ends:
/// an event that looks for its link must not miss the reference that another transaction is just
/// writing, which in turn looks for parked events. A key may be `shared`: then only whoever takes
/// it alone is kept out. On SQLite writers are serial anyway.
pub async fn take(
    db: &impl ConnectionTrait,
    exclusive: BTreeSet<String>,
    shared: BTreeSet<String>,
) -> Result<(), StoreError> {
    let is_nothing = exclusive.is_empty() && shared.is_empty();
    if is_nothing || db.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let mut sql = String::from("select 1");
    let mut values: Vec<Value> = Vec::new();
    let keys = shared.into_iter().map(|key| (key, "_shared"));
    for (key, kind) in keys.chain(exclusive.into_iter().map(|key| (key, ""))) {
        values.push(key.into());
        sql.push_str(&format!(
            ", pg_advisory_xact_lock{kind}(hashtextextended(${}, 1))::text",
            values.len()
        ));
    }
    db.query_one_raw(Statement::from_sql_and_values(
        DbBackend::Postgres,
        sql,
        values,
    ))
    .await
    .step("locking billing keys")
    .map(drop)
}
