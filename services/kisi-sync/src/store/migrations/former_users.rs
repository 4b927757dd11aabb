//! Users whom an e-mail that changed more than once leaves behind.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::text_null;

pub struct FormerUsers;

impl MigrationName for FormerUsers {
    fn name(&self) -> &str {
        "m0013_former_users"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for FormerUsers {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let before = Table::alter()
            .table("members")
            .add_column(text_null("former_users"))
            .to_owned();
        manager.alter_table(before).await
    }
}
