//! What other Gymflow services change: gyms, people, memberships.
//!
//! A [`Call`] is weighed against the rows it is about ([`facts`]): an older one, and one that
//! contradicts what is held, changes nothing and says so. What it comes to is a [`Change`], written
//! with the decisions about everybody concerned ([`together`]). How a call is weighed is beside
//! what it is about: people and memberships here, the club's pauses in [`crate::pauses`], money in
//! [`crate::desk`], overrides and erasure in [`crate::people`].
//!
//! Calls that wait at the same time share a transaction and its statements; a lone one is a group
//! of one. Deliberately not so: what concerns a whole gym ([`put_gym`]), and what is rare.

mod call;
mod change;
mod facts;
mod gym;
pub(crate) mod member;
pub(crate) mod membership;
mod together;

use std::collections::BTreeMap;

use access_domain::ids::{GymId, MemberId, MembershipId};

pub use call::{Call, Write};
pub(crate) use change::{Change, Verdict};
pub(crate) use facts::Facts;
pub use gym::put_gym;

use crate::cause::CauseOf;
use crate::error::Error;
use crate::store;
use crate::store::entity::memberships as membership_rows;
use crate::unit::{Decisions, Unit};

/// Who calls, and what.
#[derive(Debug, Clone)]
pub struct By {
    /// The RPC's name.
    pub rpc: &'static str,
    /// `service:…`, `staff:…` or `member:…`.
    pub actor: String,
}

impl By {
    pub(crate) fn cause(&self, decisions: &Decisions) -> CauseOf {
        CauseOf::Call {
            rpc: self.rpc,
            actor: self.actor.clone(),
            at: decisions.now(),
            confirmed: false,
            traceparent: event_bus::trace_context::current(),
        }
    }
}

/// The answer of every write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// False when the write was older than what is held.
    pub applied: bool,
    /// The number held after the call; 0 for facts.
    pub source_version: i64,
    /// Everybody decided about, with the version held.
    pub members: BTreeMap<MemberId, i64>,
}

impl Outcome {
    /// Older than what is held.
    pub fn stale(held: i64) -> Self {
        Self {
            applied: false,
            source_version: held,
            members: BTreeMap::new(),
        }
    }

    /// Done.
    pub fn applied(source_version: i64, members: BTreeMap<MemberId, i64>) -> Self {
        Self {
            applied: true,
            source_version,
            members,
        }
    }
}

/// The membership's row, locked; an unknown gym or membership is named.
pub(crate) async fn lock_membership(
    unit: &Unit<'_>,
    gym: &GymId,
    membership: &MembershipId,
) -> Result<membership_rows::Model, Error> {
    if let Some(row) = store::memberships::lock(unit.db(), gym, membership).await? {
        return Ok(row);
    }
    match store::gyms::find(unit.db(), gym).await? {
        None => Err(Error::Unknown("gym")),
        Some(_) => Err(Error::Unknown("membership")),
    }
}
