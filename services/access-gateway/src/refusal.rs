//! Why a call is not answered, and what that is over gRPC. HTTP's reading is in `http/problem.rs`.

use service_runtime::identity::IdentityError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// One field of a request at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Its name as the caller wrote it, nested ones with dots: `associations[0].group_id`.
    pub field: String,
    /// What is expected.
    pub message: String,
}

/// Why a call is not answered. Every text is meant for the caller.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request makes no sense.
    #[error("{}", sentence(.0))]
    Invalid(Vec<FieldError>),
    /// The caller may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The state of things does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// This replica has not caught up with the bus.
    #[error("this replica has not caught up yet; ask again")]
    NotCaughtUp,
    /// The bus does not answer.
    #[error("NATS does not answer now")]
    BusAway,
    /// The part that would answer is not built yet.
    #[error("{0} is not available yet")]
    NotYet(&'static str),
    /// Another service of ours refused or did not answer.
    #[error("{}", .status.message())]
    Upstream {
        /// Which one.
        service: &'static str,
        /// Its answer.
        status: Status,
    },
}

impl Refusal {
    /// One field at fault.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError {
            field: field.to_owned(),
            message: message.into(),
        }])
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Forbidden(_) => Code::PermissionDenied,
            Self::NotFound(_) => Code::NotFound,
            Self::Conflict(_) => Code::FailedPrecondition,
            Self::NotCaughtUp | Self::BusAway => Code::Unavailable,
            Self::NotYet(_) => Code::Unimplemented,
            Self::Upstream { status, .. } => upstream_code(status.code()),
        }
    }

    /// The fields at fault, an upstream's included.
    pub fn fields(&self) -> Vec<FieldError> {
        match self {
            Self::Invalid(fields) => fields.clone(),
            Self::Upstream { status, .. } => match status.get_details_bad_request() {
                Some(bad) => bad
                    .field_violations
                    .into_iter()
                    .map(|violation| FieldError {
                        field: violation.field,
                        message: violation.description,
                    })
                    .collect(),
                None => named_in_text(status).into_iter().collect(),
            },
            _ => Vec::new(),
        }
    }

    /// The sentence for the caller. What an upstream says of its inside is kept from them.
    pub fn sentence(&self) -> String {
        match self {
            Self::Upstream { service, status } => match upstream_code(status.code()) {
                Code::Internal => "Something went wrong here; it has been recorded.".to_owned(),
                Code::Unavailable if status.code() != Code::Unavailable => {
                    format!("{service} does not answer now")
                }
                // Transport errors name addresses; those are ours to know.
                Code::Unavailable if std::error::Error::source(status).is_some() => {
                    format!("{service} does not answer now")
                }
                Code::Unimplemented => format!("{service} does not offer this yet"),
                _ => status.message().to_owned(),
            },
            other => other.to_string(),
        }
    }
}

/// An upstream that refuses *our* token or breaks is our failure, not the caller's.
fn upstream_code(code: Code) -> Code {
    match code {
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss | Code::Unauthenticated => {
            Code::Internal
        }
        Code::Cancelled | Code::DeadlineExceeded => Code::Unavailable,
        Code::OutOfRange => Code::InvalidArgument,
        other => other,
    }
}

/// The field of an INVALID_ARGUMENT without details: our services write `field: what is expected`.
fn named_in_text(status: &Status) -> Option<FieldError> {
    let (field, message) = status.message().split_once(": ")?;
    let is_name =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.[]".contains(&byte);
    (status.code() == Code::InvalidArgument && !field.is_empty() && field.bytes().all(is_name))
        .then(|| FieldError {
            field: field.to_owned(),
            message: message.to_owned(),
        })
}

fn sentence(fields: &[FieldError]) -> String {
    fields
        .iter()
        .map(|field| format!("{}: {}", field.field, field.message))
        .collect::<Vec<_>>()
        .join("; ")
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        Self::Forbidden(error.to_string())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, text) = (refusal.code(), refusal.sentence());
        let fields = refusal.fields();
        if fields.is_empty() {
            return Self::new(code, text);
        }
        let mut details = ErrorDetails::new();
        for field in fields {
            details.add_bad_request_violation(field.field, field.message);
        }
        Self::with_error_details(code, text, details)
    }
}
