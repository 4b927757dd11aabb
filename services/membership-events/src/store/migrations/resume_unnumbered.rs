//! When a call without a number last resumed a membership, so that an older one or a repeat is
//! known.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::ConnectionTrait;

/// The instant of that call.
pub(super) struct ResumeUnnumbered;

impl MigrationName for ResumeUnnumbered {
    fn name(&self) -> &str {
        "m0011_resume_unnumbered"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for ResumeUnnumbered {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .get_connection()
            .execute_unprepared("alter table memberships add column resumed_unnumbered_at bigint")
            .await
            .map(drop)
    }
}
