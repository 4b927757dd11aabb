//! An index of what stands for one Kisi user in an organization, whosever it is.

use sea_orm_migration::prelude::*;

pub struct GrantsOfUser;

impl MigrationName for GrantsOfUser {
    fn name(&self) -> &str {
        "m0015_grants_of_user"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for GrantsOfUser {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let new = Index::create()
            .name("applied_grants_user")
            .table("applied_grants")
            .col("organization_id")
            .col("kisi_user_id")
            .to_owned();
        manager.create_index(new).await
    }
}
