//! What may not happen at once, as values: a mass lock-out, and a mass let-in.
//!
//! Counted are distinct members of one gym who lose their last row for a group, in two classes:
//! *explained* losses each have a fact about that very member behind them (a payment, a date, an
//! act of staff); *unexplained* ones do not (drift, a changed association, an
//! imported roster, a gym's new rules, a short answer).

use crate::words::words;

words! {
    /// What stands behind a change.
    Class { Explained = "explained", Unexplained = "unexplained", Grants = "grants", }
}

words! {
    /// Which line was crossed.
    Line {
        UnexplainedHour = "unexplained_hour",
        UnexplainedDay = "unexplained_day",
        ExplainedHour = "explained_hour",
        Grants = "grants",
    }
}

/// The lines; settings of kisi-sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub unexplained_min: u64,
    pub unexplained_hour_percent: u64,
    pub unexplained_day_percent: u64,
    pub explained_min: u64,
    pub explained_hour_percent: u64,
    pub grants_min: u64,
    pub grants_percent: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unexplained_min: 10,
            unexplained_hour_percent: 5,
            unexplained_day_percent: 15,
            explained_min: 100,
            explained_hour_percent: 30,
            grants_min: 50,
            grants_percent: 25,
        }
    }
}

/// What a gym lost already, and what it has. A loss that a person approved is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The gym's grants before any of these losses.
    pub grants: u64,
    pub unexplained_hour: u64,
    pub unexplained_day: u64,
    pub explained_hour: u64,
}

/// Whether a change may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// A person has to look. Holds the whole change.
    Hold(Vec<Line>),
}

/// Looks at `more` further members who would lose (or gain) a group.
pub fn check(class: Class, more: u64, counts: &Counts, limits: &Limits) -> Verdict {
    let share = |percent: u64| counts.grants.saturating_mul(percent) / 100;
    let mut crossed = Vec::new();
    match class {
        Class::Unexplained => {
            let hour = limits
                .unexplained_min
                .max(share(limits.unexplained_hour_percent));
            if counts.unexplained_hour.saturating_add(more) > hour {
                crossed.push(Line::UnexplainedHour);
            }
            let day = limits
                .unexplained_min
                .max(share(limits.unexplained_day_percent));
            if counts.unexplained_day.saturating_add(more) > day {
                crossed.push(Line::UnexplainedDay);
            }
        }
        Class::Explained => {
            let hour = limits
                .explained_min
                .max(share(limits.explained_hour_percent));
            if counts.explained_hour.saturating_add(more) > hour {
                crossed.push(Line::ExplainedHour);
            }
        }
        Class::Grants => {
            if more > limits.grants_min.max(share(limits.grants_percent)) {
                crossed.push(Line::Grants);
            }
        }
    }
    // Nothing more is never too much: a gym that crossed a line is not held for what stays.
    if more == 0 || crossed.is_empty() {
        Verdict::Go
    } else {
        Verdict::Hold(crossed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_crossed_by_one_more_and_not_before() {
        let limits = Limits::default();
        let gym = Counts {
            grants: 1_000,
            ..Counts::default()
        };
        let cases = [
            (Class::Unexplained, 50, gym, Verdict::Go),
            (
                Class::Unexplained,
                51,
                gym,
                Verdict::Hold(vec![Line::UnexplainedHour]),
            ),
            (
                Class::Unexplained,
                1,
                Counts {
                    unexplained_day: 150,
                    ..gym
                },
                Verdict::Hold(vec![Line::UnexplainedDay]),
            ),
            (
                Class::Unexplained,
                10,
                Counts { grants: 20, ..gym },
                Verdict::Go,
            ),
            (
                Class::Unexplained,
                11,
                Counts { grants: 20, ..gym },
                Verdict::Hold(vec![Line::UnexplainedHour, Line::UnexplainedDay]),
            ),
            // A billing morning: 6 % of the charges fail.
            (Class::Explained, 60, gym, Verdict::Go),
            (Class::Explained, 300, gym, Verdict::Go),
            (
                Class::Explained,
                301,
                gym,
                Verdict::Hold(vec![Line::ExplainedHour]),
            ),
            (Class::Grants, 250, gym, Verdict::Go),
            (Class::Grants, 251, gym, Verdict::Hold(vec![Line::Grants])),
            (
                Class::Unexplained,
                0,
                Counts {
                    unexplained_hour: 99,
                    ..gym
                },
                Verdict::Go,
            ),
        ];
        for (class, more, counts, expected) in cases {
            assert_eq!(
                check(class, more, &counts, &limits),
                expected,
                "{class} {more} {counts:?}"
            );
        }
    }
}
