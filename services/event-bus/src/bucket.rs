//! A key-value bucket as this system uses one: small JSON values, written only over the very
//! revision that was read, so that of two writers one finds out.

use async_nats::jetstream::Context;
use async_nats::jetstream::kv::{Store, UpdateErrorKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A bucket. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Bucket {
    js: Context,
    name: &'static str,
}

/// Why a value was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The value is of another revision than the expected one: somebody else wrote.
    #[error("another writer came in between at {key} of the bucket {bucket}")]
    Conflict {
        /// The bucket.
        bucket: &'static str,
        /// The key.
        key: String,
    },
    /// JetStream does not answer. A write may have happened all the same.
    #[error("the bucket {bucket} cannot be reached")]
    Unavailable {
        /// The bucket.
        bucket: &'static str,
        /// The client's answer.
        #[source]
        source: async_nats::Error,
    },
    /// The value is not of the expected shape.
    #[error("{key} of the bucket {bucket} makes no sense")]
    Unreadable {
        /// The bucket.
        bucket: &'static str,
        /// The key.
        key: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

impl Bucket {
    pub(crate) fn new(js: Context, name: &'static str) -> Self {
        Self { js, name }
    }

    /// The value at `key` and its revision. A replica may answer that lags behind: what is
    /// decided on a value counts only once it is written over that revision.
    pub async fn read<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<(T, u64)>, BucketError> {
        let entry = self.store().await?.entry(key).await;
        let Some(entry) = entry.map_err(|error| self.unavailable(error))? else {
            return Ok(None);
        };
        let value = serde_json::from_slice(&entry.value).map_err(|source| self.odd(key, source))?;
        Ok(Some((value, entry.revision)))
    }

    /// Writes `value` over `last_revision` (0: there is none yet), and answers the new revision.
    pub async fn write<T: Serialize>(
        &self,
        key: &str,
        value: &T,
        last_revision: u64,
    ) -> Result<u64, BucketError> {
        let value = serde_json::to_vec(value).map_err(|source| self.odd(key, source))?;
        let store = self.store().await?;
        let written = store.update(key, value.into(), last_revision).await;
        written.map_err(|error| match error.kind() {
            UpdateErrorKind::WrongLastRevision => BucketError::Conflict {
                bucket: self.name,
                key: key.to_owned(),
            },
            _ => self.unavailable(error),
        })
    }

    async fn store(&self) -> Result<Store, BucketError> {
        let store = self.js.get_key_value(self.name).await;
        store.map_err(|error| self.unavailable(error))
    }

    fn unavailable(&self, source: impl Into<async_nats::Error>) -> BucketError {
        BucketError::Unavailable {
            bucket: self.name,
            source: source.into(),
        }
    }

    fn odd(&self, key: &str, source: serde_json::Error) -> BucketError {
        BucketError::Unreadable {
            bucket: self.name,
            key: key.to_owned(),
            source,
        }
    }
}
