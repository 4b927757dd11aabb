//! The schema's history. A migration that was released is never edited.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, binary, boolean, string, string_null, text,
};

mod audit;
mod devices;
mod former_users;
mod grants_of_user;
mod key_checks;
mod kisi_events;
mod lease_epochs;
mod people;
mod previewed_associations;
mod replicas;
mod rights;
mod sign_up;
#[cfg(test)]
mod tests;
mod waiting;

pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(First),
            Box::new(GrantsOfMember),
            Box::new(audit::Audit),
            Box::new(devices::Devices),
            Box::new(kisi_events::KisiEvents),
            Box::new(people::People),
            Box::new(replicas::Replicas),
            Box::new(waiting::Waiting),
            Box::new(key_checks::KeyChecks),
            Box::new(sign_up::SignUp),
            Box::new(rights::Rights),
            Box::new(lease_epochs::LeaseEpochs),
            Box::new(former_users::FormerUsers),
            Box::new(previewed_associations::PreviewedAssociations),
            Box::new(grants_of_user::GrantsOfUser),
        ]
    }

    fn migration_table_name() -> DynIden {
        "kisi_sync_migrations".into_iden()
    }
}

struct First;

impl MigrationName for First {
    fn name(&self) -> &str {
        "m0001_first"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for First {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            integrations(),
            members(),
            applied_grants(),
            outbox(),
            leases(),
            syncs(),
            held_plans(),
            losses(),
            member_logins(),
        ] {
            manager.create_table(table).await?;
        }
        for (name, table, columns) in [
            ("members_pending", "members", &["gym_id", "pending"][..]),
            (
                "applied_grants_member",
                "applied_grants",
                &["gym_id", "member_id"],
            ),
            (
                "applied_grants_assignment",
                "applied_grants",
                &["organization_id", "assignment_id"],
            ),
            ("syncs_gym", "syncs", &["gym_id", "created_at"]),
            ("held_plans_gym", "held_plans", &["gym_id", "held_at"]),
            ("losses_gym", "losses", &["gym_id", "class", "lost_at"]),
        ] {
            let mut index = Index::create();
            index.name(name).table(table);
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index.to_owned()).await?;
        }
        Ok(())
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration("there is no way back".to_owned()))
    }
}

fn serial() -> ColumnDef {
    ColumnDef::new("id")
        .big_integer()
        .not_null()
        .auto_increment()
        .primary_key()
        .to_owned()
}

struct GrantsOfMember;

impl MigrationName for GrantsOfMember {
    fn name(&self) -> &str {
        "m0002_grants_of_member"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for GrantsOfMember {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite took the organization's index for a member's rows, and read them all.
        let old = Index::drop()
            .name("applied_grants_member")
            .table("applied_grants")
            .to_owned();
        manager.drop_index(old).await?;
        let new = Index::create()
            .name("applied_grants_member")
            .table("applied_grants")
            .col("gym_id")
            .col("member_id")
            .col("organization_id")
            .to_owned();
        manager.create_index(new).await
    }
}

fn integrations() -> TableCreateStatement {
    Table::create()
        .table("integrations")
        .col(string("gym_id").primary_key())
        .col(big_integer("version"))
        .col(boolean("enabled"))
        .col(boolean("activated"))
        .col(boolean("synced"))
        .col(big_integer("key_version"))
        .col(binary("sealed_key"))
        .col(string("sealing_key_id"))
        .col(string("key_status"))
        .col(big_integer_null("key_checked_at"))
        .col(big_integer_null("organization_id"))
        .col(text("organization_name"))
        .col(big_integer_null("owner_user_id"))
        .col(boolean("owner_is_owner"))
        .col(string("lease_key"))
        .col(big_integer_null("place_id"))
        .col(text("associations"))
        .col(text("groups"))
        .col(text("attention"))
        .col(string("unmanaged_policy"))
        .col(string("member_resume"))
        .col(string("user_mode"))
        .col(big_integer("unmanaged"))
        .col(big_integer_null("last_reconciled_at"))
        .col(big_integer_null("doors_looked_at"))
        .col(big_integer("changed_at"))
        .to_owned()
}

fn members() -> TableCreateStatement {
    Table::create()
        .table("members")
        .col(string("gym_id"))
        .col(string("member_id"))
        .col(big_integer("version"))
        .col(text("plans"))
        .col(boolean("erased"))
        .col(string("cause_kind"))
        .col(text("cause_id"))
        .col(big_integer_null("received_at"))
        .col(big_integer_null("decided_at"))
        .col(string_null("traceparent"))
        .col(boolean("pending"))
        .col(boolean("background"))
        .col(boolean("approved"))
        .col(big_integer_null("retry_at"))
        .col(big_integer("answered_version"))
        .col(big_integer("applied_seq"))
        .col(string_null("failure"))
        .col(string_null("kisi_code"))
        .col(big_integer_null("kisi_user_id"))
        .col(boolean("kisi_user_ours"))
        .col(boolean("looked"))
        .col(text("opened_by_others"))
        .col(string_null("conflict"))
        .col(string_null("held_by"))
        .col(big_integer("updated_at"))
        .primary_key(Index::create().col("gym_id").col("member_id"))
        .to_owned()
}

fn applied_grants() -> TableCreateStatement {
    Table::create()
        .table("applied_grants")
        .col(serial())
        .col(big_integer("organization_id"))
        .col(string("gym_id"))
        .col(string("member_id"))
        .col(big_integer("group_id"))
        .col(big_integer("kisi_user_id"))
        .col(big_integer_null("assignment_id"))
        .col(string("state"))
        .col(big_integer("epoch"))
        .col(big_integer_null("valid_from"))
        .col(big_integer_null("valid_until"))
        .col(big_integer("intended_at"))
        .col(big_integer("updated_at"))
        .to_owned()
}

fn outbox() -> TableCreateStatement {
    Table::create()
        .table("outbox")
        .col(serial())
        .col(string("kind"))
        .col(text("body"))
        .col(string_null("traceparent"))
        .col(big_integer("created_at"))
        .to_owned()
}

fn leases() -> TableCreateStatement {
    Table::create()
        .table("leases")
        .col(string("lease_key").primary_key())
        .col(string("holder"))
        .col(text("address"))
        .col(big_integer("epoch"))
        .col(big_integer("expires_at"))
        .to_owned()
}

fn syncs() -> TableCreateStatement {
    Table::create()
        .table("syncs")
        .col(string("sync_id").primary_key())
        .col(string("gym_id"))
        .col(string("state"))
        .col(string("activation"))
        .col(string_null("digest"))
        .col(big_integer("created_at"))
        .col(big_integer_null("started_at"))
        .col(big_integer_null("ended_at"))
        .col(text("report"))
        .col(boolean("in_sync"))
        .to_owned()
}

fn held_plans() -> TableCreateStatement {
    Table::create()
        .table("held_plans")
        .col(string("id").primary_key())
        .col(string("gym_id"))
        .col(string("digest"))
        .col(string("class"))
        .col(text("causes"))
        .col(text("members"))
        .col(big_integer("revokes"))
        .col(big_integer("grants"))
        .col(string("state"))
        .col(boolean("sealed"))
        .col(big_integer("held_at"))
        .col(big_integer("expires_at"))
        .col(string_null("decided_by"))
        .to_owned()
}

fn losses() -> TableCreateStatement {
    Table::create()
        .table("losses")
        .col(serial())
        .col(string("gym_id"))
        .col(string("member_id"))
        .col(string("class"))
        .col(big_integer("lost_at"))
        .to_owned()
}

fn member_logins() -> TableCreateStatement {
    Table::create()
        .table("member_logins")
        .col(string("gym_id"))
        .col(string("member_id"))
        .col(big_integer("kisi_user_id"))
        .col(big_integer("login_id"))
        .col(binary("sealed_secret"))
        .col(string("sealing_key_id"))
        .col(big_integer("created_at"))
        .primary_key(Index::create().col("gym_id").col("member_id"))
        .to_owned()
}
