//! Giving events to memberships, and moving them when more is known.
//!
//! Events with the same invoice or payment belong together, over any number of steps. Where one of
//! them is somebody's for certain, all are; where none is, they are looked at together and linked
//! weakly, or wait. An event that decides for others makes them be looked at again in turn.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sea_orm::ConnectionTrait;
use tracing::warn;

use super::claims::{Claims, TwoMemberships};
use super::{Touched, lock_names, touch, why_unmatched};
use crate::error::Error;
use crate::store::billing::{self, Held, Keys};
use crate::store::entity::billing_events;
use crate::store::links::{self, Pair};
use crate::store::{StoreError, former_payers, locks};

/// Settles an event that was just taken in. `tied` are it and the events it belongs to.
///
/// Answers why it waits, if it does.
///
/// # Errors
/// [`Error::Contradiction`] when it would link to one membership by its own ids and to another by
/// what it belongs to.
pub async fn settle_new(
    db: &impl ConnectionTrait,
    event_id: &str,
    tied: Vec<Held>,
    now: Timestamp,
    touched: &mut Touched,
) -> Result<Option<&'static str>, Error> {
    let mut settling = Settling::new(db, now, touched);
    settling
        .settle(event_id, tied)
        .await?
        .map_err(|TwoMemberships| {
            Error::Contradiction(
                "its own ids link it to one membership, and its invoice or payment to another"
                    .to_owned(),
            )
        })?;
    settling.go_on().await?;
    Ok(settling.waits.get(event_id).copied())
}

/// Settles events that are held, because what is known of them may have changed. All are of one
/// account.
pub async fn settle_held(
    db: &impl ConnectionTrait,
    rows: Vec<billing_events::Model>,
    now: Timestamp,
    touched: &mut Touched,
) -> Result<(), StoreError> {
    let mut settling = Settling::new(db, now, touched);
    settling.queue = rows;
    settling.go_on().await
}

/// Links an event to one membership by hand, and what belongs to it in turn.
pub async fn settle_by_hand(
    db: &impl ConnectionTrait,
    held: &Held,
    pair: Pair,
    now: Timestamp,
    touched: &mut Touched,
) -> Result<(), StoreError> {
    let mut settling = Settling::new(db, now, touched);
    settling.hold(held, &BTreeSet::from([pair]), false).await?;
    let tied = settling.read(&held.row).await?;
    settling
        .queue
        .extend(tied.into_iter().filter(Held::is_loose).map(|held| held.row));
    settling.go_on().await
}

struct Settling<'a, C> {
    db: &'a C,
    now: Timestamp,
    touched: &'a mut Touched,
    /// Still to be looked at.
    queue: Vec<billing_events::Model>,
    /// Linked weakly or parked already, in this go.
    seen: BTreeSet<String>,
    /// What was parked, and why.
    waits: BTreeMap<String, &'static str>,
}

impl<'a, C: ConnectionTrait> Settling<'a, C> {
    fn new(db: &'a C, now: Timestamp, touched: &'a mut Touched) -> Self {
        Self {
            db,
            now,
            touched,
            queue: Vec::new(),
            seen: BTreeSet::new(),
            waits: BTreeMap::new(),
        }
    }

    async fn go_on(&mut self) -> Result<(), StoreError> {
        while let Some(row) = self.queue.pop() {
            let tied = self.read(&row).await?;
            let is_loose = tied
                .iter()
                .any(|held| held.row.event_id == row.event_id && held.is_loose());
            if !is_loose {
                continue;
            }
            if self.settle(&row.event_id, tied).await?.is_err() {
                warn!(
                    event.id = %row.event_id,
                    "Billing event {} waits: its own ids link it to one membership, and its \
                     invoice or payment to another", row.event_id
                );
            }
        }
        Ok(())
    }

    /// The event as it is now and what it is tied to, with nobody else at work on its invoice or
    /// payment.
    async fn read(&self, row: &billing_events::Model) -> Result<Vec<Held>, StoreError> {
        let keys = Keys {
            subscription: None,
            customer: None,
            mandate: None,
            named_membership: None,
            ..Keys::of_row(row)
        };
        let names = lock_names(&keys);
        if !names.is_empty() {
            locks::take(self.db, names, BTreeSet::new()).await?;
        }
        billing::list_tied(self.db, &keys, &row.event_id).await
    }

    async fn settle(
        &mut self,
        event_id: &str,
        tied: Vec<Held>,
    ) -> Result<Result<(), TwoMemberships>, StoreError> {
        let (mut own, others): (Vec<_>, Vec<_>) = tied
            .into_iter()
            .partition(|held| held.row.event_id == event_id);
        let Some(event) = own.pop() else {
            return Ok(Ok(()));
        };
        let mut claims = Claims::default();
        claims.add(&links::list_candidates(self.db, &Keys::of_row(&event.row)).await?);
        let (loose, firm): (Vec<_>, Vec<_>) = others.into_iter().partition(Held::is_loose);
        let firm = firm.into_iter().flat_map(|held| held.owned).collect();
        let pairs = match claims.firm(&firm) {
            Ok(pairs) => pairs,
            Err(two) => return Ok(Err(two)),
        };
        if pairs.is_empty() {
            self.settle_together(event, loose, claims).await?;
        } else {
            if !claims.are_present() && event.links.is_empty() && event.row.parked_at.is_none() {
                let keys = Keys::of_row(&event.row);
                former_payers::reopen_erasures(self.db, &keys, &BTreeSet::new()).await?;
            }
            self.hold(&event, &pairs, false).await?;
            self.queue.extend(loose.into_iter().map(|held| held.row));
        }
        Ok(Ok(()))
    }

    /// Settles an event, and all that belong to it, that is nobody's for certain.
    async fn settle_together(
        &mut self,
        event: Held,
        loose: Vec<Held>,
        mut claims: Claims,
    ) -> Result<(), StoreError> {
        if self.seen.contains(&event.row.event_id) {
            return Ok(());
        }
        let mut together = BTreeMap::from([(event.row.event_id.clone(), event)]);
        let mut next = loose;
        while let Some(found) = next.pop() {
            if together.contains_key(&found.row.event_id) {
                continue;
            }
            let mut tied = self.read(&found.row).await?;
            if tied
                .iter()
                .any(|held| !held.is_loose() && !held.owned.is_empty())
            {
                // Somebody's for certain after all: that one is settled, and then this one.
                self.queue.push(found.row);
                return Ok(());
            }
            tied.retain(Held::is_loose);
            // As it is now that nobody else is at work on it.
            let at = tied
                .iter()
                .position(|held| held.row.event_id == found.row.event_id);
            if let Some(at) = at {
                let found = tied.swap_remove(at);
                claims.add(&links::list_candidates(self.db, &Keys::of_row(&found.row)).await?);
                together.insert(found.row.event_id.clone(), found);
            }
            next.extend(tied);
        }
        let names_subscription = together
            .values()
            .any(|held| held.row.subscription_id.is_some());
        let standing = together
            .values()
            .flat_map(|held| held.links.iter().cloned())
            .collect();
        let pairs = claims.weak(names_subscription, &standing);
        for held in together.values() {
            self.hold(held, &pairs, true).await?;
            self.seen.insert(held.row.event_id.clone());
        }
        Ok(())
    }

    /// Holds the event as theirs; as nobody's, which is parked, when there are none.
    async fn hold(
        &mut self,
        held: &Held,
        pairs: &BTreeSet<Pair>,
        weakly: bool,
    ) -> Result<(), StoreError> {
        let (keys, event_id) = (Keys::of_row(&held.row), &held.row.event_id);
        if held.links != *pairs {
            if !held.links.is_empty() {
                links::unlink(self.db, &keys, event_id).await?;
            }
            if !pairs.is_empty() {
                links::link(self.db, &keys, event_id, pairs).await?;
            }
            touch(self.touched, held.links.union(pairs).cloned().collect());
            if held.row.parked_at.is_some() || !held.links.is_empty() {
                former_payers::reopen_erasures(self.db, &keys, pairs).await?;
            }
        }
        self.waits.remove(event_id);
        if pairs.is_empty() {
            if held.row.parked_at.is_none() {
                let why = why_unmatched(self.db, &keys).await?;
                billing::set_held(self.db, &keys, event_id, Some((self.now, why)), false).await?;
                self.waits.insert(event_id.clone(), why);
                former_payers::reopen_erasures(self.db, &keys, pairs).await?;
            }
            return Ok(());
        }
        if held.row.parked_at.is_some() || held.row.is_weakly_linked != weakly {
            billing::set_held(self.db, &keys, event_id, None, weakly).await?;
        }
        Ok(())
    }
}
