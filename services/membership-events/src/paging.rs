//! Pages of lists: a size within bounds, and a token that says where the last page ended.
//!
//! A token is the hexadecimal text of a position in the list's order. It is no secret and gives
//! nothing that a caller could not ask for; it is coded so that nobody builds one by hand.

use contracts::membership::v1::UnmatchedBilling;
use contracts::wire;

use crate::fields::Fields;
use crate::store::micros;

/// One page as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Items at most.
    pub size: usize,
    /// The position after which it begins.
    pub after: Option<String>,
}

impl Page {
    /// `page_size` 0 is `usual`; more than `at_most` is a fault, and so is an unreadable token.
    pub fn parse(
        fields: &mut Fields,
        page_size: i32,
        page_token: &str,
        usual: usize,
        at_most: usize,
    ) -> Option<Self> {
        let size = match usize::try_from(page_size) {
            Ok(0) => Some(usual),
            Ok(size) if size <= at_most => Some(size),
            _ => {
                fields.fault("page_size", format!("0 to {at_most} is expected"));
                None
            }
        };
        let after = if page_token.is_empty() {
            Some(None)
        } else {
            let position = position(page_token);
            if position.is_none() {
                fields.fault("page_token", "a token of an earlier answer is expected");
            }
            position.map(Some)
        };
        Some(Self {
            size: size?,
            after: after?,
        })
    }
}

/// The token for a position.
pub fn token(position: &str) -> String {
    position.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn position(token: &str) -> Option<String> {
    if token.len() > 512 || !token.len().is_multiple_of(2) || !token.is_ascii() {
        return None;
    }
    let bytes = (0..token.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(token.get(i..i + 2)?, 16).ok())
        .collect::<Option<Vec<_>>>()?;
    String::from_utf8(bytes).ok()
}

/// The token after a parked event.
pub fn parked_token(last: &UnmatchedBilling) -> String {
    let at = last.parked_at.as_ref().and_then(wire::instant);
    let at = at.map_or(0, micros);
    let id = last.event.as_ref().map_or("", |event| &event.event_id);
    token(&format!("{at} {id}"))
}

/// The position in such a token.
pub fn parked_position(position: &str) -> Option<(i64, String)> {
    let (at, id) = position.split_once(' ')?;
    Some((at.parse().ok()?, id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_token() {
        for text in ["m_1", "1765 evt_1", ""] {
            assert_eq!(position(&token(text)).as_deref(), Some(text));
        }
        for bad in ["x", "zz", "abc", "é0"] {
            assert_eq!(position(bad), None, "{bad}");
        }
    }
}
