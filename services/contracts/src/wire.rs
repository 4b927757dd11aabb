//! Between wire and domain: instants and dates, parsed once at the edge.

use jiff::{SignedDuration, Timestamp, civil::Date};

/// A protobuf instant, exact to the nanosecond.
pub fn timestamp(at: Timestamp) -> pbjson_types::Timestamp {
    pbjson_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

/// The domain's instant; `None` when it lies outside years -9999 to 9999.
pub fn instant(at: &pbjson_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(at.seconds, at.nanos).ok()
}

/// A protobuf span.
pub fn duration(span: SignedDuration) -> pbjson_types::Duration {
    pbjson_types::Duration {
        seconds: span.as_secs(),
        nanos: span.subsec_nanos(),
    }
}

/// The domain's span; `None` when seconds and nanos have different signs.
pub fn span(duration: &pbjson_types::Duration) -> Option<SignedDuration> {
    let opposite = (duration.seconds > 0 && duration.nanos < 0)
        || (duration.seconds < 0 && duration.nanos > 0);
    if opposite || duration.nanos.abs() >= 1_000_000_000 {
        return None;
    }
    Some(SignedDuration::new(duration.seconds, duration.nanos))
}

/// An ISO 8601 calendar date, `2026-03-01`; `None` for anything else, times included.
pub fn date(text: &str) -> Option<Date> {
    if text.len() != 10 {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_survive_the_way_there_and_back() {
        for text in ["1969-12-31T23:59:59.5Z", "2026-10-01T05:00:07.000000001Z"] {
            let at: Timestamp = text.parse().expect("an instant");
            assert_eq!(instant(&timestamp(at)), Some(at), "{text}");
        }
    }

    #[test]
    fn dates_are_whole_iso_dates_and_nothing_else() {
        assert!(date("2026-02-28").is_some());
        for text in [
            "2026-02-30",
            "2026-2-3",
            "2026-02-28T00:00:00",
            "",
            "28/02/2026",
        ] {
            assert!(date(text).is_none(), "{text}");
        }
    }
}
