//! How long to wait before trying again: doubling, capped, with jitter, so that many who fail
//! together do not come back together.

use std::time::Duration;

/// Waits that double from `first` to `cap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait.
    pub cap: Duration,
}

impl Backoff {
    /// From `first` to `cap`.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap }
    }

    /// The wait after failure number `attempt` (from 1). `chance`, in `0.0..1.0`, takes up to half
    /// of it away.
    pub fn delay(&self, attempt: u64, chance: f64) -> Duration {
        let doublings = u32::try_from(attempt.saturating_sub(1))
            .unwrap_or(u32::MAX)
            .min(30);
        let full = self.first.saturating_mul(1 << doublings).min(self.cap);
        full.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0)
    }

    /// [`Self::delay`] with a chance of its own: for the edges.
    pub fn jittered(&self, attempt: u64) -> Duration {
        self.delay(attempt, rand::random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

    #[test]
    fn waits_double_up_to_the_cap() {
        let waits: Vec<_> = (1..=6).map(|n| BACKOFF.delay(n, 0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(BACKOFF.delay(u64::MAX, 0.0), BACKOFF.cap);
    }

    #[test]
    fn chance_takes_at_most_half_away() {
        assert_eq!(BACKOFF.delay(1, 1.0), Duration::from_millis(50));
    }
}
