//! Who works on a Kisi user's gyms. The database's clock decides, so replicas need not agree.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "leases")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub lease_key: String,
    /// The replica that holds it; empty when given back.
    pub holder: String,
    /// Where that replica's gRPC is reached.
    pub address: String,
    /// Grows with each change of hands, a restart of the same replica included.
    pub epoch: i64,
    pub expires_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
