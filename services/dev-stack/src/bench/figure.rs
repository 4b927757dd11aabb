//! A line of the report: a value, what it is held against, and whether that is good enough.

use serde::{Serialize, Serializer};

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// What the same takes, or reaches, bare, in the same unit and the same run.
    pub floor: Option<f64>,
    /// `value` by `floor`.
    pub ratio: Option<f64>,
    /// For the ratio, or the value without a floor; `null` where the line only informs.
    pub aim: Option<Aim>,
    /// True when the aim is met, and where there is none.
    pub ok: bool,
}

/// What is good enough. In JSON the number alone: of a time or a size it is the most, of a rate
/// the least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    /// A value that only informs.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value: round(value),
            unit,
            floor: None,
            ratio: None,
            aim: None,
            ok: true,
        }
        .judged(value)
    }

    /// Held against `floor`.
    #[must_use]
    pub fn over(mut self, floor: f64) -> Self {
        let ratio = self.value / floor;
        self.floor = Some(round(floor));
        self.ratio = Some(round(ratio));
        self.judged(ratio)
    }

    /// The ratio, or the value, may be this much.
    #[must_use]
    pub fn at_most(self, most: f64) -> Self {
        self.aimed(Aim::AtMost(most))
    }

    /// The ratio, or the value, must be this much.
    #[must_use]
    pub fn at_least(self, least: f64) -> Self {
        self.aimed(Aim::AtLeast(least))
    }

    fn aimed(mut self, aim: Aim) -> Self {
        self.aim = Some(aim);
        let judged = self.ratio.unwrap_or(self.value);
        self.judged(judged)
    }

    /// What is not a number meets no aim.
    fn judged(mut self, judged: f64) -> Self {
        self.ok = match self.aim {
            None => true,
            Some(Aim::AtMost(most)) => judged <= most,
            Some(Aim::AtLeast(least)) => judged >= least,
        };
        self
    }
}

impl Serialize for Aim {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (Self::AtMost(aim) | Self::AtLeast(aim)) = self;
        serializer.serialize_f64(*aim)
    }
}

/// The value below which `percent` of `values` are; sorts them.
pub fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(index).copied().unwrap_or(f64::NAN)
}

/// Hundredths are as fine as any of this is worth reading.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Prints them as a table.
pub fn print(figures: &[Figure]) {
    println!(
        "\n{:<44} {:>9} {:<10} {:>9} {:>6} {:>7}",
        "figure", "value", "", "floor", "ratio", "aim"
    );
    for figure in figures {
        let optional = |value: Option<f64>| value.map_or_else(|| "-".into(), |v| format!("{v:.2}"));
        let aim = match figure.aim {
            None => "-".into(),
            Some(Aim::AtMost(most)) => format!("<={most:.2}"),
            Some(Aim::AtLeast(least)) => format!(">={least:.2}"),
        };
        println!(
            "{:<44} {:>9.2} {:<10} {:>9} {:>6} {:>7} {}",
            figure.name,
            figure.value,
            figure.unit,
            optional(figure.floor),
            optional(figure.ratio),
            aim,
            if figure.ok { "" } else { "missed" },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_is_for_the_ratio_where_there_is_one_and_either_the_most_or_the_least() {
        let met = [
            Figure::new("a", 20.0, "MiB").at_most(20.0),
            Figure::new("b", 3.0, "ms").over(2.0).at_most(1.5),
            Figure::new("c", 8.0, "webhooks/s").over(10.0).at_least(0.8),
            Figure::new("d", 8.0, "webhooks/s").over(10.0),
        ];
        let missed = [
            Figure::new("a", 20.1, "MiB").at_most(20.0),
            Figure::new("b", 3.1, "ms").over(2.0).at_most(1.5),
            Figure::new("c", 7.9, "webhooks/s").over(10.0).at_least(0.8),
            Figure::new("d", 1.0, "ms").over(f64::NAN).at_most(1.5),
        ];
        assert!(met.iter().all(|figure| figure.ok), "{met:?}");
        assert!(missed.iter().all(|figure| !figure.ok), "{missed:?}");
    }

    #[test]
    fn every_line_of_the_report_has_every_field() {
        let line = Figure::new("a", 1.0, "webhooks/s").over(2.0).at_least(0.8);
        let line = serde_json::to_value(line).expect("JSON");
        assert_eq!(
            line,
            serde_json::json!({
                "name": "a", "value": 1.0, "unit": "webhooks/s",
                "floor": 2.0, "ratio": 0.5, "aim": 0.8, "ok": false,
            })
        );
        let line = serde_json::to_value(Figure::new("a", 1.0, "ms")).expect("JSON");
        for field in ["floor", "ratio", "aim"] {
            assert!(line[field].is_null() && line.get(field).is_some(), "{line}");
        }
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 50), 100.0);
        assert_eq!(percentile(&mut values, 99), 198.0);
        assert!(percentile(&mut [], 50).is_nan());
    }
}
