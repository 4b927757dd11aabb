//! The table of past decisions, and the first row of everybody about whom one holds already.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, FromQueryResult, Statement};

use crate::store::history::{self, Decided};
use crate::store::keys::{GymKey, MemberKey};

/// Members per statement.
const AT_ONCE: usize = 500;

pub(super) struct DecisionHistory;

impl MigrationName for DecisionHistory {
    fn name(&self) -> &str {
        "m0004_decision_history"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for DecisionHistory {
    /// Can be done again where it was cut off: SQLite has no transaction around it.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let database = manager.get_connection();
        for statement in [
            "create table if not exists decision_history (
                gym_id text not null,
                member_id text not null,
                decided_at bigint not null,
                version bigint not null,
                payload text not null,
                primary key (gym_id, member_id, decided_at, version)
            )",
            "create index if not exists decision_history_by_time
                on decision_history (decided_at, gym_id, member_id, version)",
        ] {
            database.execute_unprepared(statement).await?;
        }
        let mut after = (String::new(), String::new());
        loop {
            let held = Held::list(database, &after).await?;
            let Some(last) = held.last() else {
                return Ok(());
            };
            after = (last.gym_id.to_string(), last.member_id.to_string());
            let decided: Vec<Decided> = held.into_iter().map(Decided::from).collect();
            history::insert(database, decided).await?;
        }
    }
}

/// What holds about a member.
#[derive(FromQueryResult)]
struct Held {
    gym_id: GymKey,
    member_id: MemberKey,
    version: i64,
    state: String,
}

impl Held {
    async fn list(
        database: &impl ConnectionTrait,
        after: &(String, String),
    ) -> Result<Vec<Self>, DbErr> {
        let sql = format!(
            "select gym_id, member_id, version, state from members
             where (gym_id, member_id) > ($1, $2) and state is not null
             order by gym_id, member_id limit {AT_ONCE}"
        );
        Self::find_by_statement(Statement::from_sql_and_values(
            database.get_database_backend(),
            sql,
            [after.0.as_str().into(), after.1.as_str().into()],
        ))
        .all(database)
        .await
    }
}

impl From<Held> for Decided {
    fn from(held: Held) -> Self {
        Self {
            decided_at: history::decided_at(&held.state, held.version),
            gym_id: held.gym_id,
            member_id: held.member_id,
            version: held.version,
            payload: held.state,
        }
    }
}
