//! What became of a message. Handlers answer in these words; only this crate knows ack, nak and
//! term.

use std::time::Duration;

/// A handler's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// The effect is durable, or there was none to have: acknowledged.
    Done,
    /// Not now: delivered again after `after`, else after the consumer's backoff.
    Retry {
        /// Why, without names, tokens or bodies: it is logged, and kept if it ends as dead letter.
        cause: String,
        /// The wait, where the handler knows better than the backoff.
        after: Option<Duration>,
    },
    /// Never: it cannot be understood, and trying again will not help. Goes to the dead letters.
    Reject {
        /// Why, without names, tokens or bodies.
        cause: String,
    },
}

impl Disposition {
    /// [`Disposition::Retry`] after the consumer's backoff.
    pub fn retry(cause: impl Into<String>) -> Self {
        Self::Retry {
            cause: cause.into(),
            after: None,
        }
    }

    /// [`Disposition::Retry`] after `after`.
    pub fn retry_after(cause: impl Into<String>, after: Duration) -> Self {
        Self::Retry {
            cause: cause.into(),
            after: Some(after),
        }
    }

    /// [`Disposition::Reject`].
    pub fn reject(cause: impl Into<String>) -> Self {
        Self::Reject {
            cause: cause.into(),
        }
    }
}
