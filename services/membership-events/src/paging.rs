//! Pages of lists: a size within bounds, and a token that says where the last page ended.
//!
//! A token is the hexadecimal text of a position in the list's order, behind a digest of it and of
//! the list. It is no secret and gives nothing that a caller could not ask for; the digest is there
//! so that a token of another list, another gym or another filter is refused, as is one that was
//! cut or made by hand, instead of being answered with some page.

use contracts::membership::v1::UnmatchedBilling;
use contracts::wire;
use sha2::{Digest, Sha256};

use crate::fields::Fields;
use crate::store::billing::Parked;
use crate::store::micros;

/// Bytes of the digest in a token: enough against mistakes, and there is no more to guard.
const DIGEST: usize = 8;
/// Longer than any token.
const LONGEST: usize = 1_024;

/// What is listed: the RPC, the gym and the filters.
#[derive(Debug, Clone, Copy)]
pub struct List<'a>(pub &'a [&'a str]);

impl List<'_> {
    /// The token for a position.
    pub fn token(self, position: &str) -> String {
        hex::encode([&self.digest(position), position.as_bytes()].concat())
    }

    /// The position in a token of this list.
    fn position(self, token: &str) -> Option<String> {
        let bytes = hex::decode(token).ok().filter(|_| token.len() <= LONGEST)?;
        let (digest, position) = bytes.split_at_checked(DIGEST)?;
        let position = std::str::from_utf8(position).ok()?;
        (self.digest(position) == digest).then(|| position.to_owned())
    }

    fn digest(self, position: &str) -> [u8; DIGEST] {
        let mut hash = Sha256::new();
        for part in self.0.iter().chain([&position]) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut digest = [0; DIGEST];
        digest.copy_from_slice(&hash.finalize()[..DIGEST]);
        digest
    }
}

/// One page as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Items at most.
    pub size: usize,
    /// The position after which it begins.
    pub after: Option<String>,
}

impl Page {
    /// `page_size` 0 is `usual`; more than `at_most` is a fault, and so is a token that is not of
    /// this list.
    pub fn parse(
        fields: &mut Fields,
        list: List<'_>,
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
            let position = list.position(page_token);
            if position.is_none() {
                fields.fault("page_token", "a token of an earlier page is expected");
            }
            position.map(Some)
        };
        Some(Self {
            size: size?,
            after: after?,
        })
    }
}

/// The position of a parked event.
pub fn parked_position(last: &UnmatchedBilling) -> String {
    let at = last.parked_at.as_ref().and_then(wire::instant);
    let at = at.map_or(0, micros);
    let event = last.event.clone().unwrap_or_default();
    format!(
        "{at} {} {} {}",
        event.provider, event.account, event.event_id
    )
}

/// The parked event at such a position.
pub fn parked_at(position: &str) -> Option<Parked> {
    let mut parts = position.splitn(4, ' ');
    Some(Parked {
        at: parts.next()?.parse().ok()?,
        provider: parts.next()?.to_owned(),
        account: parts.next()?.to_owned(),
        event_id: parts.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_token_and_no_other_list_reads_it() {
        let list = List(&["ListMembers", "iron", "", ""]);
        for text in ["m_1", "1765 stripe acct_1 evt_1", ""] {
            let token = list.token(text);
            assert_eq!(list.position(&token).as_deref(), Some(text));
            for other in [
                List(&["ListMembers", "iron", "", "x"]),
                List(&["ListMembers", "iron", ""]),
                List(&["ListMembers", "iro", "n", ""]),
            ] {
                assert_eq!(other.position(&token), None, "{other:?}");
            }
            for bad in [&token[1..], &token[2..], &token[..token.len() - 2]] {
                assert_eq!(list.position(bad), None, "{bad}");
            }
        }
        for bad in ["x", "zz", "abc", "é0", "6d5f31"] {
            assert_eq!(list.position(bad), None, "{bad}");
        }
    }
}
