//! Gyms whose rules have changed, and how far everybody was decided about again.
//!
//! A row is locked before the members whom it leads to, by whoever writes it.

use access_domain::ids::{GymId, MemberId};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter, QueryOrder,
    QuerySelect, Set, Statement,
};

use super::entity::rule_changes;
use super::keys::GymKey;
use super::{Step, StoreError, columns};

/// Keeps that everybody is to be decided about, from the first on.
pub async fn put(db: &impl ConnectionTrait, row: rule_changes::Model) -> Result<(), StoreError> {
    let row = rule_changes::ActiveModel {
        gym_id: Set(row.gym_id),
        after: Set(row.after),
        actor: Set(row.actor),
        changed_at: Set(row.changed_at),
        traceparent: Set(row.traceparent),
    };
    rule_changes::Entity::insert(row)
        .on_conflict(
            OnConflict::column(rule_changes::Column::GymId)
                .update_columns([
                    rule_changes::Column::After,
                    rule_changes::Column::Actor,
                    rule_changes::Column::ChangedAt,
                    rule_changes::Column::Traceparent,
                ])
                .to_owned(),
        )
        .exec_without_returning(db)
        .await
        .step("keeping a change of rules")
        .map(drop)
}

/// The gyms where somebody is still to be decided about.
pub async fn list_gyms(db: &impl ConnectionTrait) -> Result<Vec<GymKey>, StoreError> {
    rule_changes::Entity::find()
        .select_only()
        .column(rule_changes::Column::GymId)
        .order_by_asc(rule_changes::Column::GymId)
        .into_tuple()
        .all(db)
        .await
        .step("listing changes of rules")
}

/// The gym's row, locked until the transaction ends; none where it is done, or another replica is at
/// it.
pub async fn claim(
    db: &impl ConnectionTrait,
    gym: &GymId,
) -> Result<Option<rule_changes::Model>, StoreError> {
    let lock = match db.get_database_backend() {
        DbBackend::Postgres => "for update skip locked",
        _ => "",
    };
    let sql = format!(
        "select {} from rule_changes where gym_id = $1 {lock}",
        columns::<rule_changes::Entity>("rule_changes")
    );
    rule_changes::Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [gym.as_str().into()],
    ))
    .one(db)
    .await
    .step("claiming a change of rules")
}

/// Keeps that everybody up to this member was decided about.
pub async fn advance(
    db: &impl ConnectionTrait,
    gym: &GymId,
    after: &MemberId,
) -> Result<(), StoreError> {
    rule_changes::Entity::update_many()
        .filter(rule_changes::Column::GymId.eq(gym.as_str()))
        .col_expr(rule_changes::Column::After, Expr::value(after.as_str()))
        .exec(db)
        .await
        .step("going on with a change of rules")
        .map(drop)
}

/// Everybody was decided about.
pub async fn delete(db: &impl ConnectionTrait, gym: &GymId) -> Result<(), StoreError> {
    rule_changes::Entity::delete_many()
        .filter(rule_changes::Column::GymId.eq(gym.as_str()))
        .exec(db)
        .await
        .step("ending a change of rules")
        .map(drop)
}
