//! Gyms: their rules, and the provider accounts that are theirs.

use std::collections::BTreeSet;

use super::{By, Outcome};
use crate::error::Error;
use crate::linking::{self, Touched};
use crate::requests::PutGym;
use crate::rows;
use crate::rule_changes::decide_page;
use crate::store::entity::{gyms, rule_changes};
use crate::store::{self, micros};
use crate::unit::Decisions;

/// Creates or replaces a gym. Where its rules change, everybody of a small gym has been decided
/// about when it answers; of a large one the rest follows ([`crate::rule_changes`]).
pub async fn put_gym(decisions: &Decisions, by: &By, put: PutGym) -> Result<Outcome, Error> {
    let outcome = decisions
        .retrying(|| put_gym_once(decisions, by, &put))
        .await?;
    decisions.rule_changes().notify_one();
    Ok(outcome)
}

async fn put_gym_once(decisions: &Decisions, by: &By, put: &PutGym) -> Result<Outcome, Error> {
    let mut unit = decisions.begin(by.cause(decisions)).await?;
    // The gym's before its accounts', like everybody.
    let gym = [linking::gym_lock(&put.gym)].into();
    store::locks::take(unit.db(), gym, BTreeSet::new()).await?;
    let accounts = put
        .accounts
        .iter()
        .map(|(provider, account)| linking::account_lock(provider, account))
        .collect();
    store::locks::take(unit.db(), accounts, BTreeSet::new()).await?;
    let held = store::gyms::find(unit.db(), &put.gym).await?;
    if let Some(held) = &held
        && held.source_version > put.source_version
    {
        return Ok(Outcome::stale(held.source_version));
    }
    let row = gyms::Model {
        gym_id: (&put.gym).into(),
        name: put.name.clone(),
        time_zone: put.time_zone.clone(),
        overdue_grace: rows::span_to_micros(put.overdue_grace),
        overdue_scope: put.overdue_scope.as_str().to_owned(),
        source_version: put.source_version,
    };
    let new_rules = held.as_ref().is_some_and(|held| {
        held.time_zone != row.time_zone
            || held.overdue_grace != row.overdue_grace
            || held.overdue_scope != row.overdue_scope
    });
    store::gyms::put(unit.db(), row).await?;
    if new_rules {
        let change = rule_changes::Model {
            gym_id: (&put.gym).into(),
            after: String::new(),
            actor: by.actor.clone(),
            changed_at: micros(unit.now()),
            traceparent: event_bus::trace_context::current(),
        };
        store::rule_changes::put(unit.db(), change).await?;
    }
    let accounts: BTreeSet<_> = store::gyms::list_accounts(unit.db(), &put.gym)
        .await?
        .into_iter()
        .collect();
    let mut touched = Touched::new();
    if accounts != put.accounts {
        let all: Vec<_> = put.accounts.iter().cloned().collect();
        store::gyms::replace_accounts(unit.db(), &put.gym, &all).await?;
        for (provider, account) in put.accounts.difference(&accounts) {
            let parked =
                store::billing::list_parked_of_account(unit.db(), provider, account).await?;
            linking::settle_held(unit.db(), parked, unit.now(), &mut touched).await?;
        }
    }
    linking::decide_touched(&mut unit, &touched).await?;
    if new_rules {
        decide_page(&mut unit, &put.gym, "").await?;
    }
    let members = unit.commit().await?;
    Ok(Outcome::applied(put.source_version, members))
}
