//! What the checks of a gym's key found.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, boolean, string, text};

pub struct KeyChecks;

impl MigrationName for KeyChecks {
    fn name(&self) -> &str {
        "m0009_key_checks"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for KeyChecks {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let checks = Table::create()
            .table("key_checks")
            .col(string("gym_id").primary_key())
            .col(string("owner_role"))
            .col(boolean("dedicated"))
            .col(text("integrations"))
            .col(text("changes"))
            .col(big_integer("wholly_checked_at"))
            .to_owned();
        manager.create_table(checks).await
    }
}
