//! Every replica writes down what it heard and looks which endpoint has fallen silent, so that the
//! answer is the same on all of them and outlives them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use event_bus::{Bucket, BucketError};
use jiff::Timestamp;
use tracing::{info, warn};

use super::heard::{Heard, Name, Span};
use super::measures::{SILENCE, SILENT};
use super::rhythm::Rhythm;
use crate::endpoints::Endpoints;

/// Replicas that write at the same time.
const ATTEMPTS: usize = 5;

/// What is silent, as this replica has told it.
pub struct Silence {
    bucket: Bucket,
    heard: Arc<Heard>,
    /// A silence of up to this is never unusual.
    shortest: Duration,
    shown: BTreeSet<Name>,
    silent: BTreeSet<Name>,
}

impl Silence {
    pub fn new(bucket: Bucket, heard: Arc<Heard>, shortest: Duration) -> Self {
        Self {
            bucket,
            heard,
            shortest,
            shown: BTreeSet::new(),
            silent: BTreeSet::new(),
        }
    }

    /// Writes down what was heard and tells of each endpoint whether it is silent.
    ///
    /// # Errors
    /// When the bucket does not answer; what was heard is kept for the next look.
    pub async fn look(&mut self, endpoints: &Endpoints, now: Timestamp) -> Result<(), BucketError> {
        let names: BTreeSet<Name> = endpoints
            .iter()
            .map(|endpoint| (endpoint.provider.clone(), endpoint.id.clone()))
            .collect();
        // Of endpoints that are no more there is nothing to show.
        for (provider, endpoint) in self.shown.difference(&names).cloned() {
            metrics::gauge!(SILENT, "provider" => provider, "endpoint" => endpoint).set(0.0);
        }
        self.silent.retain(|name| names.contains(name));
        self.shown.clone_from(&names);
        for name in &names {
            let span = self.heard.of(name);
            let rhythm = self.rhythm(name, span, now).await?;
            if let Some(span) = span {
                self.heard.is_written(name, span);
            }
            self.show(name, &rhythm, now);
        }
        Ok(())
    }

    /// The rhythm in the bucket, with `span` in it.
    async fn rhythm(
        &self,
        name: &Name,
        span: Option<Span>,
        now: Timestamp,
    ) -> Result<Rhythm, BucketError> {
        let key = format!("heard.{}.{}", name.0, name.1);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let found = self.bucket.read::<Rhythm>(&key).await?;
            let is_new = found.is_none();
            let (mut rhythm, revision) = found.unwrap_or_else(|| (Rhythm::new(now), 0));
            match span {
                Some(span) => rhythm.hear(span.first, span.last, self.shortest),
                None if is_new => {}
                None => return Ok(rhythm),
            }
            match self.bucket.write(&key, &rhythm, revision).await {
                Ok(_) => return Ok(rhythm),
                Err(BucketError::Conflict { .. }) if attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn show(&mut self, name: &Name, rhythm: &Rhythm, now: Timestamp) {
        let (provider, endpoint) = name.clone();
        let silence = rhythm.silence(now);
        let is_silent = rhythm.is_silent(now, self.shortest);
        metrics::gauge!(SILENT, "provider" => provider.clone(), "endpoint" => endpoint.clone())
            .set(if is_silent { 1.0 } else { 0.0 });
        metrics::gauge!(SILENCE, "provider" => provider.clone(), "endpoint" => endpoint.clone())
            .set(silence.as_secs_f64());
        match is_silent {
            true if self.silent.insert(name.clone()) => warn!(
                provider,
                endpoint,
                silence_seconds = silence.as_secs(),
                "The endpoint {provider}/{endpoint} has been silent for longer than is usual for it"
            ),
            false if self.silent.remove(name) => {
                info!(
                    provider,
                    endpoint, "The endpoint {provider}/{endpoint} is heard again"
                );
            }
            _ => {}
        }
    }
}
