//! People who are to be forgotten, and how far that is.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::ConnectionTrait;

pub struct Erasures;

impl MigrationName for Erasures {
    fn name(&self) -> &str {
        "m0006_erasures"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Erasures {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let database = manager.get_connection();
        for statement in [
            "create table erasures (
                gym_id text not null,
                member_id text not null,
                version bigint not null,
                requested_at bigint not null,
                requested_by text not null,
                answered_at bigint,
                purged_at bigint,
                primary key (gym_id, member_id)
            )",
            "create index erasures_open on erasures (requested_at) where purged_at is null",
            // Those erased before are to be forgotten on the streams too. A version is at least
            // the instant it was made at.
            "insert into erasures (gym_id, member_id, version, requested_at, requested_by)
                select gym_id, member_id, version, version, '' from members where erased",
        ] {
            database.execute_unprepared(statement).await?;
        }
        Ok(())
    }
}
