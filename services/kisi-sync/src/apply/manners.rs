//! What a gym's Kisi was seen not to do, where no page of it tells: so that it is not asked in vain each
//! time. In memory alone, since whoever has forgotten it asks once more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::replacing::Replaced;

/// Kisi may do tomorrow what it does not do today.
const HOLDS: Duration = Duration::from_secs(24 * 3_600);

/// One gym's.
#[derive(Debug, Default)]
pub struct Manners {
    /// When a window that was to be changed in place was seen to stay as it was.
    windows_stay: Mutex<Option<Instant>>,
    /// What came of rights that were taken away to be given anew; whoever does that has it.
    pub(super) replaced: Arc<tokio::sync::Mutex<Replaced>>,
}

impl Manners {
    /// Whether it is worth asking for another window of a right that stands.
    pub(super) fn moves_windows(&self) -> bool {
        self.lock().is_none_or(|since| since.elapsed() >= HOLDS)
    }

    /// The very window was given with another right, and not to the one that stood.
    pub(super) fn note_windows_stay(&self) {
        *self.lock() = Some(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.windows_stay
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_holds_for_a_day() {
        let manners = Manners::default();
        assert!(manners.moves_windows());
        manners.note_windows_stay();
        tokio::time::advance(HOLDS - Duration::from_secs(1)).await;
        assert!(!manners.moves_windows());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(manners.moves_windows());
    }
}
