//! As single events are taken in and read, several in one statement.

use std::collections::BTreeMap;

use contracts::billing::v1::BillingEvent;
use jiff::Timestamp;
use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};

use super::{Held, Keys, WithLink, values_of, with_links};
use crate::store::entity::billing_events;
use crate::store::{Step, StoreError, columns, portions};

/// Takes events in, as (event, JSON, when it was received), unparked. Answers the ids of those whose
/// key was not taken before.
pub async fn insert_each(
    db: &impl ConnectionTrait,
    events: &[(&BillingEvent, String, Timestamp)],
) -> Result<Vec<String>, StoreError> {
    #[derive(FromQueryResult)]
    struct New {
        event_id: String,
    }
    let mut ids = Vec::with_capacity(events.len());
    let rows: Vec<_> = events
        .iter()
        .map(|(event, json, received_at)| values_of(event, json.clone(), *received_at))
        .collect();
    for some in portions(db.get_database_backend(), rows) {
        let rows = some.inserted();
        let sql = format!(
            "insert into billing_events (provider, account, event_id, event, invoice_id, payment_id,
                 subscription_id, customer_id, mandate_id, named_membership, received_at)
             {rows} on conflict do nothing returning event_id"
        );
        let new = New::find_by_statement(Statement::from_sql_and_values(
            db.get_database_backend(),
            sql,
            some.values,
        ))
        .all(db)
        .await
        .step("taking billing events in")?;
        ids.extend(new.into_iter().map(|row| row.event_id));
    }
    Ok(ids)
}

/// One row per event and link, for each of several events.
#[derive(FromQueryResult)]
struct WithItem {
    item: i64,
    #[sea_orm(nested)]
    with: WithLink,
}

/// As [`list_tied`], for each of several events: by its place among `keys`.
pub async fn list_tied_of_each(
    db: &impl ConnectionTrait,
    keys: &[Keys<'_>],
    event_ids: &[&str],
) -> Result<BTreeMap<usize, Vec<Held>>, StoreError> {
    let rows: Vec<_> = keys
        .iter()
        .zip(event_ids)
        .enumerate()
        .map(|(item, (keys, event_id))| {
            [
                Value::from(item as i64),
                keys.provider.into(),
                keys.account.into(),
                (*event_id).into(),
                keys.invoice.into(),
                keys.payment.into(),
            ]
        })
        .collect();
    let same = |condition: &str| {
        format!(
            "select v.item, e.provider, e.account, e.event_id from v cross join billing_events e
             where e.provider = v.provider and e.account = v.account and {condition}"
        )
    };
    let mut by_item: BTreeMap<usize, Vec<WithLink>> = BTreeMap::new();
    for some in portions(db.get_database_backend(), rows) {
        let sql = format!(
            "with v (item, provider, account, event_id, invoice_id, payment_id) as (values {}),
                  f (item, provider, account, event_id) as ({} union {} union {})
             select f.item, {}, l.gym_id as linked_gym, l.membership_id as linked_membership,
                    a.gym_id is not null as is_owned
             from f
             join billing_events e
               on e.provider = f.provider and e.account = f.account and e.event_id = f.event_id
             left join billing_links l
               on l.provider = e.provider and l.account = e.account and l.event_id = e.event_id
             left join gym_accounts a
               on a.provider = l.provider and a.account = l.account and a.gym_id = l.gym_id",
            some.tuples,
            same("e.event_id = v.event_id"),
            same("e.invoice_id = v.invoice_id"),
            same("e.payment_id = v.payment_id"),
            columns::<billing_events::Entity>("e")
        );
        let rows = WithItem::find_by_statement(Statement::from_sql_and_values(
            db.get_database_backend(),
            sql,
            some.values,
        ))
        .all(db)
        .await
        .step("reading tied billing events")?;
        for row in rows {
            let item = usize::try_from(row.item).unwrap_or(usize::MAX);
            by_item.entry(item).or_default().push(row.with);
        }
    }
    Ok(by_item
        .into_iter()
        .map(|(item, rows)| (item, with_links(rows)))
        .collect())
}
