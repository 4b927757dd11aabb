//! Rights that others gave and that open the same doors, and previews that staff may confirm.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, boolean, string, string_null, text, text_null,
};

pub struct Rights;

impl MigrationName for Rights {
    fn name(&self) -> &str {
        "m0011_rights"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Rights {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [readings(), rights(), previews()] {
            manager.create_table(table).await?;
        }
        for (name, table, column) in [
            ("other_rights_gym", "other_rights", "gym_id"),
            ("previews_gym", "previews", "gym_id"),
        ] {
            let index = Index::create()
                .name(name)
                .table(table)
                .col(column)
                .to_owned();
            manager.create_index(index).await?;
        }
        let elsewhere = Table::alter()
            .table("members")
            .add_column(text_null("opened_elsewhere"))
            .to_owned();
        manager.alter_table(elsewhere).await
    }
}

fn readings() -> TableCreateStatement {
    Table::create()
        .table("rights_readings")
        .col(string("gym_id").primary_key())
        .col(big_integer("read_at"))
        .col(text("groups"))
        .col(boolean("complete"))
        .to_owned()
}

fn rights() -> TableCreateStatement {
    let id = ColumnDef::new("id")
        .big_integer()
        .not_null()
        .auto_increment()
        .primary_key()
        .to_owned();
    Table::create()
        .table("other_rights")
        .col(id)
        .col(string("gym_id"))
        .col(big_integer("right_id"))
        .col(string("holder"))
        .col(big_integer("holder_id"))
        .col(string_null("member_id"))
        .col(text("team_name"))
        .col(string("target"))
        .col(big_integer("target_id"))
        .col(string("role_id"))
        .col(text("groups"))
        .col(big_integer_null("valid_from"))
        .col(big_integer_null("valid_until"))
        .to_owned()
}

fn previews() -> TableCreateStatement {
    Table::create()
        .table("previews")
        .col(string("digest").primary_key())
        .col(string("gym_id"))
        .col(string("plan_digest"))
        .col(big_integer("shown_at"))
        .to_owned()
}
