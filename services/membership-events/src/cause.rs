//! What brings a decision about, and how the message tells it.

use contracts::membership::v1::Cause;
use contracts::wire;
use jiff::Timestamp;

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
        /// The trace it belongs to.
        traceparent: Option<String>,
    },
    /// Time alone.
    Timer,
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
            Self::Call { rpc, at, .. } => {
                let kind = match *rpc {
                    "PutOverride" | "ClearOverride" => "override",
                    "DeleteMember" => "erasure",
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
