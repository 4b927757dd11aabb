//! Rights that others gave and that open the doors of the associated groups, as last read at Kisi. Ids
//! only: whose they are, Kisi's own pages tell.

use std::collections::BTreeSet;

use sea_orm::entity::prelude::*;
use sea_orm::{
    ActiveModelTrait, ActiveValue, IntoActiveModel, QueryOrder, QuerySelect, sea_query::OnConflict,
};

/// Who holds a right.
pub const USER: &str = "user";
pub const TEAM: &str = "team";
pub const GUEST: &str = "guest";
pub const LINK: &str = "link";
/// What a right is on.
pub const GROUP: &str = "group";
pub const PLACE: &str = "place";
pub const ORGANIZATION: &str = "organization";

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "other_rights")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub gym_id: String,
    /// Of the role assignment, or of the access link.
    pub right_id: i64,
    pub holder: String,
    pub holder_id: i64,
    /// The member whose e-mail the holder has.
    pub member_id: Option<String>,
    /// Of a team; nobody's own name.
    #[sea_orm(column_type = "Text")]
    pub team_name: String,
    pub target: String,
    pub target_id: i64,
    pub role_id: String,
    /// JSON list of the groups, of those looked at for, of whose doors it opens one.
    #[sea_orm(column_type = "Text")]
    pub groups: String,
    pub valid_from: Option<i64>,
    pub valid_until: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    pub fn groups(&self) -> Result<BTreeSet<i64>, DbErr> {
        serde_json::from_str(&self.groups)
            .map_err(|_| super::senseless("other_rights", "groups", &self.gym_id))
    }

    /// A user's own right on one of these groups: what each reconcile sees anyway.
    pub fn is_plain(&self, groups: &BTreeSet<i64>) -> bool {
        self.holder == USER && self.target == GROUP && groups.contains(&self.target_id)
    }

    /// Of somebody whose role reaches beyond groups.
    pub fn is_staff(&self) -> bool {
        self.holder == USER && self.target != GROUP
    }
}

/// Replaces what was read before.
pub async fn replace<C: ConnectionTrait>(
    txn: &C,
    gym: &str,
    rights: Vec<Model>,
) -> Result<(), DbErr> {
    Entity::delete_many()
        .filter(Column::GymId.eq(gym))
        .exec(txn)
        .await?;
    let rows: Vec<ActiveModel> = rights
        .into_iter()
        .map(|right| ActiveModel {
            id: ActiveValue::NotSet,
            ..right.into_active_model().reset_all()
        })
        .collect();
    for part in rows.chunks(500) {
        Entity::insert_many(part.to_vec())
            .exec_without_returning(txn)
            .await?;
    }
    Ok(())
}

/// All of a gym's.
pub async fn list<C: ConnectionTrait>(db: &C, gym: &str) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::GymId.eq(gym))
        .order_by_asc(Column::Id)
        .all(db)
        .await
}

/// The page behind `after`.
pub async fn page<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    after: i64,
    size: u64,
) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::GymId.eq(gym))
        .filter(Column::Id.gt(after))
        .order_by_asc(Column::Id)
        .limit(size)
        .all(db)
        .await
}

/// When they were read, and for which groups.
pub mod readings {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "rights_readings")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub gym_id: String,
        pub read_at: i64,
        /// JSON list of the groups whose doors were looked for.
        #[sea_orm(column_type = "Text")]
        pub groups: String,
        /// No list moved while it was read.
        pub complete: bool,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}

    impl Model {
        pub fn groups(&self) -> Result<BTreeSet<i64>, DbErr> {
            serde_json::from_str(&self.groups)
                .map_err(|_| super::super::senseless("rights_readings", "groups", &self.gym_id))
        }
    }

    /// The gym's last one.
    pub async fn find<C: ConnectionTrait>(db: &C, gym: &str) -> Result<Option<Model>, DbErr> {
        Entity::find_by_id(gym.to_owned()).one(db).await
    }

    /// The gyms that were read since.
    pub async fn list_since<C: ConnectionTrait>(
        db: &C,
        since: i64,
    ) -> Result<BTreeSet<String>, DbErr> {
        let read: Vec<String> = Entity::find()
            .select_only()
            .column(Column::GymId)
            .filter(Column::ReadAt.gte(since))
            .into_tuple()
            .all(db)
            .await?;
        Ok(read.into_iter().collect())
    }

    /// Writes it, new or not.
    pub async fn put<C: ConnectionTrait>(db: &C, row: Model) -> Result<(), DbErr> {
        let overwrite = OnConflict::column(Column::GymId)
            .update_columns([Column::ReadAt, Column::Groups, Column::Complete])
            .to_owned();
        Entity::insert(row.into_active_model().reset_all())
            .on_conflict(overwrite)
            .exec_without_returning(db)
            .await
            .map(drop)
    }
}
