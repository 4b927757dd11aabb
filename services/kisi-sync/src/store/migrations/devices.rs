//! Members' phones.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, boolean, string, text};

pub struct Devices;

impl MigrationName for Devices {
    fn name(&self) -> &str {
        "m0004_devices"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Devices {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let devices = Table::create()
            .table("devices")
            .col(string("gym_id"))
            .col(string("member_id"))
            .col(big_integer("login_id"))
            .col(big_integer("kisi_user_id"))
            .col(text("brand"))
            .col(text("model"))
            .col(text("os_name"))
            .col(boolean("is_primary"))
            .col(big_integer("enrolled_at"))
            .primary_key(
                Index::create()
                    .col("gym_id")
                    .col("member_id")
                    .col("login_id"),
            )
            .to_owned();
        manager.create_table(devices).await?;
        for (name, table) in [
            ("devices_user", "devices"),
            ("member_logins_user", "member_logins"),
        ] {
            let of_user = Index::create()
                .name(name)
                .table(table)
                .col("kisi_user_id")
                .to_owned();
            manager.create_index(of_user).await?;
        }
        Ok(())
    }
}
