//! Catching up: what a provider could not deliver is fetched from its API.
//!
//! Every quarter of an hour, on the quarter, one replica asks each provider for which an endpoint
//! has an API key ([`pass`]), in turn ([`turn`]). What it finds takes the path of a post, from the
//! translation to the id, so that an event that comes by both ways is one event to its readers.
//! A run that is due and was not made, because everything was down, is made at the start.
//!
//! At the same instants every replica writes down which endpoints it heard, and looks for one that
//! has fallen silent ([`silence`]).
//!
//! Deliberately not here: asking a provider for anything else than its events.

pub mod api;
pub mod heard;
pub mod listing;
pub mod measures;
pub mod pass;
pub mod rhythm;
pub mod run;
pub mod silence;
pub mod turn;

use std::sync::Arc;
use std::time::Duration;

use event_bus::{Bucket, Bus};
use jiff::Timestamp;
use service_runtime::clock::Clock;
use service_runtime::lifecycle::chain;
use service_runtime::settings::positive_duration;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use url::Url;

use crate::endpoints::watch::Current;
use crate::intake::Intake;
use api::Api;
use heard::Heard;
use pass::{Catcher, Settled};
use silence::Silence;
use turn::{Taken, Turn, Turns};

/// How long the last words may take when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How events are caught up.
#[derive(Debug, Clone, clap::Args)]
pub struct CatchUpSettings {
    /// How often providers are asked for what they could not deliver, aligned to UTC.
    #[arg(long, env = "CATCHUP_EVERY", default_value = "15m", value_parser = positive_duration)]
    pub catchup_every: Duration,
    /// Requests to providers' APIs a second, together.
    #[arg(long, env = "CATCHUP_REQUESTS_PER_SECOND", default_value_t = 5.0, value_parser = rate)]
    pub catchup_requests_per_second: f64,
    /// How long a provider's API may take to answer.
    #[arg(long, env = "CATCHUP_REQUEST_TIMEOUT", default_value = "30s", value_parser = positive_duration)]
    pub catchup_request_timeout: Duration,
    /// After this a replica that says nothing any more is taken for dead, and its run is made by another.
    #[arg(long, env = "CATCHUP_TURN_EXPIRY", default_value = "30s", value_parser = positive_duration)]
    pub catchup_turn_expiry: Duration,
    /// Where Stripe's API is; https://api.stripe.com unless set.
    #[arg(long, env = "STRIPE_API_BASE", value_parser = api::base)]
    pub stripe_api_base: Option<Url>,
    /// Where GoCardless's API is; https://api.gocardless.com unless set, and https://api-sandbox.gocardless.com for endpoints of test mode.
    #[arg(long, env = "GOCARDLESS_API_BASE", value_parser = api::base)]
    pub gocardless_api_base: Option<Url>,
    /// An endpoint that is silent for no longer than this never shows as silent.
    #[arg(long, env = "SILENCE_AT_LEAST", default_value = "1h", value_parser = positive_duration)]
    pub silence_at_least: Duration,
}

impl CatchUpSettings {
    /// No real provider is asked.
    pub fn for_testing(api: Option<&str>) -> Self {
        let nowhere = "http://127.0.0.1:9";
        let base = api::base(api.unwrap_or(nowhere)).ok();
        Self {
            catchup_every: Duration::from_secs(15 * 60),
            catchup_requests_per_second: 1_000.0,
            catchup_request_timeout: Duration::from_secs(10),
            catchup_turn_expiry: Duration::from_secs(3),
            stripe_api_base: base.clone(),
            gocardless_api_base: base,
            silence_at_least: Duration::from_secs(3_600),
        }
    }

    /// Where this provider's API is, if a setting says so.
    pub fn base(&self, provider: &str) -> Option<&Url> {
        match provider {
            "stripe" => self.stripe_api_base.as_ref(),
            "gocardless" => self.gocardless_api_base.as_ref(),
            _ => None,
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.trim().parse() {
        Ok(rate) if (0.01..=1_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number from 0.01 to 1000 is expected".to_owned()),
    }
}

/// Catches up while the process runs.
pub struct CatchUp {
    settings: CatchUpSettings,
    endpoints: Current,
    clock: Arc<dyn Clock>,
    bucket: Bucket,
    catcher: Catcher,
    silence: Silence,
}

impl CatchUp {
    /// Asks nobody yet.
    pub fn new(
        settings: CatchUpSettings,
        endpoints: Current,
        clock: Arc<dyn Clock>,
        bus: &Bus,
        intake: Intake,
        heard: Arc<Heard>,
    ) -> Self {
        let bucket = bus.catchup_bucket();
        let catcher = Catcher {
            bus: bus.clone(),
            bucket: bucket.clone(),
            intake,
            api: Api::new(
                settings.catchup_requests_per_second,
                settings.catchup_request_timeout,
            ),
            settings: settings.clone(),
            clock: Arc::clone(&clock),
            settled: Settled::default(),
        };
        Self {
            silence: Silence::new(bucket.clone(), heard, settings.silence_at_least),
            settings,
            endpoints,
            clock,
            bucket,
            catcher,
        }
    }

    /// Until `shutdown`; a run that it cuts short is given back for another replica to make.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let slot = slot(self.clock.now(), self.settings.catchup_every);
            let look = self.look_for_silence();
            shutdown.run_until_cancelled(look).await;
            self.attend(slot, &shutdown).await;
            let pause = until_next(slot, self.settings.catchup_every, self.clock.now());
            let pause = tokio::time::sleep(pause);
            if shutdown.run_until_cancelled(pause).await.is_none() {
                break;
            }
        }
        // What was heard since the last look, for the others.
        let _ = tokio::time::timeout(LAST_WORDS, self.look_for_silence()).await;
    }

    async fn look_for_silence(&mut self) {
        let endpoints = self.endpoints.load_full();
        if let Err(error) = self.silence.look(&endpoints, self.clock.now()).await {
            warn!("It cannot be seen who is silent: {}", chain(&error));
        }
    }

    /// Sees to it that the run of `slot` is made, by this replica or another.
    async fn attend(&mut self, slot: Timestamp, shutdown: &CancellationToken) {
        let expiry = self.settings.catchup_turn_expiry;
        let mut turns = Turns::new(self.bucket.clone(), expiry);
        loop {
            let endpoints = self.endpoints.load_full();
            if !endpoints.iter().any(|endpoint| endpoint.api_key.is_some()) {
                return;
            }
            let taken = shutdown.run_until_cancelled(turns.take(slot)).await;
            let Some(taken) = taken else {
                return;
            };
            match taken {
                Ok(Taken::Ours(turn)) => return self.make(*turn, shutdown).await,
                Ok(Taken::Over) => return,
                Ok(Taken::Held) => {}
                Err(error) => warn!("Whose turn it is cannot be seen: {}", chain(&error)),
            }
            let left = until_next(slot, self.settings.catchup_every, self.clock.now());
            let pause = tokio::time::sleep(left.min(expiry / 3));
            let stopped = shutdown.run_until_cancelled(pause).await.is_none();
            if stopped || left.is_zero() {
                return;
            }
        }
    }

    async fn make(&mut self, mut turn: Turn, shutdown: &CancellationToken) {
        let endpoints = self.endpoints.load_full();
        let is_made = tokio::select! {
            () = self.catcher.run(&endpoints) => true,
            () = turn.keep(self.settings.catchup_turn_expiry) => {
                warn!("The turn to catch up was lost; another replica makes this run");
                return;
            }
            () = shutdown.cancelled() => false,
        };
        let last_words = async {
            match is_made {
                true => turn.done().await,
                false => turn.give_back().await,
            }
        };
        match tokio::time::timeout(LAST_WORDS, last_words).await {
            Ok(Ok(())) => {}
            // It expires, and the run is made once more: it finds nothing new.
            Ok(Err(error)) => warn!("The end of a run is not written down: {}", chain(&error)),
            Err(_) => warn!("The end of a run is not written down in time"),
        }
    }
}

/// The last instant at or before `now` at which a run was due.
fn slot(now: Timestamp, every: Duration) -> Timestamp {
    let every = milliseconds(every);
    let due = now.as_millisecond().div_euclid(every) * every;
    Timestamp::from_millisecond(due).unwrap_or(now)
}

/// How long until the run after `slot` is due.
fn until_next(slot: Timestamp, every: Duration, now: Timestamp) -> Duration {
    let next = slot.as_millisecond().saturating_add(milliseconds(every));
    let left = next.saturating_sub(now.as_millisecond());
    Duration::from_millis(u64::try_from(left).unwrap_or_default())
}

fn milliseconds(every: Duration) -> i64 {
    i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_due_on_the_quarter() {
        let every = Duration::from_secs(15 * 60);
        for (now, due, left) in [
            ("2026-11-03T04:00:00Z", "2026-11-03T04:00:00Z", 900),
            ("2026-11-03T04:14:59Z", "2026-11-03T04:00:00Z", 1),
            ("2026-11-03T04:15:00Z", "2026-11-03T04:15:00Z", 900),
            ("2026-11-03T23:50:00Z", "2026-11-03T23:45:00Z", 600),
        ] {
            let now: Timestamp = now.parse().expect("an instant");
            let slot = slot(now, every);
            assert_eq!(slot.to_string(), due);
            assert_eq!(until_next(slot, every, now), Duration::from_secs(left));
        }
    }
}
