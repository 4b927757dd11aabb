//! What can go wrong inside, and the two places that turn it into an answer: a gRPC status and a
//! disposition of the bus.

use event_bus::Disposition;
use tonic::Status;
use tracing::error;

use crate::store::StoreError;

/// Why a piece of work was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A decision has no JSON form; a bug.
    #[error("a decision cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    /// No such gym, member or membership, named in the caller's words.
    #[error("the {0} is not known")]
    Unknown(&'static str),
    /// The request contradicts what is held.
    #[error("{0}")]
    Refused(String),
    /// A billing event contradicts what is held; a person has to look.
    #[error("{0}")]
    Contradiction(String),
    /// What was to be done in one transaction has to be done in several.
    #[error("two of these are about the same member")]
    NotTogether,
    /// The process failed at the transaction that this was to be done in with others.
    #[error("the transaction it was in was given up")]
    GivenUp,
    /// A request is malformed.
    #[error("the request is not valid")]
    Invalid(Box<Status>),
}

impl Error {
    /// True when doing the same again at once may succeed.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_conflict())
    }

    /// The status for a caller, who learns nothing of the inside.
    pub fn into_status(self) -> Status {
        match self {
            Self::Store(StoreError::Database { .. }) => {
                error!(
                    "A call failed: {}",
                    service_runtime::lifecycle::chain(&self)
                );
                Status::unavailable("The database does not answer; it is safe to send this again.")
            }
            Self::Store(StoreError::Nonsense { .. }) | Self::Json(_) | Self::NotTogether => {
                error!(
                    "A call failed: {}",
                    service_runtime::lifecycle::chain(&self)
                );
                Status::internal("A stored row makes no sense; a person has to look.")
            }
            // What it failed at was told where it happened.
            Self::GivenUp => Status::internal("the call broke off"),
            Self::Unknown(_) => Status::not_found(format!("{self}")),
            Self::Refused(_) | Self::Contradiction(_) => {
                Status::failed_precondition(format!("{self}"))
            }
            Self::Invalid(status) => *status,
        }
    }

    /// The answer for a message: what the database could not do is tried again, what can never
    /// work is set aside.
    pub fn into_disposition(self) -> Disposition {
        match self {
            Self::Store(StoreError::Database { .. }) | Self::GivenUp => {
                Disposition::retry(service_runtime::lifecycle::chain(&self))
            }
            Self::Store(StoreError::Nonsense { .. })
            | Self::Json(_)
            | Self::Unknown(_)
            | Self::Refused(_)
            | Self::Contradiction(_)
            | Self::NotTogether
            | Self::Invalid(_) => Disposition::reject(service_runtime::lifecycle::chain(&self)),
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Invalid(Box::new(status))
    }
}
