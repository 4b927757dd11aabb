//! Nothing is sent for a while after Kisi did not answer, so that an outage is not hammered; and
//! how long the outage has lasted, so that a long one shows.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The first wait, doubled with each failure after it.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// One gym's.
#[derive(Debug, Default)]
pub struct Pause(Mutex<State>);

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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
