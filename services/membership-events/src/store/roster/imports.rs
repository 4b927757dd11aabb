//! Imports: one row each, open while it is received or applied, kept as a record after that.

use access_domain::ids::GymId;
use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};

use crate::store::keys::GymKey;
use crate::store::{Step, StoreError};

const COLUMNS: &str = "import_id, gym_id, as_of, actor, state, phase, after_id, received, changed,
    unchanged, left_alone, missing, ending, allowed, done, digest, started_at, claimed_until";

/// An import.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Import {
    /// Its id.
    pub import_id: i64,
    /// The gym.
    pub gym_id: GymKey,
    /// The roster's instant, microseconds.
    pub as_of: i64,
    /// Who sent it.
    pub actor: String,
    /// `receiving`, `applying`, `applied` or `held`.
    pub state: String,
    /// What is being applied.
    pub phase: String,
    /// The last row of `phase` that was.
    pub after_id: String,
    /// Rows received.
    pub received: i64,
    /// Rows that differ from what is held.
    pub changed: i64,
    /// Rows that do not.
    pub unchanged: i64,
    /// Rows that are older than what is held, or about somebody who was erased.
    pub left_alone: i64,
    /// Members who are not in the roster.
    pub missing: i64,
    /// Their memberships.
    pub ending: i64,
    /// How many may be missing.
    pub allowed: i64,
    /// Changes applied so far, endings included.
    pub done: i64,
    /// Of what would be ended.
    pub digest: String,
    /// When its stream began, microseconds.
    pub started_at: i64,
    /// Until when it is its process's, microseconds by the machine's clock.
    pub claimed_until: i64,
}

/// Opens an import; none while another one of the gym is open.
pub async fn open(
    db: &impl ConnectionTrait,
    gym: &GymId,
    as_of: i64,
    actor: &str,
    started_at: i64,
    claimed_until: i64,
) -> Result<Option<Import>, StoreError> {
    let sql = format!(
        "insert into roster_imports (gym_id, as_of, actor, state, phase, after_id, received,
            changed, unchanged, left_alone, missing, ending, allowed, done, digest, started_at,
            claimed_until)
         values ($1, $2, $3, 'receiving', '', '', 0, 0, 0, 0, 0, 0, 0, 0, '', $4, $5)
         on conflict do nothing returning {COLUMNS}"
    );
    let values: [Value; 5] = [
        gym.as_str().into(),
        as_of.into(),
        actor.into(),
        started_at.into(),
        claimed_until.into(),
    ];
    Import::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .one(db)
    .await
    .step("opening a roster import")
}

/// The open import of a gym.
pub async fn find_open(
    db: &impl ConnectionTrait,
    gym: &GymId,
) -> Result<Option<Import>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from roster_imports
         where gym_id = $1 and state in ('receiving', 'applying')"
    );
    Import::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [gym.as_str().into()],
    ))
    .one(db)
    .await
    .step("reading a roster import")
}

/// Open imports that are nobody's at `now`.
pub async fn list_unclaimed(
    db: &impl ConnectionTrait,
    now: i64,
) -> Result<Vec<Import>, StoreError> {
    // In the order of the index of open ones, without which SQLite reads all there ever were.
    let sql = format!(
        "select {COLUMNS} from roster_imports
         where state in ('receiving', 'applying') and claimed_until <= $1 order by gym_id"
    );
    Import::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [now.into()],
    ))
    .all(db)
    .await
    .step("looking for roster imports")
}

/// Makes every open import nobody's.
pub async fn release_all(db: &impl ConnectionTrait) -> Result<(), StoreError> {
    db.execute_unprepared(
        "update roster_imports set claimed_until = 0 where state in ('receiving', 'applying')",
    )
    .await
    .step("releasing roster imports")
    .map(drop)
}

/// Writes what was found and done so far, and moves the claim from `import.claimed_until` to
/// `until`. False when the claim is another's by now: then nothing may be done any more.
pub async fn advance(
    db: &impl ConnectionTrait,
    import: &Import,
    until: i64,
) -> Result<bool, StoreError> {
    let sql = "update roster_imports set claimed_until = $1, state = $2, phase = $3, after_id = $4,
            received = $5, changed = $6, unchanged = $7, left_alone = $8, missing = $9,
            ending = $10, allowed = $11, done = $12, digest = $13
        where import_id = $14 and claimed_until = $15 and state in ('receiving', 'applying')";
    let values: [Value; 15] = [
        until.into(),
        import.state.clone().into(),
        import.phase.clone().into(),
        import.after_id.clone().into(),
        import.received.into(),
        import.changed.into(),
        import.unchanged.into(),
        import.left_alone.into(),
        import.missing.into(),
        import.ending.into(),
        import.allowed.into(),
        import.done.into(),
        import.digest.clone().into(),
        import.import_id.into(),
        import.claimed_until.into(),
    ];
    db.execute_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .await
    .step("keeping a roster import")
    .map(|done| done.rows_affected() == 1)
}

/// Closes an import as `state`.
pub async fn close(
    db: &impl ConnectionTrait,
    import: i64,
    state: &str,
    finished_at: i64,
) -> Result<(), StoreError> {
    let sql = "update roster_imports set state = $1, finished_at = $2 where import_id = $3";
    db.execute_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [state.into(), finished_at.into(), import.into()],
    ))
    .await
    .step("closing a roster import")
    .map(drop)
}

/// Forgets an import.
pub async fn remove(db: &impl ConnectionTrait, import: i64) -> Result<(), StoreError> {
    db.execute_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        "delete from roster_imports where import_id = $1",
        [import.into()],
    ))
    .await
    .step("removing a roster import")
    .map(drop)
}

/// Forgets imports that were closed before `instant`, microseconds.
pub async fn prune(db: &impl ConnectionTrait, instant: i64) -> Result<(), StoreError> {
    db.execute_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        "delete from roster_imports where finished_at < $1",
        [instant.into()],
    ))
    .await
    .step("pruning roster imports")
    .map(drop)
}
