//! Messages written in the transaction of the change they tell of; the relay publishes them.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    /// `access` or `integration`.
    pub kind: String,
    /// Canonical proto3 JSON of the message.
    #[sea_orm(column_type = "Text")]
    pub body: String,
    pub traceparent: Option<String>,
    pub created_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
