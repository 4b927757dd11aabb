//! Open invoices: facts like a provider's own, linked or parked by the same rules.

use std::collections::BTreeSet;

use contracts::billing::v1::BillingEvent;

use super::{Work, advanced, cause, kept};
use crate::billing_intake::check_against;
use crate::error::Error;
use crate::linking::{self, Touched};
use crate::roster::Stop;
use crate::roster::claim::Claimed;
use crate::roster::compare::{self, Verdict};
use crate::store;
use crate::store::billing::Keys;
use crate::store::roster::imports::Import;
use crate::store::roster::staged::Staged;
use crate::unit::Unit;

pub(super) async fn apply(claimed: &Claimed, page: &[Staged]) -> Result<Work, Stop> {
    let decisions = &claimed.importer.decisions;
    let compared = compare::invoices(decisions.store().reads(), page).await?;
    let events: Vec<BillingEvent> = compared
        .into_iter()
        .filter(|invoice| invoice.verdict == Verdict::Differs)
        .map(|invoice| invoice.event)
        .collect();
    if events.is_empty() {
        return Ok(Work::Nothing);
    }
    let row = decisions
        .retrying(|| apply_once(claimed, page, &events))
        .await?;
    kept(row)
}

async fn apply_once(
    claimed: &Claimed,
    page: &[Staged],
    events: &[BillingEvent],
) -> Result<Option<Import>, Error> {
    let mut unit = claimed.importer.decisions.begin(cause(claimed)).await?;
    let names: BTreeSet<String> = events
        .iter()
        .flat_map(|event| linking::lock_names(&Keys::of_event(event)))
        .collect();
    let accounts = events
        .iter()
        .map(|event| linking::account_lock(&event.provider, &event.account))
        .collect();
    store::locks::take(unit.db(), names, accounts).await?;
    let mut touched = Touched::new();
    let mut done = 0;
    for event in events {
        done += usize::from(take(&unit, event, &mut touched).await?);
    }
    linking::decide_touched(&mut unit, &touched).await?;
    let row = advanced(claimed, unit.db(), page, done).await?;
    if row.is_some() {
        unit.commit().await?;
    }
    Ok(row)
}

/// Takes one fact in; false when it is held.
async fn take(unit: &Unit<'_>, event: &BillingEvent, touched: &mut Touched) -> Result<bool, Error> {
    let keys = Keys::of_event(event);
    let json = serde_json::to_string(event).map_err(Error::Json)?;
    if !store::billing::insert(unit.db(), event, json, unit.now()).await? {
        return Ok(false);
    }
    let tied = store::billing::list_tied(unit.db(), &keys, &event.event_id).await?;
    check_against(event, &tied)?;
    linking::settle_new(unit.db(), &event.event_id, tied, unit.now(), touched).await?;
    Ok(true)
}
