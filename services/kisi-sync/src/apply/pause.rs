//! Nothing is sent for a while after Kisi did not answer, so that an outage is not hammered; and
//! how long the outage has lasted, so that a long one shows.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kisi_client::{KisiRead, Lane};
use tokio::time::Instant;

use super::Engine;
use crate::error::Trouble;
use crate::record::Outcome;
use crate::snapshot::Snapshot;

/// The first wait, doubled with each failure after it.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// One gym's.
#[derive(Debug, Default)]
pub struct Pause {
    state: Mutex<State>,
    /// One asks whether Kisi answers, and the others wait for what comes of it.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    until: Option<Instant>,
    failures: u32,
    since: Option<Instant>,
}

impl Pause {
    /// True while nothing should be sent.
    pub fn is_on(&self) -> bool {
        let until = self.lock().until;
        until.is_some_and(|until| until > Instant::now())
    }

    /// Kisi did not answer. Several failures at once count as one.
    pub fn begin(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.until.is_some_and(|until| until > now) {
            return;
        }
        let wait = FIRST
            .saturating_mul(1 << state.failures.min(6))
            .min(LONGEST);
        state.until = Some(now + wait);
        state.failures += 1;
        state.since.get_or_insert(now);
    }

    /// Whether Kisi has not answered since it last failed.
    pub fn is_outage(&self) -> bool {
        self.lock().since.is_some()
    }

    /// For how long Kisi has not answered.
    pub fn lasted(&self) -> Duration {
        self.lock()
            .since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Kisi answers again.
    pub fn end(&self) {
        *self.lock() = State::default();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// The same as [`settle`](Self::settle) for a member at whom Kisi has failed before: what it fails at
    /// right after it has answered the simplest question is no outage.
    pub(crate) async fn settle_doubted(
        &self,
        member: &str,
        seed: Option<Snapshot>,
    ) -> Result<Outcome, Trouble> {
        self.is_answered().await?;
        match self.settle(member, seed).await {
            Err(Trouble::Unreachable(error)) => Err(Trouble::FailsAlone(error)),
            settled => settled,
        }
    }

    async fn is_answered(&self) -> Result<(), Trouble> {
        let _alone = self.pause.asking.lock().await;
        self.may_send()?;
        let answer = self.ask(self.kisi.current_login(Lane::Revoke)).await;
        if let Err(Trouble::Unreachable(_)) = &answer {
            // Before the next one who waits asks.
            self.pause.begin();
        }
        answer.map(drop)
    }
}
