//! The days of a gym, found by stepping through them with a wall clock in view.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::story::{Day, Minute, Story};

/// When each day from `first` on begins.
pub struct Days {
    first: Day,
    begins: Vec<Minute>,
}

impl Days {
    /// Every day that a story may speak of.
    pub fn of(story: &Story) -> Self {
        let zone = TimeZone::get(&story.zone).expect("a zone");
        let first = story.first - 8;
        let mut now = Minute::from(first) * 1_440 - 30 * 60;
        let mut begins = Vec::new();
        for day in first..story.first + story.days + 45 {
            while on_the_wall(&zone, now) < day {
                now += 15;
            }
            // Not every zone is a multiple of a quarter of an hour away.
            while on_the_wall(&zone, now - 1) >= day {
                now -= 1;
            }
            begins.push(now);
        }
        Self { first, begins }
    }

    /// The first instant at which the calendar on the wall shows `day`, or a later one.
    pub fn begins(&self, day: Day) -> Minute {
        self.begins[usize::try_from(day - self.first).expect("a day of the story")]
    }

    pub fn all(&self) -> &[Minute] {
        &self.begins
    }
}

fn on_the_wall(zone: &TimeZone, now: Minute) -> Day {
    let instant = Timestamp::from_second(now * 60).expect("an instant");
    let date = zone.to_datetime(instant).date();
    let days = date.since(jiff::civil::date(1970, 1, 1)).expect("a span");
    days.get_days()
}
