//! What other Gymflow services change: gyms, people, memberships.
//!
//! Each function is one unit of work: compare the source version, write the rows, decide again
//! about everybody concerned. An older write changes nothing and says so. The club's pauses are in
//! [`crate::pauses`], money in [`crate::desk`], overrides and erasure in [`crate::people`].

mod gym;
pub(crate) mod member;
pub(crate) mod membership;

use std::collections::{BTreeMap, BTreeSet};

use access_domain::ids::{GymId, MemberId, MembershipId};

pub use gym::put_gym;
pub use member::put_member;
pub use membership::{cancel_membership, put_membership};

use crate::cause::CauseOf;
use crate::error::Error;
use crate::linking::{self, Touched};
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

/// Decides again about the people of one membership, and commits.
pub(crate) async fn decide_membership(
    mut unit: Unit<'_>,
    gym: &GymId,
    membership: &MembershipId,
) -> Result<BTreeMap<MemberId, i64>, Error> {
    let touched = Touched::from([(gym.clone(), BTreeSet::from([membership.clone()]))]);
    linking::decide_touched(&mut unit, &touched).await?;
    unit.commit().await
}
