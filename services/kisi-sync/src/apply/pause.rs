//! Nothing is sent for a while after Kisi did not answer, so that an outage is not hammered; and
//! how long the outage has lasted, so that a long one shows.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kisi_client::{KisiError, KisiRead, Lane};
use tokio::time::Instant;

use super::Engine;
use crate::error::Trouble;
use crate::record::Outcome;
use crate::snapshot::Snapshot;

/// The first wait, doubled with each failure after it.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// After so many pauses with no answer in between Kisi is asked whether it answers, before anything else.
const ASKED_AFTER: u32 = 2;
/// One answer tells for so long, and for everybody, that it does.
const ANSWER_HOLDS: Duration = Duration::from_secs(1);
/// Any right: that it is not there is an answer like any other.
const ANY: i64 = 1;

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
    /// When it last answered.
    answered: Option<Instant>,
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

    /// Whether it has failed so often that the next may be a waste.
    pub fn is_long(&self) -> bool {
        self.lock().failures >= ASKED_AFTER
    }

    /// Nothing has to wait any more.
    pub fn end(&self) {
        let mut state = self.lock();
        *state = State {
            answered: state.answered,
            ..State::default()
        };
    }

    /// Kisi has answered something.
    pub fn hears(&self) {
        self.lock().answered = Some(Instant::now());
    }

    fn has_answered(&self, within: Duration) -> bool {
        let answered = self.lock().answered;
        answered.is_some_and(|at| at.elapsed() < within)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// The same as [`settle`](Self::settle) while Kisi fails at some: what it fails at soon after it has
    /// answered something is no outage.
    pub(crate) async fn settle_doubted(
        &self,
        member: &str,
        seed: Option<Snapshot>,
    ) -> Result<Outcome, Trouble> {
        self.is_answered().await?;
        // A question is asked three times, and each may go unanswered for as long as it may take. Many
        // wait for their turn by now: what fails later than that is perhaps an outage after all.
        let since = ANSWER_HOLDS + self.shared.request_timeout * 3;
        match self.settle(member, seed).await {
            Err(Trouble::Unreachable(error)) if self.pause.has_answered(since) => {
                Err(Trouble::FailsAlone(error))
            }
            settled => settled,
        }
    }

    async fn is_answered(&self) -> Result<(), Trouble> {
        let _alone = self.pause.asking.lock().await;
        self.may_send()?;
        if self.pause.has_answered(ANSWER_HOLDS) {
            return Ok(());
        }
        let login = self.ask(self.kisi.current_login(Lane::Revoke)).await;
        let answer = match is_unanswered(&login) {
            // That route alone may fail, and those who wait go by another one.
            true => {
                let right = self.kisi.find_role_assignment(Lane::Revoke, ANY);
                self.ask(right).await.map(drop)
            }
            false => login.map(drop),
        };
        if is_unanswered(&answer) {
            // Before the next one who waits asks.
            self.pause.begin();
            return answer;
        }
        match answer {
            // Whatever it says of that, it answers.
            Ok(()) | Err(Trouble::Refused { .. } | Trouble::Unreachable(_)) => {
                self.pause.hears();
                self.pause.end();
                Ok(())
            }
            Err(trouble) => Err(trouble),
        }
    }
}

fn is_unanswered<T>(answer: &Result<T, Trouble>) -> bool {
    matches!(answer, Err(Trouble::Unreachable(error)) if !is_answer(error))
}

fn is_answer(error: &KisiError) -> bool {
    let status = error.status();
    status.is_some_and(|status| status < 500 && status != 429)
}
