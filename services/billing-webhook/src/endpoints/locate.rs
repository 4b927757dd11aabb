//! Where in the text a value stands, and an error's words without the values.
//!
//! serde forgets the lines of what it read well, and tells the line of what it refuses. So a value
//! is found by reading the text once more and refusing exactly that value.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The line of `endpoints[index].field`; of the entry, where it has no such field.
pub fn line_of(text: &str, index: usize, field: &str) -> Option<usize> {
    let to_field = [Step::Key("endpoints"), Step::Index(index), Step::Key(field)];
    find(text, &to_field).or_else(|| find(text, &to_field[..2]))
}

fn find(text: &str, path: &[Step<'_>]) -> Option<usize> {
    let refused = Walk(path)
        .deserialize(serde_yaml_ng::Deserializer::from_str(text))
        .err()?;
    refused.location().map(|place| place.line())
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Walks along the path and refuses what stands at its end.
#[derive(Clone, Copy)]
struct Walk<'a>(&'a [Step<'a>]);

impl Walk<'_> {
    fn scalar<E: Error>(self) -> Result<(), E> {
        match self.0 {
            [] => Err(E::custom("here")),
            _ => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else {
            return self.scalar();
        };
        while let Some(key) = map.next_key::<String>()? {
            if matches!(step, Step::Key(wanted) if *wanted == key) {
                map.next_value_seed(Walk(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), rest)) = self.0.split_first() else {
            return self.scalar();
        };
        for _ in 0..*wanted {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        seq.next_element_seed(Walk(rest))?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.scalar()
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.scalar()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.scalar()
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.scalar()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }
}

/// What YAML's reader says, as `line N: …`, with the field first where it is known and without the
/// value: it may be a secret in the wrong place.
pub fn explain(error: &serde_yaml_ng::Error) -> String {
    let mut said = without_values(&error.to_string());
    if let Some(at) = said.rfind(" at line ") {
        said.truncate(at);
    }
    // `endpoints[0].livemode: invalid type: …`
    if let Some((path, rest)) = said.split_once(": ")
        && path.starts_with("endpoints")
    {
        let field = path.rsplit_once('.').map(|(_, field)| field);
        said = match field {
            Some(field) => {
                let field = field.split('[').next().unwrap_or(field);
                format!("`{field}` {rest}")
            }
            None => rest.to_owned(),
        };
    }
    match error.location() {
        Some(place) => format!("line {}: {said}", place.line()),
        None => said,
    }
}

/// Drops what stands in quotes, unless it is a word such as fields have.
fn without_values(said: &str) -> String {
    let mut kept = String::with_capacity(said.len());
    let mut rest = said;
    while let Some(start) = rest.find(['"', '`']) {
        let quote = if rest[start..].starts_with('"') {
            '"'
        } else {
            '`'
        };
        kept.push_str(&rest[..start]);
        let inside = &rest[start + 1..];
        let end = match kept.ends_with("unknown field ") || kept.ends_with("unknown variant ") {
            true => end_of_unknown(inside),
            false => end_of_quote(inside, quote),
        };
        let quoted = &inside[..end];
        let is_field = quote == '`'
            && quoted.len() <= 32
            && quoted
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            && !quoted.starts_with("whsec_");
        if is_field {
            kept.push_str(&format!("`{quoted}`"));
        } else {
            kept.push('…');
        }
        rest = inside.get(end + 1..).unwrap_or_default();
    }
    kept.push_str(rest);
    kept
}

/// Where an unknown word ends. It stands there as it was written, with backticks of its own; what
/// is known instead follows.
fn end_of_unknown(inside: &str) -> usize {
    let ends = ["`, expected ", "`, there are no "].map(|end| inside.rfind(end));
    ends.into_iter().flatten().max().unwrap_or(inside.len())
}

/// Where the quote closes; a backslash takes the next character with it.
fn end_of_quote(inside: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in inside.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            _ if character == quote => return at,
            _ => {}
        }
    }
    inside.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_in_every_style_of_yaml() {
        let text = "\
# who may post
endpoints:
  - id: main
    provider: stripe   # live

    secrets:
      - whsec_a
  -
    provider: standard
    id: desk
  - { id: other,
      provider: stripe }
";
        for (index, field, line) in [
            (0, "id", 3),
            (0, "provider", 4),
            (0, "secrets", 7),
            (1, "provider", 9),
            (1, "id", 10),
            (2, "provider", 12),
            (0, "missing", 3),
            (2, "missing", 11),
        ] {
            assert_eq!(line_of(text, index, field), Some(line), "{index} {field}");
        }
        assert_eq!(line_of(text, 3, "id"), None);
    }

    #[test]
    fn values_are_dropped_and_fields_are_kept() {
        for (said, kept) in [
            (
                r#"invalid type: string "whsec_\"x", expected a boolean"#,
                "invalid type: string …, expected a boolean",
            ),
            (
                "unknown field `live_mode`, expected `id` or `account`",
                "unknown field `live_mode`, expected `id` or `account`",
            ),
            (
                "unknown field `whsec_abc`, expected `id`",
                "unknown field …, expected `id`",
            ),
            (
                "unknown variant `a`Sh0wn`, expected `b`, expected `id` or `account`",
                "unknown variant …, expected `id` or `account`",
            ),
            ("unknown field `a`Sh0wn", "unknown field …"),
            (
                "invalid type: integer `42`, expected",
                "invalid type: integer …, expected",
            ),
            ("no end: \"abc", "no end: …"),
        ] {
            assert_eq!(without_values(said), kept);
        }
    }
}
