//! Nothing is sent for a while after Kisi did not answer, so that an outage is not hammered.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Nothing is sent for a while after Kisi did not answer.
#[derive(Debug, Default)]
pub struct Pause(Mutex<(Option<Instant>, u32)>);

impl Pause {
    /// True while nothing should be sent.
    pub fn is_on(&self) -> bool {
        self.until().is_some_and(|until| until > Instant::now())
    }

    /// When it ends, if one was made.
    pub fn until(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Kisi did not answer: half a second first, doubled each time, half a minute at most.
    pub fn begin(&self) {
        let mut pause = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pause.0.is_some_and(|until| until > Instant::now()) {
            return;
        }
        let wait = Duration::from_millis(500 << pause.1.min(6)).min(Duration::from_secs(30));
        *pause = (Some(Instant::now() + wait), pause.1 + 1);
    }

    /// Kisi answers again.
    pub fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (None, 0);
    }
}
