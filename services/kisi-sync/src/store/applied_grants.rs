//! What is ours at Kisi: one row per role assignment that we made, or are about to make.
//!
//! The row is written before the request leaves and completed by its answer. A row that is still
//! `intended` under another lease's epoch, or `unknown`, may or may not stand at Kisi: a look
//! settles it, never a second grant.

use std::collections::BTreeSet;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Query;
use sea_orm::{Condition, QueryOrder};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "applied_grants")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub organization_id: i64,
    pub gym_id: String,
    pub member_id: String,
    pub group_id: i64,
    pub kisi_user_id: i64,
    /// Kisi's id; absent until the answer is known.
    pub assignment_id: Option<i64>,
    /// `intended`, `unknown` or `standing`.
    pub state: String,
    /// The lease under which the request was to be sent.
    pub epoch: i64,
    pub valid_from: Option<i64>,
    pub valid_until: Option<i64>,
    pub intended_at: i64,
    pub updated_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The request has not been sent under this epoch.
pub const INTENDED: &str = "intended";
/// The request was sent and its answer lost.
pub const UNKNOWN: &str = "unknown";
/// Kisi has it.
pub const STANDING: &str = "standing";

/// What is ours of one member.
#[derive(Debug, Clone, Default)]
pub struct OfMember {
    /// The member's rows, by id.
    pub rows: Vec<Model>,
    /// Assignments of these rows that another gym's rows hold too.
    pub shared: BTreeSet<i64>,
}

/// One member's rows in the organization that the gym's key belongs to. Rows of a former one are
/// not that key's to touch.
pub async fn of_member<C: ConnectionTrait>(
    db: &C,
    organization: i64,
    gym: &str,
    member: &str,
) -> Result<OfMember, DbErr> {
    let own = Condition::all()
        .add(Column::OrganizationId.eq(organization))
        .add(Column::GymId.eq(gym))
        .add(Column::MemberId.eq(member));
    let assignments = Query::select()
        .column(Column::AssignmentId)
        .from(Entity)
        .and_where(Column::OrganizationId.eq(organization))
        .and_where(Column::GymId.eq(gym))
        .and_where(Column::MemberId.eq(member))
        .and_where(Column::AssignmentId.is_not_null())
        .to_owned();
    // In one statement, because a revoke waits for it; with the organization in each branch, so
    // that SQLite uses the index of each and does not read the whole organization.
    let theirs = Condition::all()
        .add(Column::OrganizationId.eq(organization))
        .add(Column::AssignmentId.in_subquery(assignments));
    let found = Entity::find()
        .filter(Condition::any().add(own).add(theirs))
        .order_by_asc(Column::Id)
        .all(db)
        .await?;
    let (rows, others): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|row| row.gym_id == gym && row.member_id == member);
    Ok(OfMember {
        rows,
        shared: others.iter().filter_map(|row| row.assignment_id).collect(),
    })
}

/// All of one gym's rows in an organization.
pub async fn of_gym<C: ConnectionTrait>(
    db: &C,
    organization: i64,
    gym: &str,
) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::OrganizationId.eq(organization))
        .filter(Column::GymId.eq(gym))
        .order_by_asc(Column::Id)
        .all(db)
        .await
}

/// How many rows hold the same assignment: more than one where two gyms share it.
pub async fn holders<C: ConnectionTrait>(
    db: &C,
    organization: i64,
    assignment: i64,
) -> Result<u64, DbErr> {
    use sea_orm::PaginatorTrait;
    Entity::find()
        .filter(Column::OrganizationId.eq(organization))
        .filter(Column::AssignmentId.eq(assignment))
        .count(db)
        .await
}
