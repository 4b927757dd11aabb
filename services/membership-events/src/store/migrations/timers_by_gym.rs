//! An index by which a gym's due timers are found, whatever is due elsewhere.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::ConnectionTrait;

pub(super) struct TimersByGym;

impl MigrationName for TimersByGym {
    fn name(&self) -> &str {
        "m0008_timers_by_gym"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for TimersByGym {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let database = manager.get_connection();
        database
            .execute_unprepared(
                "create index if not exists members_by_change_in_gym
                    on members (gym_id, changes_at, member_id) where changes_at is not null",
            )
            .await
            .map(drop)
    }
}
