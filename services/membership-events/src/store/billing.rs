//! The inbox of billing events.
//!
//! An event's row is written once and kept for good: it is the memory of duplicates, the fact
//! itself, and, while nothing claims it, the parking place.

use contracts::billing::v1::BillingEvent;
use jiff::Timestamp;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder,
    QuerySelect, Statement, Value,
};

use super::entity::billing_events;
use super::{Step, StoreError, micros};

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
    let values: [Value; 11] = [
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
    ];
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

    pub(super) fn ties(&self) -> Option<Condition> {
        use billing_events::Column;
        // The account is named in each branch: only then does SQLite use the index of each,
        // and not read all events of the account.
        let branches = [
            (Column::InvoiceId, self.invoice),
            (Column::PaymentId, self.payment),
        ];
        let any = branches
            .into_iter()
            .filter_map(|(column, id)| Some((column, id?)))
            .fold(Condition::any(), |any, (column, id)| {
                any.add(
                    Condition::all()
                        .add(Column::Provider.eq(self.provider))
                        .add(Column::Account.eq(self.account))
                        .add(column.eq(id)),
                )
            });
        (!any.is_empty()).then_some(any)
    }
}

/// All events with the same invoice or payment, linked or parked.
pub async fn list_tied(
    db: &impl ConnectionTrait,
    keys: &Keys<'_>,
) -> Result<Vec<billing_events::Model>, StoreError> {
    if keys.invoice.is_none() && keys.payment.is_none() {
        return Ok(Vec::new());
    }
    // The account is named in each branch: only then does SQLite use the index of each, and not
    // read all events of the account. An id that is not there equals nothing.
    let sql = "select * from billing_events
        where (provider = $1 and account = $2 and invoice_id = $3)
           or (provider = $1 and account = $2 and payment_id = $4)";
    billing_events::Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [
            keys.provider.into(),
            keys.account.into(),
            keys.invoice.into(),
            keys.payment.into(),
        ],
    ))
    .all(db)
    .await
    .step("reading tied billing events")
}

/// Parked events of an account that know one of these references, or name this membership.
pub async fn list_parked_by_reference(
    db: &impl ConnectionTrait,
    keys: &Keys<'_>,
) -> Result<Vec<billing_events::Model>, StoreError> {
    let mut any = Condition::any();
    for (column, id) in [
        (billing_events::Column::SubscriptionId, keys.subscription),
        (billing_events::Column::CustomerId, keys.customer),
        (billing_events::Column::MandateId, keys.mandate),
        (
            billing_events::Column::NamedMembership,
            keys.named_membership,
        ),
    ] {
        if let Some(id) = id {
            any = any.add(column.eq(id));
        }
    }
    let of_account = Condition::all()
        .add(billing_events::Column::Provider.eq(keys.provider))
        .add(billing_events::Column::Account.eq(keys.account));
    parked(db, of_account.add(any)).await
}

/// All parked events of an account, oldest first.
pub async fn list_parked_of_account(
    db: &impl ConnectionTrait,
    provider: &str,
    account: &str,
) -> Result<Vec<billing_events::Model>, StoreError> {
    parked(
        db,
        Condition::all()
            .add(billing_events::Column::Provider.eq(provider))
            .add(billing_events::Column::Account.eq(account)),
    )
    .await
}

async fn parked(
    db: &impl ConnectionTrait,
    condition: Condition,
) -> Result<Vec<billing_events::Model>, StoreError> {
    billing_events::Entity::find()
        .filter(billing_events::Column::ParkedAt.is_not_null())
        .filter(condition)
        .order_by_asc(billing_events::Column::ParkedAt)
        .order_by_asc(billing_events::Column::EventId)
        .all(db)
        .await
        .step("reading parked billing events")
}

/// Parks or unparks an event.
pub async fn set_parked(
    db: &impl ConnectionTrait,
    keys: &Keys<'_>,
    event_id: &str,
    parked: Option<(Timestamp, &str)>,
) -> Result<(), StoreError> {
    billing_events::Entity::update_many()
        .filter(billing_events::Column::Provider.eq(keys.provider))
        .filter(billing_events::Column::Account.eq(keys.account))
        .filter(billing_events::Column::EventId.eq(event_id))
        .col_expr(
            billing_events::Column::ParkedAt,
            Expr::value(parked.map(|(at, _)| micros(at))),
        )
        .col_expr(
            billing_events::Column::ParkedWhy,
            Expr::value(parked.map(|(_, why)| why.to_owned())),
        )
        .exec(db)
        .await
        .step("parking a billing event")
        .map(drop)
}

/// Parked events after `after` (parked at, event id), oldest first: of these accounts, or of
/// accounts that no gym claims.
pub async fn list_parked(
    db: &impl ConnectionTrait,
    accounts: Option<&[(String, String)]>,
    after: Option<(i64, String)>,
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
    if let Some((at, event_id)) = after {
        select = select.filter(
            Condition::any().add(Column::ParkedAt.gt(at)).add(
                Condition::all()
                    .add(Column::ParkedAt.eq(at))
                    .add(Column::EventId.gt(event_id)),
            ),
        );
    }
    select
        .order_by_asc(Column::ParkedAt)
        .order_by_asc(Column::EventId)
        .limit(limit)
        .all(db)
        .await
        .step("listing unmatched billing events")
}
