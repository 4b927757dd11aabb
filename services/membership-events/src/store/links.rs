//! Which memberships could claim an event, and which do.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::ids::{GymId, MembershipId};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter, Statement,
    Value,
};

use super::billing::Keys;
use super::entity::{billing_links, gym_accounts};
use super::keys::{GymKey, MembershipKey};
use super::{Step, StoreError, in_list, portions};

/// A membership in its gym.
pub type Pair = (GymKey, MembershipKey);

/// What could claim an event.
#[derive(Debug, Clone, FromQueryResult)]
pub struct Candidate {
    /// The gym.
    pub gym_id: GymKey,
    /// The membership.
    pub membership_id: MembershipKey,
    /// `subscription`, `customer`, `mandate` or `metadata`.
    pub kind: String,
    /// False for a former reference.
    pub is_current: bool,
    /// The membership's current reference names a subscription.
    pub has_subscription: bool,
}

/// Memberships, within gyms that own the account, that know one of the event's references or that
/// it names.
pub async fn list_candidates(
    db: &impl ConnectionTrait,
    key: &Keys<'_>,
) -> Result<Vec<Candidate>, StoreError> {
    let mut candidates = list_candidates_of_each(db, std::slice::from_ref(key)).await?;
    Ok(candidates.remove(&0).unwrap_or_default())
}

/// One row per event and candidate.
#[derive(FromQueryResult)]
struct OfItem {
    item: i64,
    #[sea_orm(nested)]
    candidate: Candidate,
}

/// As [`list_candidates`], for each of several events: by its place among `keys`.
pub async fn list_candidates_of_each(
    db: &impl ConnectionTrait,
    keys: &[Keys<'_>],
) -> Result<BTreeMap<usize, Vec<Candidate>>, StoreError> {
    let rows: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(item, keys)| {
            [
                Value::from(item as i64),
                keys.provider.into(),
                keys.account.into(),
                keys.subscription.into(),
                keys.customer.into(),
                keys.mandate.into(),
                keys.named_membership.into(),
            ]
        })
        .collect();
    let each = |select: &str, from: &str| match db.get_database_backend() {
        // Event by event, by the index: as one join PostgreSQL reads all that is known of an
        // account, as long as it has not counted how much that is.
        DbBackend::Postgres => format!(
            "select v.item, c.* from v cross join lateral (select {select} from {from} offset 0) c"
        ),
        _ => format!("select v.item, {select} from v cross join {from}"),
    };
    let known_by = |kind: &str| {
        let from = format!(
            "billing_references r
             join gym_accounts a
               on a.provider = r.provider and a.account = r.account and a.gym_id = r.gym_id
             join memberships m on m.gym_id = r.gym_id and m.membership_id = r.membership_id
             where r.provider = v.provider and r.account = v.account
               and r.kind = '{kind}' and r.reference = v.{kind}"
        );
        each(
            "r.gym_id, r.membership_id, r.kind, r.is_current,
             m.billing_subscription is not null as has_subscription",
            &from,
        )
    };
    let named = each(
        "m.gym_id, m.membership_id, 'metadata' as kind, true as is_current,
         true as has_subscription",
        "gym_accounts a join memberships m on m.gym_id = a.gym_id
         where a.provider = v.provider and a.account = v.account and m.membership_id = v.named",
    );
    let (by_subscription, by_customer, by_mandate) = (
        known_by("subscription"),
        known_by("customer"),
        known_by("mandate"),
    );
    let mut by_item: BTreeMap<usize, Vec<Candidate>> = BTreeMap::new();
    for some in portions(db.get_database_backend(), rows) {
        let sql = format!(
            "with v (item, provider, account, subscription, customer, mandate, named)
                 as (values {})
             {by_subscription} union all {by_customer} union all {by_mandate} union all {named}",
            some.tuples
        );
        let rows = OfItem::find_by_statement(Statement::from_sql_and_values(
            db.get_database_backend(),
            sql,
            some.values,
        ))
        .all(db)
        .await
        .step("looking for billing events' memberships")?;
        for row in rows {
            let item = usize::try_from(row.item).unwrap_or(usize::MAX);
            by_item.entry(item).or_default().push(row.candidate);
        }
    }
    Ok(by_item)
}

/// Gives events, each by its keys and id, to memberships.
pub async fn link_each(
    db: &impl ConnectionTrait,
    links: &[(Keys<'_>, &str, &Pair)],
) -> Result<(), StoreError> {
    let rows: Vec<_> = links
        .iter()
        .map(|(keys, event_id, (gym, membership))| {
            [
                Value::from(keys.provider),
                keys.account.into(),
                (*event_id).into(),
                gym.clone().into(),
                membership.clone().into(),
            ]
        })
        .collect();
    for some in portions(db.get_database_backend(), rows) {
        let rows = some.inserted();
        let sql = format!(
            "insert into billing_links (provider, account, event_id, gym_id, membership_id)
             {rows} on conflict do nothing"
        );
        db.execute_raw(Statement::from_sql_and_values(
            db.get_database_backend(),
            sql,
            some.values,
        ))
        .await
        .step("linking billing events")?;
    }
    Ok(())
}

/// Gives the event to these memberships.
pub async fn link(
    db: &impl ConnectionTrait,
    keys: &Keys<'_>,
    event_id: &str,
    memberships: &BTreeSet<Pair>,
) -> Result<(), StoreError> {
    let mut sql = String::from(
        "insert into billing_links (provider, account, event_id, gym_id, membership_id) values ",
    );
    let mut values: Vec<Value> = vec![keys.provider.into(), keys.account.into(), event_id.into()];
    for (index, (gym, membership)) in memberships.iter().enumerate() {
        let (n, comma) = (values.len(), if index == 0 { "" } else { ", " });
        sql.push_str(&format!("{comma}($1, $2, $3, ${}, ${})", n + 1, n + 2));
        values.extend([gym.clone().into(), membership.clone().into()]);
    }
    sql.push_str(" on conflict do nothing");
    db.execute_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .await
    .step("linking a billing event")
    .map(drop)
}

/// Takes the event from everybody.
pub async fn unlink(
    db: &impl ConnectionTrait,
    keys: &Keys<'_>,
    event_id: &str,
) -> Result<(), StoreError> {
    billing_links::Entity::delete_many()
        .filter(billing_links::Column::Provider.eq(keys.provider))
        .filter(billing_links::Column::Account.eq(keys.account))
        .filter(billing_links::Column::EventId.eq(event_id))
        .exec(db)
        .await
        .step("unlinking a billing event")
        .map(drop)
}

/// One event of a membership.
#[derive(FromQueryResult)]
struct Linked {
    membership_id: MembershipKey,
    event: String,
}

/// The events of these memberships, each as (membership, event JSON).
pub async fn list_linked(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &BTreeSet<MembershipId>,
) -> Result<Vec<(MembershipKey, String)>, StoreError> {
    if memberships.is_empty() {
        return Ok(Vec::new());
    }
    let (list, ids) = in_list(2, memberships.iter().map(MembershipId::as_str));
    let sql = format!(
        "select l.membership_id, e.event from billing_links l
         join billing_events e
           on e.provider = l.provider and e.account = l.account and e.event_id = l.event_id
         where l.gym_id = $1 and l.membership_id in ({list})"
    );
    let values = std::iter::once(gym.as_str().into()).chain(ids);
    let linked = Linked::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading billing facts")?;
    Ok(linked
        .into_iter()
        .map(|row| (row.membership_id, row.event))
        .collect())
}

/// True when any gym calls the account its own.
pub async fn is_known_account(
    db: &impl ConnectionTrait,
    provider: &str,
    account: &str,
) -> Result<bool, StoreError> {
    gym_accounts::Entity::find()
        .filter(gym_accounts::Column::Provider.eq(provider))
        .filter(gym_accounts::Column::Account.eq(account))
        .one(db)
        .await
        .step("looking for an account's gym")
        .map(|row| row.is_some())
}
