//! A gym's rules, and when a day begins there.

use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::words::words;

words! {
    /// How far a debt reaches.
    OverdueScope {
        /// It closes every membership its payer pays for, as far as the payer's own access goes.
        Member = "member",
        /// It closes the indebted membership alone.
        Membership = "membership",
    }
}

/// What a gym decides about debts and days.
#[derive(Clone, Debug, PartialEq)]
pub struct GymRules {
    pub time_zone: TimeZone,
    /// How long the oldest open invoice may be open before access closes.
    pub overdue_grace: SignedDuration,
    pub overdue_scope: OverdueScope,
}

impl GymRules {
    /// The product's defaults in `time_zone`: no grace, debts follow the payer.
    pub fn new(time_zone: TimeZone) -> Self {
        Self {
            time_zone,
            overdue_grace: SignedDuration::ZERO,
            overdue_scope: OverdueScope::Member,
        }
    }

    /// The first instant of `date` in the gym's zone. A skipped midnight is the first instant after
    /// the gap; a repeated one counts once, the earlier.
    pub fn begins(&self, date: Date) -> Timestamp {
        let midnight = date.to_datetime(jiff::civil::Time::midnight());
        let instant = self.time_zone.to_ambiguous_timestamp(midnight);
        let after_the_gap = match instant.offset() {
            // A gap need not begin at midnight: 23:30 may be followed by 00:30.
            AmbiguousOffset::Gap { after, .. } => {
                after.to_timestamp(midnight).ok().and_then(|before_it| {
                    let mut changes = self.time_zone.following(before_it);
                    changes.next().map(|change| change.timestamp())
                })
            }
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => None,
        };
        let at_the_edge_of_time = if date.year() > 0 {
            Timestamp::MAX
        } else {
            Timestamp::MIN
        };
        after_the_gap
            .or_else(|| instant.compatible().ok())
            .unwrap_or(at_the_edge_of_time)
    }

    /// The first instant after the last day `date`.
    pub fn after(&self, date: Date) -> Timestamp {
        date.tomorrow()
            .map_or(Timestamp::MAX, |day| self.begins(day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn rules(zone: &str) -> GymRules {
        GymRules::new(TimeZone::get(zone).expect("a zone"))
    }

    #[test]
    fn a_day_begins_at_its_first_instant_in_the_gyms_zone() {
        for (zone, day, instant) in [
            ("Europe/London", date(2026, 1, 5), "2026-01-05T00:00:00Z"),
            ("Europe/London", date(2026, 7, 1), "2026-06-30T23:00:00Z"),
            ("America/New_York", date(2026, 3, 8), "2026-03-08T05:00:00Z"),
            // Midnight is skipped: clocks go from 23:59:59 to 01:00.
            (
                "America/Asuncion",
                date(2022, 10, 2),
                "2022-10-02T04:00:00Z",
            ),
            // Half an hour around midnight is skipped: the day begins at 00:30.
            ("America/Toronto", date(1919, 3, 31), "1919-03-31T04:30:00Z"),
            // The whole day is skipped: it begins, and ends, where the next one begins.
            ("Pacific/Apia", date(2011, 12, 30), "2011-12-30T10:00:00Z"),
            ("Pacific/Apia", date(2011, 12, 31), "2011-12-30T10:00:00Z"),
            // Midnight is repeated: the earlier one counts.
            ("America/Havana", date(2026, 11, 1), "2026-11-01T04:00:00Z"),
        ] {
            let expected: Timestamp = instant.parse().expect("an instant");
            assert_eq!(rules(zone).begins(day), expected, "{zone} {day}");
        }
    }
}
