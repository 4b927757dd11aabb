//! What members asked for: to be resumed.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::ConnectionTrait;

/// Requests to resume.
pub struct ResumeRequests;

impl MigrationName for ResumeRequests {
    fn name(&self) -> &str {
        "m0007_resume_requests"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for ResumeRequests {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let database = manager.get_connection();
        for statement in [
            "create table resume_requests (
                gym_id text not null,
                member_id text not null,
                requested_at bigint not null,
                membership_id text not null,
                requested_by text not null,
                notified_at bigint,
                closed_at bigint,
                primary key (gym_id, member_id, requested_at)
            )",
            // One open per member, whoever asks at the same time.
            "create unique index resume_requests_open on resume_requests (gym_id, member_id)
                where closed_at is null",
        ] {
            database.execute_unprepared(statement).await?;
        }
        Ok(())
    }
}
