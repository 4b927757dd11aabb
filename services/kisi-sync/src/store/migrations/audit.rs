//! The audit log, and who asked for what.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, string, string_null, text, text_null};

pub struct Audit;

impl MigrationName for Audit {
    fn name(&self) -> &str {
        "m0003_audit"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Audit {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let audit = Table::create()
            .table("audit")
            .col(string("gym_id"))
            .col(big_integer("seq"))
            .col(big_integer("at"))
            .col(string_null("member_id"))
            .col(text("entry"))
            .col(string("previous"))
            .col(string("hash"))
            .primary_key(Index::create().col("gym_id").col("seq"))
            .to_owned();
        manager.create_table(audit).await?;
        let of_member = Index::create()
            .name("audit_member")
            .table("audit")
            .col("gym_id")
            .col("member_id")
            .col("seq")
            .to_owned();
        manager.create_index(of_member).await?;
        let heads = Table::create()
            .table("audit_heads")
            .col(string("gym_id").primary_key())
            .col(big_integer("seq"))
            .col(big_integer("at"))
            .col(string("hash"))
            .to_owned();
        manager.create_table(heads).await?;
        for (table, column) in [
            ("members", string_null("cause_actor")),
            ("members", text_null("look_cause")),
            ("syncs", string_null("actor")),
        ] {
            let alter = Table::alter().table(table).add_column(column).to_owned();
            manager.alter_table(alter).await?;
        }
        Ok(())
    }
}
