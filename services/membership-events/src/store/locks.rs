//! Locks on what has no row yet.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DbBackend, Statement};

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
    // One text for any number of keys, which are taken in their order, the shared ones first.
    let lock = |list: usize, kind: &str| {
        format!(
            "select pg_advisory_xact_lock{kind}(hashtextextended(key, 1))::text as taken
             from json_array_elements_text(${list}::json) as key"
        )
    };
    let sql = format!(
        "select count(taken) from ({} union all {}) as keys",
        lock(1, "_shared"),
        lock(2, "")
    );
    let list = |keys: BTreeSet<String>| serde_json::Value::from_iter(keys).to_string().into();
    db.query_one_raw(Statement::from_sql_and_values(
        DbBackend::Postgres,
        sql,
        [list(shared), list(exclusive)],
    ))
    .await
    .step("locking billing keys")
    .map(drop)
}
