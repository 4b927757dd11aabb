//! Indexes of what waits: members with work, and passes that have not ended. Both are looked for each
//! second, and are few among many.

use sea_orm_migration::prelude::*;

pub struct Waiting;

impl MigrationName for Waiting {
    fn name(&self) -> &str {
        "m0008_waiting"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Waiting {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Of some rows alone, which the builder of statements cannot say.
        for index in [
            "create index members_waiting on members (gym_id, updated_at, retry_at) where pending",
            "create index syncs_unfinished on syncs (gym_id) where state in ('queued', 'running')",
        ] {
            manager.get_connection().execute_unprepared(index).await?;
        }
        Ok(())
    }
}
