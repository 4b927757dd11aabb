//! Are acks durable? Asked of every NATS server before anything is promised.
//!
//! JetStream acknowledges before the disk has the message unless `sync_interval` is `always`; then
//! a power cut loses what was acked. The servers say how they are set at `/varz`. One of several
//! may be down when a service starts, or an incident would spread: a majority must answer, and
//! every one that answers must be right.

use std::time::Duration;

use serde::Deserialize;

/// Why the servers' acks are not to be relied on.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// Nobody to ask.
    #[error(
        "missing setting: NATS_MONITOR_URLS (the monitoring address of every NATS server, to see that acks are durable; ALLOW_LAZY_SYNC=true does without)"
    )]
    NoMonitors,
    /// A server does not sync on every write.
    #[error(
        "the NATS server at {url} does not sync every write (jetstream sync_interval is not always), so its acks are not durable; set it, or ALLOW_LAZY_SYNC=true"
    )]
    LazySync {
        /// Its monitoring address.
        url: String,
    },
    /// A server runs no JetStream.
    #[error("the NATS server at {url} runs no JetStream")]
    NoJetStream {
        /// Its monitoring address.
        url: String,
    },
    /// A server does not answer: worth trying again.
    #[error("the NATS monitoring address {url} does not answer")]
    Unreachable {
        /// Its monitoring address.
        url: String,
        /// What failed.
        #[source]
        source: reqwest::Error,
    },
}

#[derive(Deserialize)]
struct Varz {
    #[serde(default)]
    jetstream: JetStream,
}

#[derive(Deserialize, Default)]
struct JetStream {
    config: Option<JetStreamConfig>,
}

#[derive(Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    sync_always: bool,
}

/// Asks every server, and fails with the first whose acks are not durable, or when no majority
/// answers.
pub async fn check(monitor_urls: &[String]) -> Result<(), PreflightError> {
    if monitor_urls.is_empty() {
        return Err(PreflightError::NoMonitors);
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut silent = Vec::new();
    for url in monitor_urls {
        let url = url.trim_end_matches('/').to_owned();
        match ask(&url).await {
            Ok(varz) => match varz.jetstream.config {
                Some(config) if config.sync_always => {}
                Some(_) => return Err(PreflightError::LazySync { url }),
                None => return Err(PreflightError::NoJetStream { url }),
            },
            Err(source) => silent.push((url, source)),
        }
    }
    let majority_answers = silent.len() * 2 < monitor_urls.len();
    for (url, source) in silent {
        if !majority_answers {
            return Err(PreflightError::Unreachable { url, source });
        }
        tracing::warn!(error = %source, "The NATS monitoring address {url} does not answer");
    }
    Ok(())
}

async fn ask(url: &str) -> Result<Varz, reqwest::Error> {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(3))
        .build()?;
    let answer = client.get(format!("{url}/varz")).send().await?;
    answer.error_for_status()?.json().await
}
