//! How a row is numbered and hashed. Pure.

use sea_orm::DbErr;
use sha2::{Digest, Sha256};

use super::Entry;
use crate::store::audit::{Head, Model};

/// The row after `head`.
pub fn next(gym: &str, head: &Head, entry: &Entry, now: i64) -> Result<Model, DbErr> {
    let text = serde_json::to_string(entry)
        .map_err(|_| DbErr::Custom("an audit entry has no JSON form".to_owned()))?;
    let mut row = Model {
        gym_id: gym.to_owned(),
        seq: head.seq + 1,
        // Clocks of replicas differ; the order of the rows is that of their instants.
        at: now.max(head.at),
        member_id: entry.member.clone(),
        entry: text,
        previous: head.hash.clone(),
        hash: String::new(),
    };
    row.hash = hash(&row);
    Ok(row)
}

/// SHA-256 in lower-case hex over everything else that the row holds. Ids hold no line break, so
/// the parts cannot run into each other.
pub fn hash(row: &Model) -> String {
    let member = row.member_id.as_deref().unwrap_or_default();
    let text = format!(
        "{}\n{}\n{}\n{member}\n{}\n{}",
        row.gym_id, row.seq, row.at, row.previous, row.entry
    );
    hex::encode(Sha256::digest(text.as_bytes()))
}
