//! One row per gym: its Kisi key (sealed), place, associations, policies and health.

use std::collections::BTreeMap;

use sea_orm::entity::prelude::*;
use sea_orm::{FromQueryResult, QuerySelect, Statement};
use serde::{Deserialize, Serialize};

use super::columns;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "integrations")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub gym_id: String,
    /// Grows with each change that others are told of.
    pub version: i64,
    /// False after DisableIntegration; the row stays for its version.
    pub enabled: bool,
    /// The first sync was started: from then on changes reach Kisi.
    pub activated: bool,
    /// The first sync has ended.
    pub synced: bool,
    /// Grows with each saved key, so that a worker knows when to build its client anew.
    pub key_version: i64,
    pub sealed_key: Vec<u8>,
    pub sealing_key_id: String,
    /// `ok`, `invalid`, `insufficient` or `none`.
    pub key_status: String,
    pub key_checked_at: Option<i64>,
    pub organization_id: Option<i64>,
    pub organization_name: String,
    pub owner_user_id: Option<i64>,
    /// The key's owner may do everything in the organization.
    pub owner_is_owner: bool,
    /// The row of `leases` under which the gym is worked on.
    pub lease_key: String,
    pub place_id: Option<i64>,
    #[sea_orm(column_type = "Text")]
    pub associations: String,
    #[sea_orm(column_type = "Text")]
    pub groups: String,
    #[sea_orm(column_type = "Text")]
    pub attention: String,
    pub unmanaged_policy: String,
    pub member_resume: String,
    pub user_mode: String,
    /// Rights in our groups that others gave, at the last reconcile.
    pub unmanaged: i64,
    pub last_reconciled_at: Option<i64>,
    pub doors_looked_at: Option<i64>,
    pub changed_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Something that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attention {
    pub what: String,
    pub subject: String,
    pub message: String,
    pub who: String,
    /// Microseconds since 1970.
    pub since: i64,
}

/// A door behind a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    pub lock_id: i64,
    pub name: String,
    pub online: bool,
}

/// The doors behind an associated group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDoors {
    pub group_id: i64,
    pub name: String,
    pub doors: Vec<Door>,
    /// Elevator stops besides the doors.
    #[serde(default)]
    pub elevator_stops: u64,
}

impl Model {
    /// Plan to group. Text that cannot be read is an error, never an empty mapping: an empty one
    /// would close every door.
    pub fn associations(&self) -> Result<BTreeMap<String, i64>, DbErr> {
        serde_json::from_str(&self.associations)
            .map_err(|_| super::senseless("integrations", "associations", &self.gym_id))
    }

    pub fn attention(&self) -> Result<Vec<Attention>, DbErr> {
        serde_json::from_str(&self.attention)
            .map_err(|_| super::senseless("integrations", "attention", &self.gym_id))
    }

    pub fn groups(&self) -> Result<Vec<GroupDoors>, DbErr> {
        serde_json::from_str(&self.groups)
            .map_err(|_| super::senseless("integrations", "groups", &self.gym_id))
    }

    /// The organization of the key; 0 before one is known, which no row has.
    pub fn organization(&self) -> i64 {
        self.organization_id.unwrap_or_default()
    }

    /// Kisi may be written to for this gym.
    pub fn is_live(&self) -> bool {
        self.enabled && self.activated && self.key_status == "ok"
    }

    /// The word of `IntegrationChanged.state`.
    pub fn state(&self) -> &'static str {
        let empty = |text: &str| matches!(text, "" | "{}" | "[]");
        if !self.enabled {
            "disabled"
        } else if self.key_status != "ok" || !empty(&self.attention) {
            "needs_attention"
        } else if self.place_id.is_none() {
            "key_saved"
        } else if self.synced {
            "active"
        } else if self.activated {
            "syncing"
        } else if empty(&self.associations) {
            "place_selected"
        } else {
            "ready"
        }
    }
}

/// The gym's integration, also a disabled one.
pub async fn find<C: ConnectionTrait>(db: &C, gym: &str) -> Result<Option<Model>, DbErr> {
    let columns = columns::<Entity>();
    let sql = format!("select {columns} from integrations where gym_id = $1");
    Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [gym.into()],
    ))
    .one(db)
    .await
}

/// Every gym with an enabled integration: the gym, and its lease.
pub async fn list_enabled<C: ConnectionTrait>(db: &C) -> Result<Vec<(String, String)>, DbErr> {
    Entity::find()
        .select_only()
        .columns([Column::GymId, Column::LeaseKey])
        .filter(Column::Enabled.eq(true))
        .into_tuple()
        .all(db)
        .await
}

/// Every gym for which Kisi may be written to.
pub async fn list_live<C: ConnectionTrait>(db: &C) -> Result<Vec<String>, DbErr> {
    Entity::find()
        .select_only()
        .column(Column::GymId)
        .filter(Column::Enabled.eq(true))
        .filter(Column::Activated.eq(true))
        .filter(Column::KeyStatus.eq("ok"))
        .into_tuple()
        .all(db)
        .await
}

/// The gyms of an organization, and who owns their keys.
pub async fn list_owners<C: ConnectionTrait>(
    db: &C,
    organization: i64,
) -> Result<Vec<(String, Option<i64>)>, DbErr> {
    Entity::find()
        .select_only()
        .columns([Column::GymId, Column::OwnerUserId])
        .filter(Column::OrganizationId.eq(organization))
        .into_tuple()
        .all(db)
        .await
}
