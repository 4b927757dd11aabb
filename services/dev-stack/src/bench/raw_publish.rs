//! Raw durable publishes: what a webhook is held against. The very message that a webhook becomes,
//! taken from its stream, is published again, plainly, and its ack awaited; to a stream of the same
//! settings on the same server, and without its id, so the server does not even look for repeats.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;

const STREAM: &str = "RAW";
const SUBJECT: &str = "raw.x";
/// Headers that ask the server for more than to store, a message's id above all.
const FOR_THE_SERVER: &str = "Nats-";
/// The stream that webhooks go to.
const BILLING: &str = "BILLING";

/// A publisher.
#[derive(Clone)]
pub struct RawPublish {
    jetstream: jetstream::Context,
    headers: HeaderMap,
    body: Bytes,
}

impl RawPublish {
    /// Of the last message that is on `BILLING`.
    pub async fn of_last_webhook(nats: SocketAddr) -> anyhow::Result<Self> {
        let client = async_nats::connect(format!("nats://{nats}")).await?;
        let mut jetstream = jetstream::new(client);
        jetstream.set_timeout(Duration::from_secs(10));
        let mut billing = jetstream.get_stream(BILLING).await?;
        let mut config = billing.info().await?.config.clone();
        config.name = STREAM.into();
        config.subjects = vec!["raw.>".into()];
        jetstream.create_stream(config).await?;

        let last = billing.info().await?.state.last_sequence;
        let message = billing
            .get_raw_message(last)
            .await
            .context("no webhook on BILLING yet")?;
        let headers = message
            .headers
            .iter()
            .filter(|(name, _)| !name.to_string().starts_with(FOR_THE_SERVER))
            .flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Ok(Self {
            jetstream,
            headers,
            body: message.payload,
        })
    }

    /// Ends when the message is on disk.
    pub async fn publish(&self) -> anyhow::Result<()> {
        self.jetstream
            .publish_with_headers(SUBJECT, self.headers.clone(), self.body.clone())
            .await?
            .await?;
        Ok(())
    }
}
