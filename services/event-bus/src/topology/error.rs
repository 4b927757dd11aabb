//! Why the topology is not as it must be, and whether waiting could help.

use async_nats::jetstream::context::{
    CreateKeyValueErrorKind, CreateStreamError, CreateStreamErrorKind, GetStreamError,
    GetStreamErrorKind, UpdateStreamError, UpdateStreamErrorKind,
};

use super::CATCHUP;

/// Why the topology is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// A stream differs in something that cannot be changed, or not to what is wanted.
    #[error("stream {stream}: {field} is {found} and must be {wanted}")]
    Mismatch {
        /// The stream's name.
        stream: String,
        /// The fields that differ.
        field: String,
        /// As they are.
        found: String,
        /// As they must be.
        wanted: String,
    },
    /// The stream cannot be looked up.
    #[error("stream {stream} cannot be looked up")]
    Lookup {
        /// The stream's name.
        stream: String,
        /// The server's answer.
        #[source]
        source: GetStreamError,
    },
    /// The stream cannot be created.
    #[error("stream {stream} cannot be created with {replicas} replica(s)")]
    Create {
        /// The stream's name.
        stream: String,
        /// `NATS_REPLICAS`.
        replicas: usize,
        /// The server's answer.
        #[source]
        source: CreateStreamError,
    },
    /// The stream cannot be changed.
    #[error("stream {stream}: {field} cannot be changed")]
    Update {
        /// The stream's name.
        stream: String,
        /// The fields that differ.
        field: String,
        /// The server's answer.
        #[source]
        source: UpdateStreamError,
    },
    /// The bucket cannot be created.
    #[error("bucket {CATCHUP} cannot be created")]
    Bucket(#[source] async_nats::jetstream::context::CreateKeyValueError),
}

impl TopologyError {
    /// True when the server was not there to ask: worth trying again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Mismatch { .. } => false,
            Self::Lookup { source, .. } => {
                matches!(source.kind(), GetStreamErrorKind::Request)
            }
            Self::Create { source, .. } => matches!(
                source.kind(),
                CreateStreamErrorKind::TimedOut
                    | CreateStreamErrorKind::Response
                    | CreateStreamErrorKind::JetStreamUnavailable
            ),
            Self::Update { source, .. } => matches!(
                source.kind(),
                UpdateStreamErrorKind::TimedOut | UpdateStreamErrorKind::Response
            ),
            Self::Bucket(error) => matches!(
                error.kind(),
                CreateKeyValueErrorKind::TimedOut | CreateKeyValueErrorKind::JetStream
            ),
        }
    }
}
