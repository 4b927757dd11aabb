//! What can go wrong between us and Kisi, so that a caller decides without reading text.
//!
//! Kisi has two envelopes: 422 has `errors` (field to messages) and no code, everything else has
//! `error` and `code`. Both arrive here as [`KisiError::Refused`]. What a refusal means for a
//! gym (retry, needs attention, look again) is deliberately not here: that is the caller's match.

use std::collections::BTreeMap;
use std::time::Duration;

/// A request that did not give what was asked for.
///
/// `Display` shows statuses, codes and field names only: Kisi's own sentences may quote an
/// e-mail address, and such text must not reach a log line.
#[derive(Debug, thiserror::Error)]
pub enum KisiError {
    /// No answer, or only part of one: connection refused, reset, timed out.
    #[error("Kisi did not answer {method} {route}")]
    Unreachable {
        method: &'static str,
        /// The route's pattern, e.g. `/role_assignments/{id}`.
        route: &'static str,
        /// True when the request certainly never left: the connection could not be opened.
        never_sent: bool,
        #[source]
        source: reqwest::Error,
    },
    /// 429. The request was not applied. The pacer has paused already; nobody needs to wait by hand.
    #[error("Kisi answered 429 to {method} {route}")]
    RateLimited {
        method: &'static str,
        route: &'static str,
        /// What Kisi asked for, if it named a time.
        retry_after: Option<Duration>,
    },
    /// Kisi understood and said no (4xx), or failed (5xx).
    #[error("Kisi answered {status} (code {}, fields [{}]) to {method} {route}", .code.as_deref().unwrap_or("none"), field_names(.fields))]
    Refused {
        method: &'static str,
        route: &'static str,
        status: u16,
        /// Kisi's code, e.g. `f35ade` or `000404`; absent in a 422 and in foreign bodies.
        code: Option<String>,
        /// Kisi's sentence. May quote personal data: for people, never for logs.
        message: Option<String>,
        /// Of a 422: field to messages, in Kisi's words. Field names are safe to log.
        fields: BTreeMap<String, Vec<String>>,
    },
    /// A success status whose body or headers are not what Kisi publishes.
    #[error("Kisi's {status} to {method} {route} cannot be read: {what}")]
    Unreadable {
        method: &'static str,
        route: &'static str,
        status: u16,
        /// What was expected, or where the JSON broke (line and column, no content).
        what: String,
    },
    /// The list is longer than Kisi lets anyone page through (offset at most 20000). Narrow it.
    #[error("the list {route} has {total} rows, and Kisi shows only the first {readable}")]
    BeyondOffsetLimit {
        route: &'static str,
        total: u64,
        readable: u64,
    },
    /// What its turn was given [only for](crate::Turn::only_while) was over before a byte of it left.
    #[error("{method} {route} was not sent: it was not to be sent any more")]
    Withheld {
        method: &'static str,
        route: &'static str,
    },
    /// A [`crate::ReadOnly`] kept the request back.
    #[error("not sent, this is a dry run: {step}")]
    NotSent { step: String },
    /// The client could not be built from its settings.
    #[error("the Kisi client cannot be built: {0}")]
    Settings(String),
}

impl KisiError {
    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Unreadable { status, .. } => Some(*status),
            Self::RateLimited { .. } => Some(429),
            _ => None,
        }
    }

    /// Kisi's own code, if the answer carried one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    /// 404: gone, never there, or not visible to this key.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The user or grant is there already: look again instead of trying again.
    ///
    /// A duplicate is a 409 by some reports; others saw a 422 on `email`, or on the assignment.
    pub fn is_already_exists(&self) -> bool {
        match self {
            Self::Refused { status: 409, .. } => true,
            Self::Refused {
                status: 422,
                fields,
                ..
            } => fields.contains_key("email"),
            _ => false,
        }
    }

    /// 422: the same request will be refused again, until something else changes.
    pub fn is_unprocessable(&self) -> bool {
        self.status() == Some(422)
    }

    /// 401 or 403: the key died, or its owner lost the rights, or the plan does not include this.
    ///
    /// Not to be asked of an unlock, where a 403 is about the member and the code says what. Of a
    /// single request a 403 may also be about one group, one person or the plan; then the key's
    /// owner still has a role ([`crate::model::AssignmentFilter::User`]).
    pub fn is_key_dead(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                status: 401 | 403,
                ..
            }
        )
    }

    /// For a write: it may or may not have happened. Settle it by a look, never by a second write.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Unreachable { never_sent, .. } => !never_sent,
            Self::Refused { status, .. } => *status >= 500,
            Self::Unreadable { .. } => true,
            _ => false,
        }
    }

    /// Kisi or the way to it is in trouble: the same request may well succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::RateLimited { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::Unreadable { .. }
            | Self::BeyondOffsetLimit { .. }
            | Self::Withheld { .. }
            | Self::NotSent { .. }
            | Self::Settings(_) => false,
        }
    }
}

fn field_names(fields: &BTreeMap<String, Vec<String>>) -> String {
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    names.join(", ")
}
