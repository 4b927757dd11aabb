//! Rows that were received and not applied yet. Nothing reads them but their import.
//!
//! They hold names and e-mails, so they are removed as soon as the import is over, whatever became
//! of it, and a person who is erased meanwhile is taken out of them.

use access_domain::ids::{GymId, MemberId};
use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};

use super::texts;
use crate::store::{Step, StoreError, placeholders, portions};

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Staged {
    /// `member`, `membership`, `invoice`; `absent` for a membership that the roster lacks, and
    /// `leaver` for a holder of one.
    pub kind: String,
    /// Its key within the kind.
    pub row_id: String,
    /// The message of the stream it came with.
    pub position: i64,
    /// The message's part, proto3 JSON.
    pub body: String,
}

/// Stages rows; how many were not there before.
pub async fn insert(
    db: &impl ConnectionTrait,
    import: i64,
    rows: &[Staged],
) -> Result<u64, StoreError> {
    let rows = rows
        .iter()
        .map(|row| {
            [
                Value::from(import),
                row.kind.as_str().into(),
                row.row_id.as_str().into(),
                row.position.into(),
                row.body.as_str().into(),
            ]
        })
        .collect();
    let mut new = 0;
    for some in portions(db.get_database_backend(), rows) {
        let sql = format!(
            "insert into roster_rows (import_id, kind, row_id, position, body) {}
             on conflict do nothing",
            some.inserted()
        );
        let done = db
            .execute_raw(Statement::from_sql_and_values(
                db.get_database_backend(),
                sql,
                some.values,
            ))
            .await
            .step("staging a roster")?;
        new += done.rows_affected();
    }
    Ok(new)
}

/// Which of these ids are staged.
pub async fn list_known(
    db: &impl ConnectionTrait,
    import: i64,
    kind: &str,
    ids: &[&str],
) -> Result<Vec<String>, StoreError> {
    #[derive(FromQueryResult)]
    struct Known {
        row_id: String,
    }
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "select row_id from roster_rows where import_id = $1 and kind = $2 and row_id in ({})",
        placeholders(3, ids.len())
    );
    let values = [Value::from(import), kind.into()]
        .into_iter()
        .chain(texts(ids.iter().copied()));
    let known = Known::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading a staged roster")?;
    Ok(known.into_iter().map(|known| known.row_id).collect())
}

/// Rows of a kind after `after`, by id.
pub async fn page(
    db: &impl ConnectionTrait,
    import: i64,
    kind: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<Staged>, StoreError> {
    let sql = "select kind, row_id, position, body from roster_rows
        where import_id = $1 and kind = $2 and row_id > $3 order by row_id limit $4";
    let values: [Value; 4] = [
        import.into(),
        kind.into(),
        after.into(),
        (limit as i64).into(),
    ];
    Staged::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading a staged roster")
}

/// Removes up to `limit` rows of an import; how many.
pub async fn delete_some(
    db: &impl ConnectionTrait,
    import: i64,
    limit: usize,
) -> Result<u64, StoreError> {
    let sql = "delete from roster_rows where import_id = $1 and (kind, row_id) in (
        select kind, row_id from roster_rows where import_id = $1 limit $2)";
    db.execute_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [import.into(), (limit as i64).into()],
    ))
    .await
    .step("removing a staged roster")
    .map(|done| done.rows_affected())
}

/// Takes a person out of every staged roster of the gym.
pub async fn erase(
    db: &impl ConnectionTrait,
    gym: &GymId,
    member: &MemberId,
) -> Result<(), StoreError> {
    let sql = "delete from roster_rows where kind = 'member' and row_id = $1 and import_id in (
        select import_id from roster_imports
        where gym_id = $2 and state in ('receiving', 'applying'))";
    db.execute_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [member.as_str().into(), gym.as_str().into()],
    ))
    .await
    .step("erasing a member from staged rosters")
    .map(drop)
}
