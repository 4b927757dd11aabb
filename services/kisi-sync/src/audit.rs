//! Every request that changed Kisi, who or what caused it, and how long each stage took: one log per
//! gym, numbered without gaps and chained by hash.
//!
//! A row is written in the transaction that records Kisi's answer, so nothing waits for it before a
//! request leaves. It holds ids and words: of bodies the names of their fields, never a value. What
//! was held or refused stands here as well, because people ask about that first.

use sea_orm::{ConnectionTrait, DbErr, TransactionTrait};
use serde::{Deserialize, Serialize};

pub mod chain;
pub mod command;
pub mod prune;
pub mod verify;

use crate::shared::Shared;
use crate::store::audit;
use crate::store::members::{self, Cause};

/// What others did to a right of ours: it is gone, and not by us.
pub const UNDONE: &str = "removed_by_others";

/// The same: it stands, and they have changed when it holds, which is put back.
pub const MOVED: &str = "window_changed_by_others";

/// One row's content, by ids and words. Optional parts may be added: rows of before keep their hash,
/// because it is over the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// What was done, such as `granted`, `revoked`, `user_created`; `unanswered` when Kisi's answer
    /// was lost; `held` and `failed` of a member's outcome; `checkpoint` where older rows were removed.
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Of MembershipStatusChanged; 0 where none has to do with it.
    #[serde(skip_serializing_if = "is_zero")]
    pub version: i64,
    /// Method and route, such as `DELETE /role_assignments/{id}`; empty without a request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request: String,
    /// The names of the body's fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Kisi's group, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<i64>,
    /// Kisi's id of what was changed: an assignment, a user, a login, a lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<i64>,
    /// A word more: why it failed, what a refusal was, where a checkpoint stands.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    pub cause: Cause,
    /// Stages, microseconds since 1970: the cause reached us, it was decided, the request left,
    /// Kisi answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<i64>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Entry {
    pub fn new(action: &str) -> Self {
        Self {
            action: action.to_owned(),
            ..Self::default()
        }
    }

    pub fn request(mut self, request: &str, fields: &[&str]) -> Self {
        self.request = request.to_owned();
        self.fields = fields.iter().map(|field| (*field).to_owned()).collect();
        self
    }

    pub fn group(mut self, group: i64) -> Self {
        self.group = Some(group);
        self
    }

    pub fn object(mut self, object: i64) -> Self {
        self.object = Some(object);
        self
    }

    pub fn detail(mut self, detail: &str) -> Self {
        self.detail = detail.to_owned();
        self
    }

    pub fn caused_by(mut self, cause: Cause) -> Self {
        self.cause = cause;
        self
    }

    /// Sent and answered.
    pub fn between(mut self, sent_at: i64, answered_at: i64) -> Self {
        self.sent_at = Some(sent_at);
        self.answered_at = Some(answered_at);
        self
    }

    /// About this member, for the reason that is under way.
    pub fn of(mut self, member: &members::Model) -> Self {
        self.cause = member.cause();
        if !member.is_look() {
            self.received_at = member.received_at;
            self.decided_at = member.decided_at;
        }
        self.version = member.version;
        self.about(&member.member_id)
    }

    pub fn about(mut self, member: &str) -> Self {
        self.member = Some(member.to_owned());
        self
    }
}

/// Appends one entry in a transaction of its own, for what changes no table besides.
pub async fn append_alone(shared: &Shared, gym: &str, entry: Entry) -> Result<(), DbErr> {
    let txn = shared.db.begin().await?;
    append(&txn, gym, &[entry], shared.now()).await?;
    txn.commit().await
}

/// Appends entries to the gym's chain. Belongs at the end of a transaction: until it ends, nobody
/// else writes to this chain.
pub async fn append<C: ConnectionTrait>(
    txn: &C,
    gym: &str,
    entries: &[Entry],
    now: i64,
) -> Result<(), DbErr> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut head = audit::lock_head(txn, gym).await?;
    for entry in entries {
        let row = chain::next(gym, &head, entry, now)?;
        audit::put(txn, &row).await?;
        head = audit::Head {
            seq: row.seq,
            at: row.at,
            hash: row.hash,
        };
    }
    Ok(())
}
