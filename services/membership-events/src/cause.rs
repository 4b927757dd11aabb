//! What brings a decision about, and how the message tells it.

use std::collections::BTreeMap;
use std::sync::Arc;

use access_domain::entitlement::MemberFacts;
use access_domain::ids::{GymId, MemberId};
use contracts::membership::v1::Cause;
use contracts::wire;
use jiff::Timestamp;

use crate::error::Error;
use crate::store::links::Pair;

/// What brings a decision about.
#[derive(Debug, Clone)]
pub enum CauseOf {
    /// A provider's event.
    BillingEvent {
        /// `{provider}/{account}/{event_id}`.
        id: String,
        /// The provider.
        provider: String,
        /// The provider's time.
        occurred_at: Timestamp,
        /// When its post reached us.
        received_at: Timestamp,
        /// The trace it belongs to.
        traceparent: Option<String>,
    },
    /// A call.
    Call {
        /// The RPC's name.
        rpc: &'static str,
        /// Who called.
        actor: String,
        /// When.
        at: Timestamp,
        /// A person confirmed exactly this by its digest.
        confirmed: bool,
        /// The trace it belongs to.
        traceparent: Option<String>,
    },
    /// Time alone.
    Timer,
}

/// What brings the decisions of one unit of work about.
#[derive(Debug, Clone)]
pub enum Causes {
    /// All of them.
    One(CauseOf),
    /// Several events, each of which touches memberships of its own.
    Each(BTreeMap<Pair, Arc<CauseOf>>),
    /// Several calls, each of which is about people of its own.
    OfPeople(BTreeMap<MemberId, Arc<CauseOf>>),
}

impl Causes {
    /// The only one.
    pub(crate) fn one(&self) -> Result<&CauseOf, Error> {
        match self {
            Self::One(cause) => Ok(cause),
            Self::Each(_) | Self::OfPeople(_) => Err(Error::NotTogether),
        }
    }

    /// True of what a provider said.
    pub(crate) fn are_billing(&self) -> bool {
        matches!(
            self,
            Self::Each(_) | Self::One(CauseOf::BillingEvent { .. })
        )
    }

    /// What decides about somebody.
    pub(crate) fn of(&self, gym: &GymId, facts: &MemberFacts) -> Result<&CauseOf, Error> {
        let each = match self {
            Self::One(cause) => return Ok(cause),
            Self::OfPeople(of) => {
                let cause = of.get(&facts.member);
                return cause.map(|cause| &**cause).ok_or(Error::NotTogether);
            }
            Self::Each(each) => each,
        };
        let mut found: Option<&Arc<CauseOf>> = None;
        for facts in &facts.memberships {
            let pair = (gym.into(), (&facts.membership.id).into());
            let Some(cause) = each.get(&pair) else {
                continue;
            };
            // Of two it would be told that one alone did it.
            if found.is_some_and(|found| !Arc::ptr_eq(found, cause)) {
                return Err(Error::NotTogether);
            }
            found = Some(cause);
        }
        found.map(|cause| &**cause).ok_or(Error::NotTogether)
    }
}

impl From<CauseOf> for Causes {
    fn from(cause: CauseOf) -> Self {
        Self::One(cause)
    }
}

impl CauseOf {
    /// The trace to go on with.
    pub fn traceparent(&self) -> Option<String> {
        match self {
            Self::BillingEvent { traceparent, .. } | Self::Call { traceparent, .. } => {
                traceparent.clone()
            }
            Self::Timer => None,
        }
    }

    /// Who brings it about.
    pub fn actor(&self) -> String {
        match self {
            Self::BillingEvent { provider, .. } => format!("provider:{provider}"),
            Self::Call { actor, .. } => actor.clone(),
            Self::Timer => "time".to_owned(),
        }
    }

    /// When the cause happened, and its form in the message. `due` is the instant of the member's
    /// timer.
    pub(crate) fn told(&self, due: Option<Timestamp>, now: Timestamp) -> (Timestamp, Cause) {
        let told = |kind: &str, id: String, actor: String, received_at: Timestamp| Cause {
            kind: kind.to_owned(),
            id,
            actor,
            received_at: Some(wire::timestamp(received_at)),
        };
        match self {
            Self::BillingEvent {
                id,
                occurred_at,
                received_at,
                ..
            } => {
                let cause = told("billing_event", id.clone(), self.actor(), *received_at);
                (*occurred_at, cause)
            }
            Self::Call {
                rpc, at, confirmed, ..
            } => {
                let kind = match *rpc {
                    "PutOverride" | "ClearOverride" => "override",
                    "DeleteMember" => "erasure",
                    "ImportRoster" if *confirmed => "confirmed_import",
                    "ImportRoster" => "import",
                    _ => "call",
                };
                (*at, told(kind, (*rpc).to_owned(), self.actor(), *at))
            }
            Self::Timer => {
                // Where the clock was put back it is to come.
                let due = due.unwrap_or(now).min(now);
                (due, told("timer", due.to_string(), self.actor(), due))
            }
        }
    }
}
