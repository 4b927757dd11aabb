//! How often an endpoint is usually heard, and when its silence is longer than that. Pure.
//!
//! A gym's provider speaks every minute, or only on the first of the month: what is usual is learnt
//! from the longest silences of the last 30 days that ended by a post. A silence that was told as
//! unusual teaches no more than it took to be told, else one long outage would excuse the next.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How far back silences count.
const DAYS_KEPT: usize = 30;
/// Before it has seen a weekend, an endpoint may be silent for a day and that is usual.
const YOUNG: SignedDuration = SignedDuration::from_hours(7 * 24);
const USUAL_WHEN_YOUNG: SignedDuration = SignedDuration::from_hours(24);

/// What is remembered of one endpoint's posts, by all replicas together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rhythm {
    /// When it was first looked at.
    since: Timestamp,
    last: Option<Timestamp>,
    /// Seconds of the longest silence that ended on each day.
    silences: BTreeMap<Date, i64>,
}

impl Rhythm {
    /// Of an endpoint that has not been heard yet.
    pub fn new(now: Timestamp) -> Self {
        Self {
            since: now,
            last: None,
            silences: BTreeMap::new(),
        }
    }

    /// Posts came from `first` to `last`, close enough together. A silence of up to `shortest` is
    /// no silence.
    pub fn hear(&mut self, first: Timestamp, last: Timestamp, shortest: Duration) {
        let silence = self.silence(first).min(self.bound(first, shortest));
        let day = TimeZone::UTC.to_datetime(first).date();
        let longest = self.silences.entry(day).or_default();
        *longest = silence.as_secs().max(*longest);
        while self.silences.len() > DAYS_KEPT {
            self.silences.pop_first();
        }
        self.last = self.last.max(Some(last));
    }

    /// How long it has been silent.
    pub fn silence(&self, now: Timestamp) -> SignedDuration {
        let heard = self.last.unwrap_or(self.since);
        now.duration_since(heard).max(SignedDuration::ZERO)
    }

    /// Whether that is longer than is usual for it.
    pub fn is_silent(&self, now: Timestamp, shortest: Duration) -> bool {
        self.silence(now) > self.bound(now, shortest)
    }

    /// Twice what is usual.
    fn bound(&self, now: Timestamp, shortest: Duration) -> SignedDuration {
        let longest = self.silences.values().max().copied().unwrap_or_default();
        let mut usual = SignedDuration::from_secs(longest);
        if now.duration_since(self.since) < YOUNG {
            usual = usual.max(USUAL_WHEN_YOUNG);
        }
        let shortest = SignedDuration::try_from(shortest).unwrap_or(SignedDuration::MAX);
        usual.saturating_mul(2).max(shortest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTEST: Duration = Duration::from_secs(3_600);

    fn at(hour: i64) -> Timestamp {
        let start: Timestamp = "2026-11-02T00:00:00Z".parse().expect("an instant");
        start + SignedDuration::from_hours(hour)
    }

    /// Heard every hour from 4 to 22 o'clock, for `days` days.
    fn daily(days: i64) -> Rhythm {
        let mut rhythm = Rhythm::new(at(0));
        for day in 0..days {
            for hour in 4..=22 {
                let heard = at(24 * day + hour);
                rhythm.hear(heard, heard, SHORTEST);
            }
        }
        rhythm
    }

    #[test]
    fn a_night_is_usual_and_a_day_without_a_post_is_not() {
        let rhythm = daily(10);
        let last = 24 * 9 + 22;
        for (hours, silent) in [(1, false), (6, false), (12, false), (13, true), (48, true)] {
            let now = at(last + hours);
            assert_eq!(rhythm.is_silent(now, SHORTEST), silent, "{hours} hours");
        }
    }

    #[test]
    fn a_young_endpoint_and_one_that_was_never_heard_have_two_days() {
        for rhythm in [Rhythm::new(at(0)), {
            let mut rhythm = Rhythm::new(at(0));
            rhythm.hear(at(0), at(0), SHORTEST);
            rhythm
        }] {
            assert!(!rhythm.is_silent(at(48), SHORTEST));
            assert!(rhythm.is_silent(at(49), SHORTEST));
        }
    }

    #[test]
    fn a_monthly_rhythm_is_learnt_step_by_step_and_one_outage_does_not_excuse_the_next() {
        let mut rhythm = daily(10);
        let last = 24 * 9 + 22;
        // Out for five days: told after 12 hours, and no more than that is learnt.
        let back = last + 120;
        rhythm.hear(at(back), at(back), SHORTEST);
        assert!(!rhythm.is_silent(at(back + 24), SHORTEST));
        assert!(rhythm.is_silent(at(back + 25), SHORTEST));
    }

    #[test]
    fn silences_are_forgotten_after_thirty_days_with_posts() {
        let mut rhythm = daily(10);
        let day_off = 24 * 11 + 20;
        rhythm.hear(at(day_off), at(day_off), SHORTEST);
        for hour in day_off..day_off + 24 * 40 {
            rhythm.hear(at(hour), at(hour), SHORTEST);
        }
        let last = day_off + 24 * 40 - 1;
        assert!(rhythm.is_silent(at(last + 3), SHORTEST));
    }

    #[test]
    fn what_another_replica_heard_later_stands() {
        let mut rhythm = Rhythm::new(at(0));
        rhythm.hear(at(5), at(6), SHORTEST);
        rhythm.hear(at(4), at(5), SHORTEST);
        assert_eq!(rhythm.silence(at(7)), SignedDuration::from_hours(1));
        assert_eq!(rhythm.silence(at(5)), SignedDuration::ZERO);
    }
}
