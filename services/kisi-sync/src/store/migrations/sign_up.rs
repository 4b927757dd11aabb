//! Regular users of Kisi's, until they have signed up there.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::boolean;

pub struct SignUp;

impl MigrationName for SignUp {
    fn name(&self) -> &str {
        "m0010_sign_up"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for SignUp {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let needed = Table::alter()
            .table("members")
            .add_column(boolean("sign_up_needed").default(false))
            .to_owned();
        manager.alter_table(needed).await
    }
}
