//! What providers may say of a person who paid for a membership once.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::ConnectionTrait;

pub(super) struct FormerPayers;

impl MigrationName for FormerPayers {
    fn name(&self) -> &str {
        "m0010_former_payers"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for FormerPayers {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let database = manager.get_connection();
        for statement in [
            "create table former_payers (
                gym_id text not null,
                member_id text not null,
                membership_id text not null,
                provider text not null,
                account text not null,
                kind text not null,
                reference text not null,
                primary key (gym_id, member_id, membership_id, provider, account, kind, reference)
            )",
            "create index former_payers_by_membership on former_payers (gym_id, membership_id)",
            "create index former_payers_by_reference
                on former_payers (provider, account, kind, reference)",
        ] {
            database.execute_unprepared(statement).await?;
        }
        Ok(())
    }
}
