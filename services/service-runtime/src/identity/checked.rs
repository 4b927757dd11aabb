//! Tokens whose signature, issuer and audience were checked. A service calls with one token for as
//! long as it holds, and to check a signature costs more than most of what a call does.
//!
//! A token is known by all of its bytes: what differs in any of them, in the signature alone too, is
//! another one. Only good ones are here, so nobody can fill it without keys, and only what a token
//! says: its times are looked at with each call. It belongs to the keys it was checked with.

use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard};

use hashlink::LruCache;
use serde::Deserialize;

/// So many are held at most, which is about a megabyte.
const MOST: usize = 1_024;

/// What a token says.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) role: String,
    pub(super) sub: String,
    pub(super) exp: i64,
    #[serde(default)]
    pub(super) nbf: Option<i64>,
    #[serde(default)]
    pub(super) gym: Option<String>,
    #[serde(default)]
    pub(super) scope: Option<String>,
}

type Known = LruCache<Box<str>, Arc<Claims>, RandomState>;

/// The tokens last used.
pub(super) struct Checked(Mutex<Known>);

impl Default for Checked {
    fn default() -> Self {
        let known = LruCache::with_hasher(MOST, RandomState::new());
        Self(Mutex::new(known))
    }
}

impl Checked {
    /// What a token says that was checked.
    pub(super) fn find(&self, token: &str) -> Option<Arc<Claims>> {
        self.lock().get(token).cloned()
    }

    /// Keeps what a token says. It must have been checked with the keys this belongs to.
    pub(super) fn remember(&self, token: &str, claims: Arc<Claims>) {
        self.lock().insert(token.into(), claims);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(|held| held.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(sub: &str) -> Arc<Claims> {
        Arc::new(Claims {
            role: "service".to_owned(),
            sub: sub.to_owned(),
            exp: 0,
            nbf: None,
            gym: None,
            scope: None,
        })
    }

    #[test]
    fn the_least_used_go_first() {
        let checked = Checked::default();
        checked.remember("used", claims("used"));
        for n in 0..MOST {
            checked.remember(&format!("t_{n}"), claims("other"));
            assert!(checked.find("used").is_some(), "after {n} others");
        }
        assert_eq!(checked.lock().len(), MOST);
        assert!(checked.find("t_0").is_none());
        assert!(checked.find(&format!("t_{}", MOST - 1)).is_some());
    }

    #[test]
    fn a_token_is_all_of_its_bytes() {
        let checked = Checked::default();
        checked.remember("header.claims.signature", claims("a"));
        for other in [
            "header.claims.signaturf",
            "header.claims.signatur",
            "header.claims.",
            "header.claims.signature ",
        ] {
            assert!(checked.find(other).is_none(), "{other}");
        }
        let found = checked.find("header.claims.signature");
        assert!(found.is_some_and(|claims| claims.sub == "a"));
    }
}
