//! What the last check of a gym's Kisi key found, and what had changed since the check before.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

/// Changes that are kept, besides those of the owner.
const KEPT: usize = 20;
/// Whose key it is.
const OWNER: &str = "owner";

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "key_checks")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub gym_id: String,
    /// The owner's widest role; empty where none was found.
    pub owner_role: String,
    /// Nobody signs in as the owner, and no other key is hers.
    pub dedicated: bool,
    /// JSON list of [`OtherIntegration`]s.
    #[sea_orm(column_type = "Text")]
    pub integrations: String,
    /// JSON list of [`Change`]s, newest first.
    #[sea_orm(column_type = "Text")]
    pub changes: String,
    /// When everything was looked at, not only the owner's role.
    pub wholly_checked_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// An integration that others set up in the organization.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OtherIntegration {
    pub id: i64,
    pub kind: String,
    pub enabled: bool,
}

/// Something that was not as it was at the check before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub what: String,
    pub from: String,
    pub to: String,
    pub at: i64,
}

impl Model {
    /// Before the first check.
    pub fn unchecked(gym: &str) -> Self {
        Self {
            gym_id: gym.to_owned(),
            owner_role: String::new(),
            dedicated: false,
            integrations: "[]".to_owned(),
            changes: "[]".to_owned(),
            wholly_checked_at: 0,
        }
    }

    pub fn integrations(&self) -> Result<Vec<OtherIntegration>, DbErr> {
        serde_json::from_str(&self.integrations)
            .map_err(|_| super::senseless("key_checks", "integrations", &self.gym_id))
    }

    pub fn changes(&self) -> Result<Vec<Change>, DbErr> {
        serde_json::from_str(&self.changes)
            .map_err(|_| super::senseless("key_checks", "changes", &self.gym_id))
    }

    /// Whose keys the gym had before, and until when.
    fn former_owners(&self) -> Result<Vec<(i64, i64)>, DbErr> {
        let changes = self.changes()?.into_iter();
        let owners = changes.filter(|change| change.what == OWNER);
        Ok(owners
            .filter_map(|change| Some((change.from.parse().ok()?, change.at)))
            .collect())
    }

    /// Keeps a change, if it is one.
    pub fn note(&mut self, what: &str, from: &str, to: &str, at: i64) -> Result<(), DbErr> {
        if from == to {
            return Ok(());
        }
        let mut changes = self.changes()?;
        changes.insert(
            0,
            Change {
                what: what.to_owned(),
                from: from.to_owned(),
                to: to.to_owned(),
                at,
            },
        );
        // By the owners it is known whose rights are ours.
        let mut kept = 0;
        changes.retain(|change| {
            kept += usize::from(change.what != OWNER);
            change.what == OWNER || kept <= KEPT
        });
        self.changes = serde_json::to_string(&changes).unwrap_or_else(|_| "[]".to_owned());
        Ok(())
    }
}

/// The gym's; None before its first check.
pub async fn find<C: ConnectionTrait>(db: &C, gym: &str) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(gym.to_owned()).one(db).await
}

/// Whose keys the gym had before, and until when.
pub async fn former_owners<C: ConnectionTrait>(
    db: &C,
    gym: &str,
) -> Result<Vec<(i64, i64)>, DbErr> {
    let held = find(db, gym).await?;
    held.map_or_else(|| Ok(Vec::new()), |held| held.former_owners())
}

/// Those of several gyms, by gym.
pub async fn list_former_owners<C: ConnectionTrait>(
    db: &C,
    gyms: Vec<String>,
) -> Result<Vec<(String, i64)>, DbErr> {
    let held = Entity::find().filter(Column::GymId.is_in(gyms));
    let mut owners = Vec::new();
    for held in held.all(db).await? {
        let former = held.former_owners()?.into_iter();
        owners.extend(former.map(|(owner, _)| (held.gym_id.clone(), owner)));
    }
    Ok(owners)
}

/// Writes it, new or not.
pub async fn put<C: ConnectionTrait>(db: &C, row: Model) -> Result<(), DbErr> {
    use sea_orm::sea_query::OnConflict;
    use sea_orm::{ActiveModelTrait, IntoActiveModel};
    let overwrite = OnConflict::column(Column::GymId)
        .update_columns([
            Column::OwnerRole,
            Column::Dedicated,
            Column::Integrations,
            Column::Changes,
            Column::WhollyCheckedAt,
        ])
        .to_owned();
    Entity::insert(row.into_active_model().reset_all())
        .on_conflict(overwrite)
        .exec_without_returning(db)
        .await
        .map(drop)
}

/// Keeps that the key works, or does not any more.
pub async fn note_status<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    from: &str,
    to: &str,
    now: i64,
) -> Result<(), DbErr> {
    if from == to {
        return Ok(());
    }
    let held = find(db, gym).await?;
    let mut row = held.unwrap_or_else(|| Model::unchecked(gym));
    row.note("status", from, to, now)?;
    put(db, row).await
}
