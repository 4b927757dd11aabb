//! The rate limiter: which request of a Kisi user is one too many.
//!
//! Pure over the time it is given, in microseconds of the simulator's clock, so that each model
//! can be tried without waiting. What is deliberately not here: the answer to a refused request,
//! which is a setting of its own, and any knowledge of HTTP.

use std::collections::{HashMap, VecDeque};

use crate::settings::LimiterModel;

const SECOND: i64 = 1_000_000;

/// Who shares a budget.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Budget {
    /// All logins of one Kisi user together.
    User(i64),
    /// Requests without a valid credential, per address.
    Address(String),
    /// `POST /event_sets` of one user, which has a limit of its own besides.
    EventSets(i64),
}

#[derive(Clone, Debug, Default)]
struct Used {
    second: i64,
    in_second: u32,
    log: VecDeque<i64>,
    /// Millionths of a token, and when they were counted. `None` before the first request.
    bucket: Option<(i64, i64)>,
}

/// Counters of all budgets.
#[derive(Clone, Debug, Default)]
pub struct Limiter {
    used: HashMap<Budget, Used>,
}

impl Limiter {
    /// Forgets all that was counted, as after a change of model.
    pub fn reset(&mut self) {
        self.used.clear();
    }

    /// Counts a request at `now` microseconds and tells whether it may pass. A clock that was set
    /// back forgets what lies in its future.
    pub fn admit(&mut self, model: LimiterModel, rate: u32, budget: Budget, now: i64) -> bool {
        if model == LimiterModel::Off || rate == 0 {
            return true;
        }
        let used = self.used.entry(budget).or_default();
        match model {
            LimiterModel::Off => true,
            LimiterModel::FixedWindow => {
                let second = now.div_euclid(SECOND);
                if used.second != second {
                    used.second = second;
                    used.in_second = 0;
                }
                used.in_second = used.in_second.saturating_add(1);
                used.in_second <= rate
            }
            LimiterModel::SlidingWindow | LimiterModel::SlidingWindowCountingRefused => {
                used.log.retain(|at| (0..SECOND).contains(&(now - at)));
                let passes = used.log.len() < rate as usize;
                if passes || model == LimiterModel::SlidingWindowCountingRefused {
                    used.log.push_back(now);
                }
                passes
            }
            LimiterModel::TokenBucket => used.take_token(now, i64::from(rate), rate),
            LimiterModel::TokenBucket1 => used.take_token(now, 1, rate),
        }
    }
}

impl Used {
    fn take_token(&mut self, now: i64, capacity: i64, rate: u32) -> bool {
        let full = capacity * SECOND;
        let (tokens, at) = self.bucket.unwrap_or((full, now));
        let elapsed = (now - at).clamp(0, 3600 * SECOND);
        let tokens = (tokens + elapsed * i64::from(rate)).min(full);
        let passes = tokens >= SECOND;
        self.bucket = Some((if passes { tokens - SECOND } else { tokens }, now));
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(model: LimiterModel, at_ms: &[i64]) -> Vec<bool> {
        let mut limiter = Limiter::default();
        at_ms
            .iter()
            .map(|ms| limiter.admit(model, 5, Budget::User(1), ms * 1000))
            .collect()
    }

    #[test]
    fn fixed_window_lets_ten_pass_around_the_edge_and_refuses_the_sixth_in_a_second() {
        let around: Vec<i64> = (0..5)
            .map(|n| 995 + n)
            .chain((0..5).map(|n| 1000 + n))
            .collect();
        assert!(
            passed(LimiterModel::FixedWindow, &around)
                .iter()
                .all(|passed| *passed)
        );
        assert_eq!(
            passed(LimiterModel::FixedWindow, &[0, 1, 2, 3, 4, 5]).last(),
            Some(&false)
        );
    }

    #[test]
    fn sliding_window_refuses_the_sixth_in_any_thousand_milliseconds() {
        let at = [995, 996, 997, 998, 999, 1000, 1994, 1995];
        let expected = [true, true, true, true, true, false, false, true];
        assert_eq!(passed(LimiterModel::SlidingWindow, &at), expected);
    }

    #[test]
    fn counting_refused_requests_keeps_a_hammering_client_out() {
        let hammer: Vec<i64> = (0..40).map(|n| n * 100).collect();
        let passes = |model| {
            passed(model, &hammer)
                .iter()
                .filter(|passed| **passed)
                .count()
        };
        assert_eq!(passes(LimiterModel::SlidingWindowCountingRefused), 5);
        assert_eq!(passes(LimiterModel::SlidingWindow), 20);
    }

    #[test]
    fn token_bucket_allows_one_burst_and_capacity_one_allows_none() {
        let at = [0, 0, 0, 0, 0, 0, 199, 200];
        let expected = [true, true, true, true, true, false, false, true];
        assert_eq!(passed(LimiterModel::TokenBucket, &at), expected);
        let expected = [true, false, false, false, false, false, false, true];
        assert_eq!(passed(LimiterModel::TokenBucket1, &at), expected);
    }

    #[test]
    fn budgets_are_apart() {
        let mut limiter = Limiter::default();
        for _ in 0..5 {
            assert!(limiter.admit(LimiterModel::SlidingWindow, 5, Budget::User(1), 0));
        }
        assert!(!limiter.admit(LimiterModel::SlidingWindow, 5, Budget::User(1), 0));
        assert!(limiter.admit(LimiterModel::SlidingWindow, 5, Budget::User(2), 0));
    }

    #[test]
    fn a_paced_client_with_fifty_milliseconds_of_jitter_passes_every_model_with_a_burst() {
        let jitter = [0, 50, 3, 47, 21, 0, 50, 12, 33, 0];
        let at: Vec<i64> = (0..200)
            .map(|n| n * 210 + jitter[n as usize % 10])
            .collect();
        for model in [
            LimiterModel::FixedWindow,
            LimiterModel::SlidingWindow,
            LimiterModel::SlidingWindowCountingRefused,
            LimiterModel::TokenBucket,
        ] {
            assert!(passed(model, &at).iter().all(|passed| *passed), "{model:?}");
        }
        let even: Vec<i64> = (0..200).map(|n| n * 210).collect();
        assert!(
            passed(LimiterModel::TokenBucket1, &even)
                .iter()
                .all(|passed| *passed)
        );
    }
}
