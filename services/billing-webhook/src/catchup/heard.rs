//! Which endpoints were heard by this replica, until it is written down for all of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use jiff::Timestamp;

use crate::endpoints::Endpoint;

/// Provider and id of an endpoint.
pub type Name = (String, String);

/// From the first post to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: Timestamp,
    pub last: Timestamp,
}

/// Genuine posts, whether or not anything in them was for us.
#[derive(Debug, Default)]
pub struct Heard(Mutex<BTreeMap<Name, Span>>);

impl Heard {
    /// A post came whose signature holds.
    pub fn note(&self, endpoint: &Endpoint, now: Timestamp) {
        let name = (endpoint.provider.clone(), endpoint.id.clone());
        let posted = Span {
            first: now,
            last: now,
        };
        let mut heard = self.lock();
        let span = heard.entry(name).or_insert(posted);
        span.first = span.first.min(now);
        span.last = span.last.max(now);
    }

    /// What was heard and is not written down.
    pub fn of(&self, name: &Name) -> Option<Span> {
        self.lock().get(name).copied()
    }

    /// `span` is written down. What came meanwhile is not.
    pub fn is_written(&self, name: &Name, span: Span) {
        let mut heard = self.lock();
        match heard.get_mut(name) {
            Some(now) if now.last > span.last => now.first = span.last,
            _ => drop(heard.remove(name)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Span>> {
        self.0.lock().unwrap_or_else(|held| held.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::Endpoints;

    #[test]
    fn what_comes_while_a_span_is_written_down_is_kept() {
        let file = "endpoints: [{ id: main, provider: stripe, account: acct_a, secrets: [s] }]";
        let endpoints = Endpoints::parse(file).expect("a file");
        let endpoint = endpoints.find("stripe", "main").expect("the endpoint");
        let at = |second| Timestamp::from_second(second).expect("an instant");
        let name: Name = ("stripe".into(), "main".into());
        let heard = Heard::default();
        assert_eq!(heard.of(&name), None);
        heard.note(endpoint, at(10));
        heard.note(endpoint, at(20));
        let span = heard.of(&name).expect("a span");
        assert_eq!((span.first, span.last), (at(10), at(20)));
        heard.note(endpoint, at(30));
        heard.is_written(&name, span);
        let left = heard.of(&name).expect("a span");
        assert_eq!((left.first, left.last), (at(20), at(30)));
        heard.is_written(&name, left);
        assert_eq!(heard.of(&name), None);
    }
}
