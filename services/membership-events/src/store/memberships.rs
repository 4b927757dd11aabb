//! Memberships, the people of each, and the references under which providers know them.

use std::collections::BTreeSet;

use access_domain::ids::{GymId, MemberId, MembershipId};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter, Set,
    Statement, Value,
};

use super::entity::{billing_references, gyms, membership_people, memberships};
use super::keys::{MemberKey, MembershipKey};
use super::{Step, StoreError, columns, placeholders};

/// The row, locked until the transaction ends.
pub async fn lock(
    db: &impl ConnectionTrait,
    gym: &GymId,
    membership: &MembershipId,
) -> Result<Option<memberships::Model>, StoreError> {
    let lock = match db.get_database_backend() {
        DbBackend::Postgres => "for update",
        _ => "",
    };
    let sql = format!(
        "select {} from memberships where gym_id = $1 and membership_id = $2 {lock}",
        columns::<memberships::Entity>("memberships")
    );
    memberships::Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [gym.as_str().into(), membership.as_str().into()],
    ))
    .one(db)
    .await
    .step("locking a membership")
}

/// Creates or replaces the whole row.
pub async fn put(db: &impl ConnectionTrait, row: memberships::Model) -> Result<(), StoreError> {
    use memberships::Column;
    let row = memberships::ActiveModel {
        gym_id: Set(row.gym_id),
        membership_id: Set(row.membership_id),
        plan_id: Set(row.plan_id),
        holders: Set(row.holders),
        payer_member_id: Set(row.payer_member_id),
        starts_on: Set(row.starts_on),
        ends_on: Set(row.ends_on),
        next_plan_id: Set(row.next_plan_id),
        next_plan_from: Set(row.next_plan_from),
        cancelled_at: Set(row.cancelled_at),
        cancel_ends_on: Set(row.cancel_ends_on),
        pauses: Set(row.pauses),
        provider_pauses_ended_at: Set(row.provider_pauses_ended_at),
        resumed_source_version: Set(row.resumed_source_version),
        billing_provider: Set(row.billing_provider),
        billing_account: Set(row.billing_account),
        billing_subscription: Set(row.billing_subscription),
        billing_customer: Set(row.billing_customer),
        billing_mandate: Set(row.billing_mandate),
        source_version: Set(row.source_version),
        written_at: Set(row.written_at),
    };
    memberships::Entity::insert(row)
        .on_conflict(
            OnConflict::columns([Column::GymId, Column::MembershipId])
                .update_columns([
                    Column::PlanId,
                    Column::Holders,
                    Column::PayerMemberId,
                    Column::StartsOn,
                    Column::EndsOn,
                    Column::NextPlanId,
                    Column::NextPlanFrom,
                    Column::CancelledAt,
                    Column::CancelEndsOn,
                    Column::Pauses,
                    Column::ProviderPausesEndedAt,
                    Column::ResumedSourceVersion,
                    Column::BillingProvider,
                    Column::BillingAccount,
                    Column::BillingSubscription,
                    Column::BillingCustomer,
                    Column::BillingMandate,
                    Column::SourceVersion,
                    Column::WrittenAt,
                ])
                .to_owned(),
        )
        .exec_without_returning(db)
        .await
        .step("writing a membership")
        .map(drop)
}

/// All memberships of which any of `people` is a holder or the payer.
pub async fn list_of_people(
    db: &impl ConnectionTrait,
    gym: &GymId,
    people: &BTreeSet<MemberId>,
) -> Result<Vec<memberships::Model>, StoreError> {
    list_of_people_with_gym(db, gym, people)
        .await
        .map(|(_, memberships)| memberships)
}

/// A membership with its gym's row.
#[derive(FromQueryResult)]
struct WithGym {
    #[sea_orm(nested)]
    membership: memberships::Model,
    gym_name: String,
    time_zone: String,
    overdue_grace: i64,
    overdue_scope: String,
    gym_source_version: i64,
}

/// As [`list_of_people`], with the gym's row from the same moment; none where there is no
/// membership.
pub async fn list_of_people_with_gym(
    db: &impl ConnectionTrait,
    gym: &GymId,
    people: &BTreeSet<MemberId>,
) -> Result<(Option<gyms::Model>, Vec<memberships::Model>), StoreError> {
    let sql = format!(
        "select {}, g.name as gym_name, g.time_zone, g.overdue_grace, g.overdue_scope,
                g.source_version as gym_source_version
         from memberships m join gyms g on g.gym_id = m.gym_id
         where m.gym_id = $1 and m.membership_id in (
             select membership_id from membership_people
             where gym_id = $1 and member_id in ({}))
         order by m.membership_id",
        columns::<memberships::Entity>("m"),
        placeholders(2, people.len())
    );
    let values = std::iter::once(gym.as_str())
        .chain(people.iter().map(MemberId::as_str))
        .map(Value::from);
    let rows = WithGym::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading memberships")?;
    let mut its_gym = None;
    let mut memberships = Vec::with_capacity(rows.len());
    for row in rows {
        its_gym.get_or_insert_with(|| gyms::Model {
            gym_id: row.membership.gym_id.clone(),
            name: row.gym_name,
            time_zone: row.time_zone,
            overdue_grace: row.overdue_grace,
            overdue_scope: row.overdue_scope,
            source_version: row.gym_source_version,
        });
        memberships.push(row.membership);
    }
    Ok((its_gym, memberships))
}

/// Subscriptions of former billing references, as (membership, subscription id).
pub async fn list_former_subscriptions(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &BTreeSet<MembershipId>,
) -> Result<Vec<(MembershipKey, String)>, StoreError> {
    if memberships.is_empty() {
        return Ok(Vec::new());
    }
    #[derive(FromQueryResult)]
    struct Former {
        membership_id: MembershipKey,
        reference: String,
    }
    let sql = format!(
        "select membership_id, reference from billing_references
         where gym_id = $1 and membership_id in ({}) and kind = 'subscription' and not is_current",
        placeholders(2, memberships.len())
    );
    let values = std::iter::once(gym.as_str())
        .chain(memberships.iter().map(MembershipId::as_str))
        .map(Value::from);
    let former = Former::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading former billing references")?;
    Ok(former
        .into_iter()
        .map(|row| (row.membership_id, row.reference))
        .collect())
}

/// Holders and payers of these memberships, sorted.
pub async fn people_of(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &BTreeSet<MembershipId>,
) -> Result<Vec<MemberKey>, StoreError> {
    #[derive(FromQueryResult)]
    struct Person {
        member_id: MemberKey,
    }
    let sql = format!(
        "select member_id from membership_people where gym_id = $1 and membership_id in ({})",
        placeholders(2, memberships.len())
    );
    let values = std::iter::once(gym.as_str())
        .chain(memberships.iter().map(MembershipId::as_str))
        .map(Value::from);
    let people = Person::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading the people of a membership")?;
    let mut people: Vec<MemberKey> = people.into_iter().map(|row| row.member_id).collect();
    people.sort_unstable();
    people.dedup();
    Ok(people)
}

/// Makes `people` the holders and payer of the membership.
pub async fn replace_people(
    db: &impl ConnectionTrait,
    gym: &GymId,
    membership: &MembershipId,
    people: &BTreeSet<MemberId>,
) -> Result<(), StoreError> {
    membership_people::Entity::delete_many()
        .filter(membership_people::Column::GymId.eq(gym.as_str()))
        .filter(membership_people::Column::MembershipId.eq(membership.as_str()))
        .exec(db)
        .await
        .step("writing the people of a membership")?;
    let rows = people.iter().map(|member| membership_people::ActiveModel {
        gym_id: Set(gym.into()),
        member_id: Set(member.into()),
        membership_id: Set(membership.into()),
    });
    membership_people::Entity::insert_many(rows)
        .exec_without_returning(db)
        .await
        .step("writing the people of a membership")
        .map(drop)
}

/// Makes these the current references, as (kind, id); all others of the membership become former.
pub async fn replace_references(
    db: &impl ConnectionTrait,
    gym: &GymId,
    membership: &MembershipId,
    account: Option<(&str, &str)>,
    references: &[(&'static str, String)],
) -> Result<(), StoreError> {
    use billing_references::Column;
    billing_references::Entity::update_many()
        .filter(Column::GymId.eq(gym.as_str()))
        .filter(Column::MembershipId.eq(membership.as_str()))
        .col_expr(Column::IsCurrent, Expr::value(false))
        .exec(db)
        .await
        .step("writing billing references")?;
    let Some((provider, account)) = account.filter(|_| !references.is_empty()) else {
        return Ok(());
    };
    let rows = references
        .iter()
        .map(|(kind, reference)| billing_references::ActiveModel {
            provider: Set(provider.to_owned()),
            account: Set(account.to_owned()),
            kind: Set((*kind).to_owned()),
            reference: Set(reference.clone()),
            gym_id: Set(gym.into()),
            membership_id: Set(membership.into()),
            is_current: Set(true),
        });
    billing_references::Entity::insert_many(rows)
        .on_conflict(
            OnConflict::columns([
                Column::Provider,
                Column::Account,
                Column::Kind,
                Column::Reference,
                Column::GymId,
                Column::MembershipId,
            ])
            .update_column(Column::IsCurrent)
            .to_owned(),
        )
        .exec_without_returning(db)
        .await
        .step("writing billing references")
        .map(drop)
}
