//! The headers of what a stream holds, without the bodies, read through once.

use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use futures_util::StreamExt;
use jiff::Timestamp;

/// Headers asked for at once.
const BATCH: usize = 500;
/// A server that sends nothing for this long is taken for gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shows `visit` the sequence and headers of each message under `filter` that was stored at `since`
/// or later and is there when the reading begins, until it breaks off.
pub(crate) async fn read(
    js: &Context,
    stream: &str,
    filter: &str,
    since: Timestamp,
    mut visit: impl FnMut(u64, Option<&HeaderMap>) -> ControlFlow<()>,
) -> Result<(), async_nats::Error> {
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
    let mut left = consumer.cached_info().num_pending;
    while left > 0 {
        left = match batch(&consumer, &mut visit).await? {
            ControlFlow::Break(()) => 0,
            ControlFlow::Continue(Some(left)) => left,
            // Nothing came: the rest has aged out meanwhile, or the server has lost its thread.
            ControlFlow::Continue(None) => match consumer.info().await?.num_pending {
                0 => 0,
                _ => return Err("the stream broke off".into()),
            },
        };
    }
    // The server does it by itself a little later.
    let _ = stream.delete_consumer(&consumer.cached_info().name).await;
    Ok(())
}

fn since_1970(instant: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(instant.as_second()).unwrap_or_default())
}

/// Reads one batch; how many messages are left after it, `None` when nothing came.
async fn batch(
    consumer: &PullConsumer,
    visit: &mut impl FnMut(u64, Option<&HeaderMap>) -> ControlFlow<()>,
) -> Result<ControlFlow<(), Option<u64>>, async_nats::Error> {
    let fetching = consumer.fetch().max_messages(BATCH).expires(PATIENCE);
    let mut messages = fetching.messages().await?;
    let mut left = None;
    while let Some(message) = tokio::time::timeout(2 * PATIENCE, messages.next()).await? {
        let message = message?;
        let info = message.info()?;
        left = Some(info.pending);
        if visit(info.stream_sequence, message.headers.as_ref()).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(left))
}
