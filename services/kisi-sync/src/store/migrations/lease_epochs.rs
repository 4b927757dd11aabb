//! The epoch of a lease is part of a key, as if rows referred to it: PostgreSQL then lets a lease be
//! renewed beside transactions that hold on to its epoch, and makes whoever takes it wait for them.

use sea_orm_migration::prelude::*;

pub struct LeaseEpochs;

impl MigrationName for LeaseEpochs {
    fn name(&self) -> &str {
        "m0012_lease_epochs"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for LeaseEpochs {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let index = "create unique index leases_epoch on leases (lease_key, epoch)";
        manager.get_connection().execute_unprepared(index).await?;
        Ok(())
    }
}
