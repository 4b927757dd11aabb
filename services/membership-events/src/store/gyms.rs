//! Gyms and the provider accounts that are theirs.

use access_domain::ids::GymId;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, Set, Statement,
};

use super::entity::{gym_accounts, gyms};
use super::{Step, StoreError, columns};

/// The gym's row.
pub async fn find(
    db: &impl ConnectionTrait,
    gym: &GymId,
) -> Result<Option<gyms::Model>, StoreError> {
    let sql = format!(
        "select {} from gyms where gym_id = $1",
        columns::<gyms::Entity>("gyms")
    );
    gyms::Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [gym.as_str().into()],
    ))
    .one(db)
    .await
    .step("reading a gym")
}

/// Creates or replaces the row.
pub async fn put(db: &impl ConnectionTrait, row: gyms::Model) -> Result<(), StoreError> {
    let row = gyms::ActiveModel {
        gym_id: Set(row.gym_id),
        name: Set(row.name),
        time_zone: Set(row.time_zone),
        overdue_grace: Set(row.overdue_grace),
        overdue_scope: Set(row.overdue_scope),
        source_version: Set(row.source_version),
    };
    gyms::Entity::insert(row)
        .on_conflict(
            OnConflict::column(gyms::Column::GymId)
                .update_columns([
                    gyms::Column::Name,
                    gyms::Column::TimeZone,
                    gyms::Column::OverdueGrace,
                    gyms::Column::OverdueScope,
                    gyms::Column::SourceVersion,
                ])
                .to_owned(),
        )
        .exec_without_returning(db)
        .await
        .step("writing a gym")
        .map(drop)
}

/// The gym's accounts as (provider, account), sorted.
pub async fn list_accounts(
    db: &impl ConnectionTrait,
    gym: &GymId,
) -> Result<Vec<(String, String)>, StoreError> {
    let sql = format!(
        "select {} from gym_accounts a where a.gym_id = $1 order by a.provider, a.account",
        columns::<gym_accounts::Entity>("a")
    );
    let rows = gym_accounts::Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [gym.as_str().into()],
    ))
    .all(db)
    .await
    .step("reading a gym's accounts")?;
    Ok(rows
        .into_iter()
        .map(|row| (row.provider, row.account))
        .collect())
}

/// Makes `accounts` the gym's accounts, all others dropped.
pub async fn replace_accounts(
    db: &impl ConnectionTrait,
    gym: &GymId,
    accounts: &[(String, String)],
) -> Result<(), StoreError> {
    gym_accounts::Entity::delete_many()
        .filter(gym_accounts::Column::GymId.eq(gym.as_str()))
        .exec(db)
        .await
        .step("writing a gym's accounts")?;
    if accounts.is_empty() {
        return Ok(());
    }
    let rows = accounts
        .iter()
        .map(|(provider, account)| gym_accounts::ActiveModel {
            provider: Set(provider.clone()),
            account: Set(account.clone()),
            gym_id: Set(gym.into()),
        });
    gym_accounts::Entity::insert_many(rows)
        .exec_without_returning(db)
        .await
        .step("writing a gym's accounts")
        .map(drop)
}
