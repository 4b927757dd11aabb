//! Whose import it is: a lease in its row, moved on with every step.
//!
//! A process that dies stops moving it, and another one takes the import over. A process that only
//! slept finds at its next step that the claim is not its own any more, and that step is undone.

use std::time::Duration;

use sea_orm::ConnectionTrait;
use service_runtime::clock::Clock;

use super::{Importer, Stop};
use crate::store::roster::imports::{self, Import};
use crate::store::roster::staged;
use crate::store::{StoreError, micros};

/// After this long without a step the import is anybody's.
const LEASE: Duration = Duration::from_secs(10);
/// Staged rows removed in one transaction.
const REMOVED_AT_ONCE: usize = 1_000;

/// Until when a claim made now holds.
pub(super) fn until(wall: &dyn Clock) -> i64 {
    micros(wall.now()).saturating_add(LEASE.as_micros() as i64)
}

/// An import that is ours.
#[derive(Debug)]
pub(super) struct Claimed {
    pub importer: Importer,
    pub row: Import,
    /// Whether there is anything to write; true where nobody has looked.
    pub is_work: bool,
}

impl Claimed {
    pub fn new(importer: Importer, row: Import) -> Self {
        Self {
            importer,
            row,
            is_work: true,
        }
    }

    /// How often the claim must be moved on at least.
    pub fn beat() -> Duration {
        LEASE / 4
    }

    fn is_due(&self) -> bool {
        let left = self.row.claimed_until - micros(self.importer.wall.now());
        left < (LEASE - Self::beat()).as_micros() as i64
    }

    /// Writes `row` and moves the claim on, within a transaction; the caller takes what it answers
    /// for its row once that is committed. None when the claim is lost.
    pub async fn step(
        &self,
        db: &impl ConnectionTrait,
        row: Import,
    ) -> Result<Option<Import>, StoreError> {
        let until = until(&*self.importer.wall);
        let kept = imports::advance(db, &row, until).await?;
        Ok(kept.then_some(Import {
            claimed_until: until,
            ..row
        }))
    }

    /// Writes the row as it is, and moves the claim on.
    pub async fn keep(&mut self) -> Result<(), Stop> {
        let db = self.importer.decisions.store().reads();
        let kept = self.step(db, self.row.clone()).await?;
        self.row = kept.ok_or(Stop::Lost)?;
        Ok(())
    }

    /// Moves the claim on when it is time, and says whether to stop.
    pub async fn breathe(&mut self) -> Result<(), Stop> {
        if self.importer.shutdown.is_cancelled() {
            return Err(Stop::Stopping);
        }
        if self.is_due() {
            self.keep().await?;
        }
        Ok(())
    }

    /// Removes what was staged.
    pub async fn clear(&mut self) -> Result<(), Stop> {
        let store = self.importer.decisions.store().clone();
        while staged::delete_some(store.reads(), self.row.import_id, REMOVED_AT_ONCE).await? > 0 {
            if self.is_due() {
                self.keep().await?;
            }
        }
        Ok(())
    }

    /// Removes what was staged, and closes the import as it is.
    pub async fn close(&mut self) -> Result<(), Stop> {
        self.clear().await?;
        let decisions = &self.importer.decisions;
        let now = micros(decisions.now());
        let db = decisions.store().reads();
        imports::close(db, self.row.import_id, &self.row.state, now).await?;
        Ok(())
    }

    /// Removes the import without a trace.
    pub async fn discard(self) -> Result<(), StoreError> {
        let store = self.importer.decisions.store();
        while staged::delete_some(store.reads(), self.row.import_id, REMOVED_AT_ONCE).await? > 0 {}
        imports::remove(store.reads(), self.row.import_id).await
    }

    /// Lets others have it at once.
    pub async fn release(&self) -> Result<(), StoreError> {
        let db = self.importer.decisions.store().reads();
        imports::advance(db, &self.row, 0).await.map(drop)
    }
}
