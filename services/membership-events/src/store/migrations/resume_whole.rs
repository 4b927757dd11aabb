//! Which call last resumed a membership whole, so that an older one or a repeat is known.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::ConnectionTrait;

/// The number of that call.
pub struct ResumeWhole;

impl MigrationName for ResumeWhole {
    fn name(&self) -> &str {
        "m0009_resume_whole"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for ResumeWhole {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .get_connection()
            .execute_unprepared("alter table memberships add column resumed_source_version bigint")
            .await
            .map(drop)
    }
}
