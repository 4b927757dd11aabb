//! Several events in one transaction: the plain ones, which are most.
//!
//! Plain is an event that is somebody's for certain, that contradicts nothing, and whose invoice
//! and payment belong to no event that still waits for its membership. Whatever else there is, is
//! left to be taken alone, which knows every case; so is a group that fails, one event after the
//! other, and no event spoils another one.
//!
//! All is read before anything is written, in one statement for each kind of row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::debug;

use super::{Item, Taken, cause_of, check_against, is_same};
use crate::cause::Causes;
use crate::error::Error;
use crate::linking::{self, Touched};
use crate::store::billing::{self, Held, Keys};
use crate::store::links::{self, Pair};
use crate::store::{former_payers, locks};
use crate::unit::{Decisions, Unit};

/// Takes in what can be taken in together. `None` of what has to be taken in alone.
pub(super) async fn take(
    decisions: &Decisions,
    items: &[Item],
) -> Vec<Option<Result<Taken, Error>>> {
    match take_once(decisions, items).await {
        Ok(taken) => taken.into_iter().map(|taken| taken.map(Ok)).collect(),
        Err(error) => {
            debug!(
                events = items.len(),
                "Billing events are taken in one by one: {error}"
            );
            items.iter().map(|_| None).collect()
        }
    }
}

/// What is to be written of an event.
struct Plain<'a> {
    item: &'a Item,
    pairs: BTreeSet<Pair>,
    /// A present reference names its membership.
    is_named: bool,
}

async fn take_once(decisions: &Decisions, items: &[Item]) -> Result<Vec<Option<Taken>>, Error> {
    let keys: Vec<Keys<'_>> = items
        .iter()
        .map(|item| Keys::of_event(&item.event))
        .collect();
    let ids: Vec<&str> = items
        .iter()
        .map(|item| item.event.event_id.as_str())
        .collect();
    let mut unit = decisions.begin(Causes::Each(BTreeMap::new())).await?;
    let account = |keys: &Keys<'_>| linking::account_lock(keys.provider, keys.account);
    locks::take(
        unit.db(),
        keys.iter().flat_map(linking::lock_names).collect(),
        keys.iter().map(account).collect(),
    )
    .await?;
    let mut tied = billing::list_tied_of_each(unit.db(), &keys, &ids).await?;
    let mut candidates = links::list_candidates_of_each(unit.db(), &keys).await?;
    let mut taken = Vec::with_capacity(items.len());
    let mut plain = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let tied = tied.remove(&index).unwrap_or_default();
        let candidates = candidates.remove(&index).unwrap_or_default();
        let is_held = |held: &&Held| held.row.event_id == item.event.event_id;
        if let Some(held) = tied.iter().find(is_held) {
            taken.push(is_same(&item.event, &held.row).then_some(Taken::Duplicate));
            continue;
        }
        let is_named = linking::is_named_at_present(&candidates);
        let pairs = match check_against(&item.event, &tied) {
            Ok(()) => linking::plainly_linked(&candidates, tied),
            Err(_) => None,
        };
        taken.push(pairs.as_ref().map(|_| Taken::Applied));
        plain.extend(pairs.map(|pairs| Plain {
            item,
            pairs,
            is_named,
        }));
    }
    if !plain.is_empty() {
        write(&mut unit, &plain).await?;
        unit.commit().await?;
    }
    Ok(taken)
}

async fn write(unit: &mut Unit<'_>, plain: &[Plain<'_>]) -> Result<(), Error> {
    let mut rows = Vec::with_capacity(plain.len());
    let mut links = Vec::with_capacity(plain.len());
    let mut touched = Touched::new();
    for Plain { item, pairs, .. } in plain {
        let json = serde_json::to_string(&item.event).map_err(Error::Json)?;
        rows.push((&item.event, json, item.arrival.received_at));
        let cause = Arc::new(cause_of(item));
        for pair in pairs {
            unit.add_cause(pair.clone(), Arc::clone(&cause));
            links.push((
                Keys::of_event(&item.event),
                item.event.event_id.as_str(),
                pair,
            ));
        }
        linking::touch(&mut touched, pairs.clone());
    }
    let written = billing::insert_each(unit.db(), &rows).await?;
    if written.len() < plain.len() {
        // Another replica was faster with one of them.
        return Err(Error::NotTogether);
    }
    links::link_each(unit.db(), &links).await?;
    for of in plain.iter().filter(|of| !of.is_named) {
        let keys = Keys::of_event(&of.item.event);
        former_payers::reopen_erasures(unit.db(), &keys, &BTreeSet::new()).await?;
    }
    linking::decide_touched(unit, &touched).await
}
