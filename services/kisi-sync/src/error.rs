//! What can go wrong here, so that the caller decides without reading text.

use kisi_client::KisiError;
use sea_orm::DbErr;

use crate::sealing::SealingError;

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Sealing(#[from] SealingError),
    #[error("DATABASE_URL cannot be used")]
    Database(#[from] DbErr),
    #[error(transparent)]
    Bus(#[from] event_bus::BusError),
    #[error(transparent)]
    Serve(#[from] service_runtime::http_server::ServeError),
    #[error(transparent)]
    Identity(#[from] service_runtime::identity::VerifierError),
    #[error(transparent)]
    Token(#[from] service_runtime::identity::ServiceTokenError),
    #[error(transparent)]
    Address(#[from] service_runtime::grpc::AddressError),
    #[error("bad setting KISI_BASE_URL: {0}")]
    KisiAddress(url::ParseError),
    #[error(transparent)]
    Kisi(#[from] KisiError),
    #[error("bad setting KISI_REQUEST_TIMEOUT: it must be shorter than LEASE_TTL")]
    TimeoutPastLease,
    #[error("the consumer of MEMBERSHIP ended")]
    Consumer(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a member could not be settled now.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A newer version came, or the member was looked at meanwhile: start over.
    #[error("a newer version came in between")]
    Superseded,
    /// The lease is gone or about to go: another replica works on the gym.
    #[error("the lease is not ours any more")]
    NotOwner,
    /// Kisi, or the way to it, is down: the intent stays.
    #[error("Kisi cannot be reached")]
    Unreachable(#[source] KisiError),
    /// Kisi fails at this again and again, and answers otherwise.
    #[error("Kisi fails at this one thing")]
    FailsAlone(#[source] KisiError),
    /// The key is refused: all of the gym's work waits.
    #[error("Kisi refuses the key")]
    KeyDead(#[source] KisiError),
    /// This one thing is refused; repeating it is no use.
    #[error("{failure}")]
    Refused {
        /// A word of `AccessApplied.failure`.
        failure: &'static str,
        code: Option<String>,
    },
    /// Kisi did not answer somebody else a moment ago: nothing is sent for a while.
    #[error("Kisi is given a pause")]
    Paused,
    /// A listing could not be believed: look again later.
    #[error("Kisi's listing is not whole")]
    Unclear,
    /// membership-events cannot be asked who the person is.
    #[error("membership-events cannot be asked")]
    Directory(#[source] Box<tonic::Status>),
    #[error("the database failed")]
    Store(#[from] DbErr),
}

impl Trouble {
    /// Sorts what Kisi said, for requests that have no meaning of their own for a refusal.
    pub fn of(error: KisiError) -> Self {
        if matches!(error, KisiError::Withheld { .. }) {
            Self::NotOwner
        } else if error.is_key_dead() {
            Self::KeyDead(error)
        } else if error.is_transient() || error.is_outcome_unknown() {
            Self::Unreachable(error)
        } else {
            Self::Refused {
                failure: "kisi_refused",
                code: error.code().map(str::to_owned),
            }
        }
    }
}

/// Whether a failed read says nothing of the next one: Kisi is reached, and knows the key.
pub fn is_of_one_request(error: &KisiError) -> bool {
    match error {
        KisiError::Refused { status, .. } => *status != 401,
        KisiError::Unreadable { .. } | KisiError::BeyondOffsetLimit { .. } => true,
        KisiError::Unreachable { .. }
        | KisiError::RateLimited { .. }
        | KisiError::Withheld { .. }
        | KisiError::NotSent { .. }
        | KisiError::Settings(_) => false,
    }
}
