//! Memberships, the people of each, and the references under which providers know them.

use std::collections::BTreeSet;

use access_domain::ids::{GymId, MemberId, MembershipId};
use sea_orm::sea_query::{Expr, OnConflict, Query};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select, Set,
};

use super::entity::{billing_references, gyms, membership_people, memberships};
use super::keys::{GymKey, MemberKey, MembershipKey};
use super::{Step, StoreError};

/// The row, locked until the transaction ends.
pub async fn lock(
    db: &impl ConnectionTrait,
    gym: &GymId,
    membership: &MembershipId,
) -> Result<Option<memberships::Model>, StoreError> {
    memberships::Entity::find_by_id((GymKey::from(gym), MembershipKey::from(membership)))
        .lock_exclusive()
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
        billing_provider: Set(row.billing_provider),
        billing_account: Set(row.billing_account),
        billing_subscription: Set(row.billing_subscription),
        billing_customer: Set(row.billing_customer),
        billing_mandate: Set(row.billing_mandate),
        source_version: Set(row.source_version),
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
                    Column::BillingProvider,
                    Column::BillingAccount,
                    Column::BillingSubscription,
                    Column::BillingCustomer,
                    Column::BillingMandate,
                    Column::SourceVersion,
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
    of_people(gym, people)
        .all(db)
        .await
        .step("reading memberships")
}

fn of_people(gym: &GymId, people: &BTreeSet<MemberId>) -> Select<memberships::Entity> {
    let theirs = Query::select()
        .column(membership_people::Column::MembershipId)
        .from(membership_people::Entity)
        .and_where(membership_people::Column::GymId.eq(gym.as_str()))
        .and_where(membership_people::Column::MemberId.is_in(people.iter().map(MemberId::as_str)))
        .to_owned();
    memberships::Entity::find()
        .filter(memberships::Column::GymId.eq(gym.as_str()))
        .filter(memberships::Column::MembershipId.in_subquery(theirs))
        .order_by_asc(memberships::Column::MembershipId)
}

/// As [`list_of_people`], with the gym's row from the same moment; none where there is no
/// membership.
pub async fn list_of_people_with_gym(
    db: &impl ConnectionTrait,
    gym: &GymId,
    people: &BTreeSet<MemberId>,
) -> Result<(Option<gyms::Model>, Vec<memberships::Model>), StoreError> {
    let rows = of_people(gym, people)
        .find_also_related(gyms::Entity)
        .all(db)
        .await
        .step("reading memberships")?;
    let mut gym = None;
    let memberships = rows
        .into_iter()
        .map(|(membership, its_gym)| {
            gym = its_gym.or_else(|| gym.take());
            membership
        })
        .collect();
    Ok((gym, memberships))
}

/// Subscriptions of former billing references, as (membership, subscription id).
pub async fn list_former_subscriptions(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &BTreeSet<MembershipId>,
) -> Result<Vec<(MembershipKey, String)>, StoreError> {
    use billing_references::Column;
    if memberships.is_empty() {
        return Ok(Vec::new());
    }
    billing_references::Entity::find()
        .select_only()
        .columns([Column::MembershipId, Column::Reference])
        .filter(Column::GymId.eq(gym.as_str()))
        .filter(Column::MembershipId.is_in(memberships.iter().map(MembershipId::as_str)))
        .filter(Column::Kind.eq("subscription"))
        .filter(Column::IsCurrent.eq(false))
        .into_tuple()
        .all(db)
        .await
        .step("reading former billing references")
}

/// Holders and payers of these memberships, sorted.
pub async fn people_of(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &BTreeSet<MembershipId>,
) -> Result<Vec<MemberKey>, StoreError> {
    let mut people: Vec<MemberKey> = membership_people::Entity::find()
        .select_only()
        .column(membership_people::Column::MemberId)
        .filter(membership_people::Column::GymId.eq(gym.as_str()))
        .filter(
            membership_people::Column::MembershipId
                .is_in(memberships.iter().map(MembershipId::as_str)),
        )
        .into_tuple()
        .all(db)
        .await
        .step("reading the people of a membership")?;
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
