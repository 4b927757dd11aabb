//! Raw durable publishes: what a webhook is held against. A plain JetStream publish, its ack
//! awaited, of as many bytes, to a stream of the same settings on the same server; no headers, so
//! the server does not even look for repeats.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream;
use bytes::Bytes;

const STREAM: &str = "RAW";
const SUBJECT: &str = "raw.x";
/// The stream that webhooks go to.
const BILLING: &str = "BILLING";

/// A publisher.
#[derive(Clone)]
pub struct RawPublish {
    jetstream: jetstream::Context,
    body: Bytes,
}

impl RawPublish {
    /// As the messages that are on `BILLING` already.
    pub async fn like_billing(nats: SocketAddr) -> anyhow::Result<Self> {
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
        let headers: usize = message
            .headers
            .iter()
            .flat_map(|(name, values)| {
                let name: &str = name.as_ref();
                let lines = values.iter();
                lines.map(move |value| name.len() + value.as_str().len() + ": \r\n".len())
            })
            .sum();
        let size = "NATS/1.0\r\n\r\n".len() + headers + message.payload.len();
        Ok(Self {
            jetstream,
            body: vec![b'x'; size].into(),
        })
    }

    /// Ends when the message is on disk.
    pub async fn publish(&self) -> anyhow::Result<()> {
        self.jetstream
            .publish(SUBJECT, self.body.clone())
            .await?
            .await?;
        Ok(())
    }
}
