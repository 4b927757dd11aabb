//! Which messages a stream holds already, by id, far beyond its dedupe window.
//!
//! A stream has no index of ids. So the headers, and not the bodies, of what it stored since an
//! instant are read through once. What is stored meanwhile may be missed: an answer "not there" is
//! a reason to publish under the same id, and never a reason to think that nobody else does.

use std::collections::HashSet;
use std::ops::ControlFlow;

use async_nats::jetstream::Context;
use jiff::Timestamp;

use crate::envelope::{ID, text};
use crate::headers;

/// The stream could not be read to its end.
#[derive(Debug, thiserror::Error)]
#[error("the ids on {stream} cannot be read")]
pub struct StoredIdsError {
    stream: String,
    #[source]
    source: async_nats::Error,
}

/// Which of `ids` are on `stream`, in messages under `filter` that were stored at `since` or later.
pub(crate) async fn find(
    js: &Context,
    stream: &str,
    filter: &str,
    since: Timestamp,
    ids: &HashSet<String>,
) -> Result<HashSet<String>, StoredIdsError> {
    let mut found = HashSet::new();
    if ids.is_empty() {
        return Ok(found);
    }
    let read = headers::read(js, stream, filter, since, |_, headers| {
        let id = headers.and_then(|headers| text(headers, ID));
        found.extend(id.filter(|id| ids.contains(id)));
        if found.len() < ids.len() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    read.await.map_err(|source| StoredIdsError {
        stream: stream.to_owned(),
        source,
    })?;
    Ok(found)
}
