//! Receiving: each message is parsed and staged, a batch in one short transaction.
//!
//! The next batch is read when the last one is committed, so that a caller who sends faster than
//! the disk takes it is held back by the transport.

use std::collections::BTreeSet;

use contracts::membership::v1 as wire;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::claim::Claimed;
use super::progress::Progress;
use super::{IDLE, Stop};
use crate::requests::roster::{Header, Kind, Scope, fault, part};
use crate::store::roster::imports::Import;
use crate::store::roster::staged::{self, Staged};

/// Rows staged in one transaction.
const ROWS: usize = 250;
/// Bytes of rows staged in one transaction, about.
const BYTES: usize = 512 * 1024;

/// Rows that were parsed and are not staged yet.
#[derive(Default)]
struct Batch {
    rows: Vec<Staged>,
    keys: BTreeSet<(Kind, String)>,
    bytes: usize,
}

/// Stages the whole stream. An error says why it counts as broken.
pub(super) async fn receive(
    claimed: &mut Claimed,
    scope: &Scope,
    header: &Header,
    mut stream: Streaming<wire::ImportRosterRequest>,
    progress: &mut Progress,
) -> Result<(), Stop> {
    let mut batch = Batch::default();
    let mut beat = tokio::time::interval(Claimed::beat());
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let shutdown = claimed.importer.shutdown.clone();
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = shutdown.cancelled() => return Err(Stop::Stopping),
            () = progress.gone() => return Err(Stop::Gone),
            _ = beat.tick() => {
                if heard.elapsed() > IDLE {
                    return Err(Status::deadline_exceeded("Nothing came for too long.").into());
                }
                flush(claimed, &mut batch).await?;
                continue;
            }
        };
        let Some(message) = message.map_err(|_| Stop::Gone)? else {
            break;
        };
        heard = Instant::now();
        claimed.row.received += 1;
        let position = claimed.row.received;
        batch.add(part(message.part, scope, position)?, position)?;
        if batch.rows.len() >= ROWS || batch.bytes >= BYTES {
            flush(claimed, &mut batch).await?;
            progress.pass(&claimed.row, position);
        }
    }
    flush(claimed, &mut batch).await?;
    if !progress.is_heard(&claimed.row).await {
        return Err(Stop::Gone);
    }
    match header.parts {
        Some(parts) if parts != claimed.row.received => Err(fault(
            0,
            "header.parts",
            "as many messages as the header says are expected",
        )
        .into()),
        _ => Ok(()),
    }
}

impl Batch {
    fn add(&mut self, part: crate::requests::roster::Part, position: i64) -> Result<(), Status> {
        if !self.keys.insert((part.kind, part.id.clone())) {
            return Err(twice(position, part.kind));
        }
        self.bytes += part.body.len();
        self.rows.push(Staged {
            kind: part.kind.as_str().to_owned(),
            row_id: part.id,
            position,
            body: part.body,
        });
        Ok(())
    }
}

fn twice(position: i64, kind: Kind) -> Status {
    let (field, description) = match kind {
        Kind::Member => ("member.member_id", "a member who was not in the roster yet"),
        Kind::Membership => (
            "membership.membership_id",
            "a membership that was not in the roster yet",
        ),
        Kind::OpenInvoice => (
            "open_invoice.invoice_id",
            "an invoice that was not in the roster yet",
        ),
    };
    fault(position, field, &format!("{description} is expected"))
}

/// Stages the batch, if there is any, and moves the claim on.
async fn flush(claimed: &mut Claimed, batch: &mut Batch) -> Result<(), Stop> {
    let batch = std::mem::take(batch);
    if batch.rows.is_empty() {
        return claimed.keep().await;
    }
    let store = claimed.importer.decisions.store().clone();
    let txn = store.begin().await?;
    let kept: Option<Import> = claimed.step(&txn, claimed.row.clone()).await?;
    let row = kept.ok_or(Stop::Lost)?;
    let written = staged::insert(&txn, row.import_id, &batch.rows).await?;
    if written < batch.rows.len() as u64 {
        txn.rollback().await.map_err(rolling_back)?;
        return Err(find_twice(claimed, &batch).await?.into());
    }
    txn.commit().await.map_err(rolling_back)?;
    claimed.row = row;
    Ok(())
}

fn rolling_back(source: sea_orm::DbErr) -> Stop {
    let step = "staging a roster";
    crate::store::StoreError::Database { step, source }.into()
}

/// Which row of the batch is in the roster already.
async fn find_twice(claimed: &Claimed, batch: &Batch) -> Result<Status, Stop> {
    let db = claimed.importer.decisions.store().reads();
    for kind in [Kind::Member, Kind::Membership, Kind::OpenInvoice] {
        let of_kind = || batch.rows.iter().filter(|row| row.kind == kind.as_str());
        let ids: Vec<&str> = of_kind().map(|row| row.row_id.as_str()).collect();
        let known = staged::list_known(db, claimed.row.import_id, kind.as_str(), &ids).await?;
        if let Some(row) = of_kind().find(|row| known.contains(&row.row_id)) {
            return Ok(twice(row.position, kind));
        }
    }
    Err(Stop::Lost)
}
