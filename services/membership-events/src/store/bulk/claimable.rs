//! Events that could be claimed by memberships whose references or ids are new.

use std::iter::repeat_n;

use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};

use crate::store::entity::billing_events;
use crate::store::{Step, StoreError, columns, placeholders};

/// What events may call memberships.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Subscriptions.
    pub subscriptions: Vec<String>,
    /// Customers.
    pub customers: Vec<String>,
    /// Mandates.
    pub mandates: Vec<String>,
    /// The memberships' own ids.
    pub names: Vec<String>,
}

impl Wanted {
    /// Whether any of it is what the event is known by.
    pub fn claims(&self, row: &billing_events::Model) -> bool {
        let has =
            |ids: &[String], id: &Option<String>| id.as_ref().is_some_and(|id| ids.contains(id));
        has(&self.subscriptions, &row.subscription_id)
            || has(&self.customers, &row.customer_id)
            || has(&self.mandates, &row.mandate_id)
            || has(&self.names, &row.named_membership)
    }
}

/// Events of an account that could be claimed by somebody who is called like that: parked ones,
/// oldest first, and those linked by less than a subscription or a name.
pub async fn list_claimable(
    db: &impl ConnectionTrait,
    provider: &str,
    account: &str,
    wanted: &Wanted,
) -> Result<Vec<billing_events::Model>, StoreError> {
    if wanted.names.is_empty() {
        return Ok(Vec::new());
    }
    // One length for all, so that there are few texts; a null equals nothing.
    let lists = [
        &wanted.subscriptions,
        &wanted.names,
        &wanted.customers,
        &wanted.mandates,
    ];
    let longest = lists.iter().map(|list| list.len()).max().unwrap_or(1);
    let length = longest.next_power_of_two();
    let mut values: Vec<Value> = vec![provider.into(), account.into()];
    for list in lists {
        values.extend(list.iter().map(|id| Value::from(id.as_str())));
        values.extend(repeat_n(Value::String(None), length - list.len()));
    }
    let list = |nth: usize| placeholders(3 + nth * length, length);
    // What is parked is read by the index of it. What is linked weakly is found from the ids to the
    // events: asked for `in` them, SQLite reads every event of the account.
    let weakly_linked = |column: &str, nth: usize| {
        let ids: Vec<String> = (0..length)
            .map(|n| format!("(${})", 3 + nth * length + n))
            .collect();
        format!(
            "select {} from (values {}) as v cross join billing_events e
             where e.provider = $1 and e.account = $2 and e.{column} = v.column1
               and e.{column} is not null and e.is_weakly_linked",
            columns::<billing_events::Entity>("e"),
            ids.join(", ")
        )
    };
    let sql = format!(
        "select {} from billing_events e
         where e.provider = $1 and e.account = $2 and e.parked_at is not null
           and (e.subscription_id in ({}) or e.named_membership in ({})
                or e.customer_id in ({}) or e.mandate_id in ({}))
         union all {} union all {}",
        columns::<billing_events::Entity>("e"),
        list(0),
        list(1),
        list(2),
        list(3),
        weakly_linked("subscription_id", 0),
        weakly_linked("named_membership", 1),
    );
    let mut found = billing_events::Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading what could be claimed")?;
    found.sort_by(|a, b| {
        let place = |row: &billing_events::Model| (row.parked_at.is_none(), row.parked_at);
        (place(a), &a.event_id).cmp(&(place(b), &b.event_id))
    });
    Ok(found)
}
