//! Gyms whose rules have changed, and how far everybody was decided about again.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::ConnectionTrait;

pub(super) struct RuleChanges;

impl MigrationName for RuleChanges {
    fn name(&self) -> &str {
        "m0012_rule_changes"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for RuleChanges {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .get_connection()
            .execute_unprepared(
                "create table rule_changes (
                    gym_id text primary key,
                    after text not null,
                    actor text not null,
                    changed_at bigint not null,
                    traceparent text
                )",
            )
            .await
            .map(drop)
    }
}
