//! Taking messages off the streams for good, for people who are to be forgotten.
//!
//! The server overwrites what it deletes. Everything here may be repeated.

use std::collections::HashSet;
use std::ops::ControlFlow;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use jiff::Timestamp;

use crate::connect::Bus;
use crate::envelope::{ABOUT, ID, text};
use crate::headers;
use crate::topology::DEAD_LETTER;

/// What could not be erased.
#[derive(Debug, thiserror::Error)]
#[error("messages of {stream} cannot be erased")]
pub struct EraseError {
    stream: String,
    #[source]
    source: async_nats::Error,
}

/// Erases messages. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Eraser {
    js: Context,
}

impl Eraser {
    pub(crate) fn new(bus: &Bus) -> Self {
        Self {
            js: bus.jetstream().clone(),
        }
    }

    /// Erases all messages of a subject but its last.
    pub async fn keep_last(&self, stream: &str, subject: &str) -> Result<(), EraseError> {
        let purge = async {
            let found = self.js.get_stream_no_info(stream).await?;
            found.purge().filter(subject).keep(1).await?;
            Ok(())
        };
        purge.await.map_err(|source| failed(stream, source))
    }

    /// Erases the messages under `filter`, stored at `since` or later, that have one of these ids;
    /// how many there were.
    pub async fn erase_by_id(
        &self,
        stream: &str,
        filter: &str,
        since: Timestamp,
        ids: &HashSet<String>,
    ) -> Result<usize, EraseError> {
        self.erase(stream, filter, since, |headers| {
            text(headers, ID).is_some_and(|id| ids.contains(&id))
        })
        .await
    }

    /// Erases the dead letters, and what of them waits for its replay, that speak of `about`
    /// (`ce-subject`) or have one of these ids; how many there were.
    pub async fn erase_dead_letters(
        &self,
        about: &str,
        ids: &HashSet<String>,
    ) -> Result<usize, EraseError> {
        let is_one = |headers: &HeaderMap| {
            text(headers, ABOUT).is_some_and(|subject| subject == about)
                || text(headers, ID).is_some_and(|id| {
                    // Under a replay's id, the original one comes first.
                    ids.contains(id.split('~').next().unwrap_or(&id))
                })
        };
        self.erase(DEAD_LETTER, ">", Timestamp::UNIX_EPOCH, is_one)
            .await
    }

    async fn erase(
        &self,
        stream: &str,
        filter: &str,
        since: Timestamp,
        wanted: impl Fn(&HeaderMap) -> bool,
    ) -> Result<usize, EraseError> {
        let mut sequences = Vec::new();
        let read = headers::read(&self.js, stream, filter, since, |sequence, headers| {
            if headers.is_some_and(&wanted) {
                sequences.push(sequence);
            }
            ControlFlow::Continue(())
        });
        read.await.map_err(|source| failed(stream, source))?;
        let found = self.js.get_stream_no_info(stream).await;
        let found = found.map_err(|source| failed(stream, source.into()))?;
        for sequence in &sequences {
            let Err(error) = found.delete_message(*sequence).await else {
                continue;
            };
            // One that is not there any more is what was wanted.
            match found.get_raw_message(*sequence).await {
                Err(gone) if gone.kind() == LastRawMessageErrorKind::NoMessageFound => {}
                _ => return Err(failed(stream, error.into())),
            }
        }
        Ok(sequences.len())
    }
}

fn failed(stream: &str, source: async_nats::Error) -> EraseError {
    EraseError {
        stream: stream.to_owned(),
        source,
    }
}
