//! The inbox of billing events.
//!
//! An event's row is written once and kept for good: it is the memory of duplicates, the fact
//! itself, and, while nothing claims it, the parking place.

mod each;

use std::collections::{BTreeMap, BTreeSet};

use access_domain::ids::{GymId, MembershipId};
use contracts::billing::v1::BillingEvent;
use jiff::Timestamp;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder,
    QuerySelect, Statement, Value,
};

use super::entity::billing_events;
use super::keys::{GymKey, MembershipKey};
use super::links::Pair;
use super::{Step, StoreError, columns, from_micros, in_list, micros};

pub use each::{insert_each, list_tied_of_each};

/// The metadata key by which an event names its membership.
const NAMED_MEMBERSHIP: &str = "gymflow_membership_id";

/// Takes the event in, unparked; false when its key was taken before.
pub async fn insert(
    db: &impl ConnectionTrait,
    event: &BillingEvent,
    json: String,
    received_at: Timestamp,
) -> Result<bool, StoreError> {
    let sql = "insert into billing_events (provider, account, event_id, event, invoice_id,
            payment_id, subscription_id, customer_id, mandate_id, named_membership, received_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict do nothing";
    let values = values_of(event, json, received_at);
    // Written out, like all that a door waits for: building a query takes longer than running it.
    db.execute_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .await
    .step("taking a billing event in")
    .map(|done| done.rows_affected() > 0)
}

fn values_of(event: &BillingEvent, json: String, received_at: Timestamp) -> [Value; 11] {
    [
        event.provider.clone().into(),
        event.account.clone().into(),
        event.event_id.clone().into(),
        json.into(),
        event.invoice_id.clone().into(),
        event.payment_id.clone().into(),
        event.subscription_id.clone().into(),
        event.customer_id.clone().into(),
        event.mandate_id.clone().into(),
        event.metadata.get(NAMED_MEMBERSHIP).cloned().into(),
        micros(received_at).into(),
    ]
}

/// The event held under this key.
pub async fn find(
    db: &impl ConnectionTrait,
    provider: &str,
    account: &str,
    event_id: &str,
) -> Result<Option<billing_events::Model>, StoreError> {
    billing_events::Entity::find_by_id((
        provider.to_owned(),
        account.to_owned(),
        event_id.to_owned(),
    ))
    .one(db)
    .await
    .step("reading a billing event")
}

/// The ids of an event that links and ties go by.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'a> {
    /// Payment provider.
    pub provider: &'a str,
    /// Its account.
    pub account: &'a str,
    /// Invoice.
    pub invoice: Option<&'a str>,
    /// Payment.
    pub payment: Option<&'a str>,
    /// Subscription.
    pub subscription: Option<&'a str>,
    /// Customer.
    pub customer: Option<&'a str>,
    /// Mandate.
    pub mandate: Option<&'a str>,
    /// Membership named in the metadata.
    pub named_membership: Option<&'a str>,
}

impl<'a> Keys<'a> {
    /// Of an event as it came.
    pub fn of_event(event: &'a BillingEvent) -> Self {
        Self {
            provider: &event.provider,
            account: &event.account,
            invoice: event.invoice_id.as_deref(),
            payment: event.payment_id.as_deref(),
            subscription: event.subscription_id.as_deref(),
            customer: event.customer_id.as_deref(),
            mandate: event.mandate_id.as_deref(),
            named_membership: event.metadata.get(NAMED_MEMBERSHIP).map(String::as_str),
        }
    }

    /// Of an event as it is stored.
    pub fn of_row(row: &'a billing_events::Model) -> Self {
        Self {
            provider: &row.provider,
            account: &row.account,
            invoice: row.invoice_id.as_deref(),
            payment: row.payment_id.as_deref(),
            subscription: row.subscription_id.as_deref(),
            customer: row.customer_id.as_deref(),
            mandate: row.mandate_id.as_deref(),
            named_membership: row.named_membership.as_deref(),
        }
    }
}

/// A held event with what claims it.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its row.
    pub row: billing_events::Model,
    /// The memberships it is about.
    pub links: BTreeSet<Pair>,
    /// Those of them whose gym still owns the account.
    pub owned: BTreeSet<Pair>,
}

impl Held {
    /// Nothing says for certain whose it is: parked, just taken in, or linked by a mandate or
    /// customer alone.
    pub fn is_loose(&self) -> bool {
        self.links.is_empty() || self.row.is_weakly_linked
    }
}

/// One row per event and link.
#[derive(FromQueryResult)]
struct WithLink {
    #[sea_orm(nested)]
    row: billing_events::Model,
    linked_gym: Option<GymKey>,
    linked_membership: Option<MembershipKey>,
    is_owned: bool,
}

/// The event itself and all with the same invoice or payment, linked or parked.
pub async fn list_tied(
    db: &impl ConnectionTrait,
    keys: &Keys<'_>,
    event_id: &str,
) -> Result<Vec<Held>, StoreError> {
    let mut tied = list_tied_of_each(db, std::slice::from_ref(keys), &[event_id]).await?;
    Ok(tied.remove(&0).unwrap_or_default())
}

fn with_links(rows: Vec<WithLink>) -> Vec<Held> {
    let mut held: BTreeMap<String, Held> = BTreeMap::new();
    for with in rows {
        let event = held
            .entry(with.row.event_id.clone())
            .or_insert_with(|| Held {
                row: with.row,
                links: BTreeSet::new(),
                owned: BTreeSet::new(),
            });
        let pair = with.linked_gym.zip(with.linked_membership);
        if with.is_owned {
            event.owned.extend(pair.clone());
        }
        event.links.extend(pair);
    }
    held.into_values().collect()
}

/// All parked events of an account, oldest first.
pub async fn list_parked_of_account(
    db: &impl ConnectionTrait,
    provider: &str,
    account: &str,
) -> Result<Vec<billing_events::Model>, StoreError> {
    billing_events::Entity::find()
        .filter(billing_events::Column::ParkedAt.is_not_null())
        .filter(billing_events::Column::Provider.eq(provider))
        .filter(billing_events::Column::Account.eq(account))
        .order_by_asc(billing_events::Column::ParkedAt)
        .order_by_asc(billing_events::Column::EventId)
        .all(db)
        .await
        .step("reading parked billing events")
}

/// Says how an event is held: parked since when and why, or linked, for certain or weakly.
pub async fn set_held(
    db: &impl ConnectionTrait,
    keys: &Keys<'_>,
    event_id: &str,
    parked: Option<(Timestamp, &str)>,
    is_weakly_linked: bool,
) -> Result<(), StoreError> {
    let sql = "update billing_events set parked_at = $1, parked_why = $2, is_weakly_linked = $3
        where provider = $4 and account = $5 and event_id = $6";
    let values: [Value; 6] = [
        parked.map(|(at, _)| micros(at)).into(),
        parked.map(|(_, why)| why).into(),
        is_weakly_linked.into(),
        keys.provider.into(),
        keys.account.into(),
        event_id.into(),
    ];
    db.execute_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .await
    .step("parking or linking a billing event")
    .map(drop)
}

/// The events linked to any of these memberships.
pub async fn list_of_memberships(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &BTreeSet<MembershipId>,
) -> Result<Vec<billing_events::Model>, StoreError> {
    if memberships.is_empty() {
        return Ok(Vec::new());
    }
    let (list, ids) = in_list(2, memberships.iter().map(MembershipId::as_str));
    let sql = format!(
        "select distinct {} from billing_links l
         join billing_events e
           on e.provider = l.provider and e.account = l.account and e.event_id = l.event_id
         where l.gym_id = $1 and l.membership_id in ({list})",
        columns::<billing_events::Entity>("e"),
    );
    let values = std::iter::once(gym.as_str().into()).chain(ids);
    billing_events::Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading the events of memberships")
}

/// Replaces what an event says. Its key and the ids it is known by stay.
pub async fn replace(
    db: &impl ConnectionTrait,
    keys: &Keys<'_>,
    event_id: &str,
    json: String,
) -> Result<(), StoreError> {
    billing_events::Entity::update_many()
        .filter(billing_events::Column::Provider.eq(keys.provider))
        .filter(billing_events::Column::Account.eq(keys.account))
        .filter(billing_events::Column::EventId.eq(event_id))
        .col_expr(billing_events::Column::Event, Expr::value(json))
        .exec(db)
        .await
        .step("replacing a billing event")
        .map(drop)
}

/// How many events are parked, and since when the oldest is.
pub async fn count_parked(
    db: &impl ConnectionTrait,
) -> Result<(u64, Option<Timestamp>), StoreError> {
    let found: Option<(i64, Option<i64>)> = billing_events::Entity::find()
        .select_only()
        .column_as(billing_events::Column::ParkedAt.count(), "count")
        .column_as(billing_events::Column::ParkedAt.min(), "oldest")
        .filter(billing_events::Column::ParkedAt.is_not_null())
        .into_tuple()
        .one(db)
        .await
        .step("counting parked billing events")?;
    let (count, oldest) = found.unwrap_or_default();
    Ok((count.unsigned_abs(), oldest.map(from_micros)))
}

/// Where a parked event stands among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Since when, microseconds.
    pub at: i64,
    /// Payment provider.
    pub provider: String,
    /// Its account.
    pub account: String,
    /// The provider's id of the event.
    pub event_id: String,
}

/// Parked events after `after`, oldest first: of these accounts, or of accounts that no gym claims.
pub async fn list_parked(
    db: &impl ConnectionTrait,
    accounts: Option<&[(String, String)]>,
    after: Option<Parked>,
    limit: u64,
) -> Result<Vec<billing_events::Model>, StoreError> {
    use billing_events::Column;
    let mut select = billing_events::Entity::find().filter(Column::ParkedAt.is_not_null());
    match accounts {
        Some([]) => return Ok(Vec::new()),
        Some(accounts) => {
            let mut any = Condition::any();
            for (provider, account) in accounts {
                any = any.add(
                    Condition::all()
                        .add(Column::Provider.eq(provider))
                        .add(Column::Account.eq(account)),
                );
            }
            select = select.filter(any);
        }
        None => {
            select = select.filter(Expr::cust(
                "not exists (select 1 from gym_accounts a
                 where a.provider = billing_events.provider
                   and a.account = billing_events.account)",
            ));
        }
    }
    if let Some(after) = after {
        let columns = [
            Column::ParkedAt,
            Column::Provider,
            Column::Account,
            Column::EventId,
        ];
        let position = Expr::tuple([
            Expr::value(after.at),
            Expr::value(after.provider),
            Expr::value(after.account),
            Expr::value(after.event_id),
        ]);
        select = select.filter(Expr::tuple(columns.map(Expr::col)).gt(position));
    }
    select
        .order_by_asc(Column::ParkedAt)
        .order_by_asc(Column::Provider)
        .order_by_asc(Column::Account)
        .order_by_asc(Column::EventId)
        .limit(limit)
        .all(db)
        .await
        .step("listing unmatched billing events")
}
