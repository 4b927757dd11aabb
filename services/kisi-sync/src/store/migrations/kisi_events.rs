//! Kisi's event webhooks: ours at each gym's Kisi, and what came in by them.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, binary, string, text_null};

pub struct KisiEvents;

impl MigrationName for KisiEvents {
    fn name(&self) -> &str {
        "m0005_kisi_events"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for KisiEvents {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let webhooks = Table::create()
            .table("event_webhooks")
            .col(string("gym_id").primary_key())
            .col(big_integer_null("integration_id"))
            .col(binary("sealed_key"))
            .col(string("sealing_key_id"))
            .col(big_integer_null("refused_at"))
            .to_owned();
        manager.create_table(webhooks).await?;
        let events = Table::create()
            .table("kisi_events")
            .col(string("gym_id"))
            .col(string("uuid"))
            .col(big_integer("received_at"))
            .primary_key(Index::create().col("gym_id").col("uuid"))
            .to_owned();
        manager.create_table(events).await?;
        let by_user = Index::create()
            .name("members_kisi_user")
            .table("members")
            .col("gym_id")
            .col("kisi_user_id")
            .to_owned();
        manager.create_index(by_user).await?;
        let told = Table::alter()
            .table("members")
            .add_column(text_null("others_told"))
            .to_owned();
        manager.alter_table(told).await
    }
}
