//! What a preview was of, so that nobody confirms by it what it did not show.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::text;

pub struct PreviewedAssociations;

impl MigrationName for PreviewedAssociations {
    fn name(&self) -> &str {
        "m0014_previewed_associations"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for PreviewedAssociations {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Of one that was shown before this it is not known: staff preview again.
        let associations = text("associations").default("").to_owned();
        let table = Table::alter()
            .table("previews")
            .add_column(associations)
            .to_owned();
        manager.alter_table(table).await
    }
}
