//! Whether a gym's audit log is whole, and if not, which row was changed.
//!
//! A row keeps the hash of the one before it, so a row that was rewritten together with its own
//! hash is named by the one after it, and the last one by the head. Whoever rewrites all of it from
//! a row on leaves no trace in it: compare the head with one that was written down elsewhere.

use sea_orm::{ConnectionTrait, DbErr};

use super::Entry;
use super::chain;
use crate::store::audit::{self, Model};

const PAGE: u64 = 1_000;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// From the first row that is kept to the last, and the last one's hash.
    Whole { first: i64, last: i64, head: String },
    /// The row whose content, number or hash is not what was written.
    Changed(i64),
    /// The row that is not there.
    Missing(i64),
}

/// Looks at the gym's whole chain.
pub async fn verify<C: ConnectionTrait>(db: &C, gym: &str) -> Result<Verdict, DbErr> {
    // Rows that are written meanwhile come after this one.
    let head = audit::find_head(db, gym).await?;
    let mut walk = Walk::default();
    loop {
        let after = walk.last.as_ref().map_or(0, |(seq, _)| *seq);
        let rows = audit::list_after(db, gym, after, PAGE).await?;
        let is_last = (rows.len() as u64) < PAGE;
        for row in &rows {
            if let Some(wrong) = walk.step(row) {
                return Ok(wrong);
            }
        }
        if is_last {
            break;
        }
    }
    Ok(walk.conclude(head))
}

/// How far the walk has come.
#[derive(Default)]
struct Walk {
    /// The first row, and the hash it follows.
    first: Option<(i64, String)>,
    last: Option<(i64, String)>,
    /// The newest checkpoint: number and hash of the last row that was removed.
    checkpoint: Option<String>,
}

impl Walk {
    fn step(&mut self, row: &Model) -> Option<Verdict> {
        match &self.last {
            Some((seq, _)) if row.seq != seq + 1 => return Some(Verdict::Missing(seq + 1)),
            _ if chain::hash(row) != row.hash => return Some(Verdict::Changed(row.seq)),
            // This one is as it was written, so the one before it is not.
            Some((seq, hash)) if *hash != row.previous => return Some(Verdict::Changed(*seq)),
            _ => {}
        }
        let Ok(entry) = serde_json::from_str::<Entry>(&row.entry) else {
            return Some(Verdict::Changed(row.seq));
        };
        if entry.member != row.member_id {
            return Some(Verdict::Changed(row.seq));
        }
        if entry.action == "checkpoint" {
            self.checkpoint = Some(entry.detail);
        }
        if self.first.is_none() {
            self.first = Some((row.seq, row.previous.clone()));
        }
        self.last = Some((row.seq, row.hash.clone()));
        None
    }

    fn conclude(self, head: Option<audit::Head>) -> Verdict {
        let (Some((first, follows)), Some((last, hash))) = (self.first, self.last) else {
            return match head {
                Some(head) if head.seq > 0 => Verdict::Missing(head.seq),
                _ => Verdict::Whole {
                    first: 0,
                    last: 0,
                    head: String::new(),
                },
            };
        };
        if first > 1 {
            // Removed with a checkpoint, or without.
            let removed = format!("{} {follows}", first - 1);
            if self.checkpoint.as_deref() != Some(removed.as_str()) {
                return Verdict::Missing(first - 1);
            }
        } else if !follows.is_empty() {
            return Verdict::Changed(first);
        }
        match head {
            Some(head) if head.seq > last => Verdict::Missing(last + 1),
            Some(head) if head.seq == last && head.hash != hash => Verdict::Changed(last),
            Some(_) => Verdict::Whole {
                first,
                last,
                head: hash,
            },
            None => Verdict::Missing(last + 1),
        }
    }
}
