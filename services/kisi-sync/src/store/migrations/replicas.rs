//! The replicas that live, so that each takes no more than its share.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, string};

pub struct Replicas;

impl MigrationName for Replicas {
    fn name(&self) -> &str {
        "m0007_replicas"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Replicas {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let replicas = Table::create()
            .table("replicas")
            .col(string("replica").primary_key())
            .col(big_integer("expires_at"))
            .to_owned();
        manager.create_table(replicas).await
    }
}
