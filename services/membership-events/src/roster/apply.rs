//! Applying: what differs, a batch in one short transaction, until nothing is left.
//!
//! In this order: people, because memberships name them; open invoices, which wait for their
//! memberships where those are new, so that no door opens for a moment; memberships; and last the
//! ends of those that the roster lacks. The cursor is committed with each batch.

mod endings;
mod invoices;
mod memberships;
mod people;

use std::time::Duration;

use sea_orm::ConnectionTrait;
use tracing::{error, info, warn};

use super::Stop;
use super::claim::Claimed;
use super::compare::Verdict;
use super::progress::Progress;
use super::summary::ABSENT;
use crate::cause::CauseOf;
use crate::error::Error;
use crate::requests::roster::Kind;
use crate::store::roster::imports::Import;
use crate::store::roster::staged::{self, Staged};
use crate::store::{self, StoreError};

/// The last phase: what was staged goes.
const REMOVING: &str = "removing";
/// Rows in one transaction: others wait that long at most.
const BATCH: usize = 100;
/// While more messages wait in the outbox, the import waits too.
const WAITING: u64 = 256;
/// How long it waits before it looks again.
const LOOK: Duration = Duration::from_millis(10);
/// After the database failed.
const PAUSE: Duration = Duration::from_millis(500);

/// Applies the rest of the import, and closes it. `progress` is told where somebody listens.
pub(super) async fn apply(
    claimed: &mut Claimed,
    mut progress: Option<&mut Progress>,
) -> Result<(), Stop> {
    loop {
        match step(claimed, progress.as_deref_mut()).await {
            Ok(true) => {}
            Ok(false) => {
                metrics::counter!(super::IMPORTS, "outcome" => "applied").increment(1);
                let row = &claimed.row;
                info!(
                    import.id = row.import_id, gym.id = %row.gym_id, changes = row.done,
                    "Import {} of the roster of gym {} is applied", row.import_id, row.gym_id
                );
                return Ok(());
            }
            Err(Stop::Failed(Error::Store(error @ StoreError::Database { .. }))) => {
                error!(
                    import.id = claimed.row.import_id,
                    "An import is tried again soon: {}",
                    service_runtime::lifecycle::chain(&error)
                );
                let shutdown = claimed.importer.shutdown.clone();
                if shutdown
                    .run_until_cancelled(tokio::time::sleep(PAUSE))
                    .await
                    .is_none()
                {
                    return Err(Stop::Stopping);
                }
            }
            Err(stop) => {
                if let (Stop::Stopping, Err(error)) = (&stop, claimed.release().await) {
                    // Then it is anybody's when the claim runs out.
                    warn!("A claim could not be given back: {error}");
                }
                return Err(stop);
            }
        }
    }
}

/// One batch, or the end of one kind of rows; false when all is done.
async fn step(claimed: &mut Claimed, progress: Option<&mut Progress>) -> Result<bool, Stop> {
    claimed.breathe().await?;
    if let Some(progress) = progress {
        progress.pass(&claimed.row, claimed.row.done);
    }
    let kind = claimed.row.phase.clone();
    if kind == REMOVING {
        claimed.row.state = "applied".to_owned();
        claimed.clear().await?;
        claimed.close().await?;
        return Ok(false);
    }
    let store = claimed.importer.decisions.store().clone();
    let (import, after) = (claimed.row.import_id, claimed.row.after_id.clone());
    let page = staged::page(store.reads(), import, &kind, &after, BATCH).await?;
    if page.is_empty() {
        claimed.row.phase = next(&kind).to_owned();
        claimed.row.after_id = String::new();
        claimed.keep().await?;
        return Ok(true);
    }
    wait_for_room(claimed).await?;
    match batch(claimed, &kind, &page).await {
        Err(Stop::Failed(error)) if !is_database(&error) => {
            // One of them spoils it for the others: each alone.
            for row in &page {
                alone(claimed, &kind, row).await?;
            }
            Ok(true)
        }
        done => done.map(|()| true),
    }
}

/// Where an import begins to be applied.
pub(super) fn first_phase(is_work: bool) -> &'static str {
    if is_work {
        Kind::Member.as_str()
    } else {
        REMOVING
    }
}

fn next(kind: &str) -> &'static str {
    match kind {
        "member" => Kind::OpenInvoice.as_str(),
        "open_invoice" => Kind::Membership.as_str(),
        "membership" => ABSENT,
        _ => REMOVING,
    }
}

fn is_database(error: &Error) -> bool {
    matches!(error, Error::Store(StoreError::Database { .. }))
}

/// A row by itself; one that cannot be applied is left alone.
async fn alone(claimed: &mut Claimed, kind: &str, row: &Staged) -> Result<(), Stop> {
    match batch(claimed, kind, std::slice::from_ref(row)).await {
        Err(Stop::Failed(error)) if !is_database(&error) => {
            let id = &row.row_id;
            warn!(
                import.id = claimed.row.import_id, row.kind = kind, row.id = %id,
                "A {kind} of a roster is left alone, {id}: {error}"
            );
            claimed.row.left_alone += 1;
            claimed.row.after_id.clone_from(id);
            claimed.keep().await
        }
        done => done,
    }
}

/// Applies rows of one kind, and moves the cursor past them.
async fn batch(claimed: &mut Claimed, kind: &str, page: &[Staged]) -> Result<(), Stop> {
    let Some(last) = page.last() else {
        return Ok(());
    };
    let work = match kind {
        "member" => people::apply(claimed, page).await?,
        "open_invoice" => invoices::apply(claimed, page).await?,
        "membership" => memberships::apply(claimed, page).await?,
        _ => endings::apply(claimed, page).await?,
    };
    match work {
        // The cursor is not worth a commit.
        Work::Nothing => claimed.row.after_id.clone_from(&last.row_id),
        Work::Done(row) => claimed.row = *row,
    }
    Ok(())
}

/// What a batch came to.
enum Work {
    /// There was nothing to do.
    Nothing,
    /// It is committed, with this row.
    Done(Box<Import>),
}

/// The row after a batch: written in the batch's own transaction.
async fn advanced(
    claimed: &Claimed,
    db: &impl ConnectionTrait,
    page: &[Staged],
    done: usize,
) -> Result<Option<Import>, Error> {
    let mut row = claimed.row.clone();
    row.done += done as i64;
    if let Some(last) = page.last() {
        row.after_id.clone_from(&last.row_id);
    }
    Ok(claimed.step(db, row).await?)
}

fn kept(row: Option<Import>) -> Result<Work, Stop> {
    row.map(|row| Work::Done(Box::new(row))).ok_or(Stop::Lost)
}

fn is_change(verdict: Verdict) -> bool {
    verdict == Verdict::Differs
}

/// What brings the decisions of an import about. Nobody was shown what it changes.
fn cause(claimed: &Claimed) -> CauseOf {
    cause_of(claimed, false)
}

/// What brings the ends of an import about: more than may be missing unasked are, and then a person
/// has confirmed this very set.
fn cause_of_ends(claimed: &Claimed) -> CauseOf {
    cause_of(claimed, claimed.row.missing > claimed.row.allowed)
}

fn cause_of(claimed: &Claimed, confirmed: bool) -> CauseOf {
    CauseOf::Call {
        rpc: "ImportRoster",
        actor: claimed.row.actor.clone(),
        at: claimed.importer.decisions.now(),
        confirmed,
        traceparent: None,
    }
}

/// Waits while messages wait in the outbox: those of live events go out behind few of ours.
async fn wait_for_room(claimed: &mut Claimed) -> Result<(), Stop> {
    let store = claimed.importer.decisions.store().clone();
    while store::outbox::is_deeper(store.reads(), WAITING).await? {
        tokio::time::sleep(LOOK).await;
        claimed.breathe().await?;
    }
    Ok(())
}
