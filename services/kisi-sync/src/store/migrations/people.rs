//! Names and e-mails that change: how it is noticed, and whom it leaves behind at Kisi.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer_null, string_null};

pub struct People;

impl MigrationName for People {
    fn name(&self) -> &str {
        "m0006_people"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for People {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in [
            string_null("person_digest"),
            big_integer_null("former_user_id"),
        ] {
            let alter = Table::alter()
                .table("members")
                .add_column(column)
                .to_owned();
            manager.alter_table(alter).await?;
        }
        Ok(())
    }
}
