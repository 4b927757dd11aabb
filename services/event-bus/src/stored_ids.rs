//! Which messages a stream holds already, by id, far beyond its dedupe window.
//!
//! A stream has no index of ids. So the headers, and not the bodies, of what it stored since an
//! instant are read through once. What is stored meanwhile may be missed: an answer "not there" is
//! a reason to publish under the same id, and never a reason to think that nobody else does.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use futures_util::StreamExt;
use jiff::Timestamp;

use crate::envelope::{ID, text};

/// Headers asked for at once.
const BATCH: usize = 500;
/// A server that sends nothing for this long is taken for gone.
const PATIENCE: Duration = Duration::from_secs(5);

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
    let found = read(js, stream, filter, since, ids).await;
    found.map_err(|source| StoredIdsError {
        stream: stream.to_owned(),
        source,
    })
}

async fn read(
    js: &Context,
    stream: &str,
    filter: &str,
    since: Timestamp,
    ids: &HashSet<String>,
) -> Result<HashSet<String>, async_nats::Error> {
    let stream = js.get_stream_no_info(stream).await?;
    let mut consumer: PullConsumer = stream
        .create_consumer(pull::Config {
            deliver_policy: DeliverPolicy::ByStartTime {
                start_time: (SystemTime::UNIX_EPOCH + since_1970(since)).into(),
            },
            ack_policy: AckPolicy::None,
            filter_subject: filter.to_owned(),
            headers_only: true,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: 4 * PATIENCE,
            ..pull::Config::default()
        })
        .await?;
    let mut found = HashSet::new();
    let mut left = consumer.cached_info().num_pending;
    while left > 0 && found.len() < ids.len() {
        left = match batch(&consumer, ids, &mut found).await? {
            Some(left) => left,
            // Nothing came: the rest has aged out meanwhile, or the server has lost its thread.
            None => match consumer.info().await?.num_pending {
                0 => 0,
                _ => return Err("the stream broke off".into()),
            },
        };
    }
    // The server does it by itself a little later.
    let _ = stream.delete_consumer(&consumer.cached_info().name).await;
    Ok(found)
}

fn since_1970(instant: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(instant.as_second()).unwrap_or_default())
}

/// Reads one batch; how many messages are left after it, `None` when nothing came.
async fn batch(
    consumer: &PullConsumer,
    ids: &HashSet<String>,
    found: &mut HashSet<String>,
) -> Result<Option<u64>, async_nats::Error> {
    let fetching = consumer.fetch().max_messages(BATCH).expires(PATIENCE);
    let mut messages = fetching.messages().await?;
    let mut left = None;
    while let Some(message) = tokio::time::timeout(2 * PATIENCE, messages.next()).await? {
        let message = message?;
        left = Some(message.info()?.pending);
        let id = message
            .headers
            .as_ref()
            .and_then(|headers| text(headers, ID));
        if let Some(id) = id
            && ids.contains(&id)
        {
            found.insert(id);
        }
    }
    Ok(left)
}
