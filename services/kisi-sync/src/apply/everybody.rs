//! Who is at Kisi, all at once: for a pass that is about to look for many people, since a page tells
//! of a hundred of them and a search of one.
//!
//! Held in memory alone, and only as long as the pass lasts. It saves a search and no more: who is
//! made although somebody else made the same user meanwhile is answered 409, and then searched for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use kisi_client::model::User;
use kisi_client::{HttpKisi, KisiError, KisiRead, Lane, Listing};

/// Users on a page.
const PAGE: u64 = 100;

/// One gym's.
#[derive(Debug, Default)]
pub struct Everybody(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By e-mail in lower case. None is whoever has to be asked for after all.
    by_email: HashMap<String, Option<User>>,
    /// Whoever is not in it was not there when it was read.
    is_whole: bool,
}

/// What is known of an e-mail.
#[derive(Debug, PartialEq)]
pub enum Recalled {
    There(Box<User>),
    NotThere,
    /// Only a search tells.
    Unknown,
}

/// Forgets when the pass is over.
#[derive(Debug)]
pub struct Forgets<'a>(&'a Everybody);

impl Drop for Forgets<'_> {
    fn drop(&mut self) {
        *self.0.lock() = Known::default();
    }
}

impl Everybody {
    /// Until this is dropped, what is learned is known.
    pub fn until_dropped(&self) -> Forgets<'_> {
        Forgets(self)
    }

    /// Reads all users if that takes fewer requests than `searches`, of at least `at_least` users that
    /// are there for sure; answers the requests it took.
    pub async fn learn(
        &self,
        kisi: &HttpKisi,
        searches: u64,
        at_least: u64,
    ) -> Result<u64, KisiError> {
        if searches <= pages(at_least) {
            return Ok(0);
        }
        let at_most = (searches - 1) * PAGE;
        let Some(listing) = kisi.list_all_users(Lane::Reconcile, at_most).await? else {
            return Ok(1);
        };
        let requests = pages(listing.total);
        *self.lock() = Known::of(listing);
        Ok(requests)
    }

    /// What was read of this e-mail; whoever asks again is told to search.
    pub fn recall(&self, email: &str) -> Recalled {
        let mut known = self.lock();
        let is_whole = known.is_whole;
        match known.by_email.entry(key(email)) {
            Entry::Occupied(mut user) => match user.get_mut().take() {
                Some(user) => Recalled::There(Box::new(user)),
                None => Recalled::Unknown,
            },
            Entry::Vacant(nobody) if is_whole => {
                nobody.insert(None);
                Recalled::NotThere
            }
            Entry::Vacant(_) => Recalled::Unknown,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn of(listing: Listing<User>) -> Self {
        let mut by_email: HashMap<String, Option<User>> = HashMap::new();
        for user in listing.items {
            by_email
                .entry(key(&user.email))
                // Two of one e-mail: which is it?
                .and_modify(|known| *known = None)
                .or_insert(Some(user));
        }
        Self {
            by_email,
            is_whole: listing.complete,
        }
    }
}

fn key(email: &str) -> String {
    email.trim().to_lowercase()
}

/// An empty list takes a request as well.
fn pages(users: u64) -> u64 {
    users.div_ceil(PAGE).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everybody(emails: &[&str], complete: bool) -> Everybody {
        let user = |(id, email): (usize, &&str)| -> User {
            serde_json::from_value(serde_json::json!({ "id": id, "email": email })).unwrap()
        };
        let items: Vec<User> = emails.iter().enumerate().map(user).collect();
        Everybody(Mutex::new(Known::of(Listing {
            total: items.len() as u64,
            items,
            complete,
            duplicates: 0,
            total_moved: 0,
        })))
    }

    #[test]
    fn who_was_read_is_recalled_once_and_searched_for_after_that() {
        let known = everybody(&["Ada@example.com", "bo@example.com"], true);
        let Recalled::There(ada) = known.recall("ada@example.com") else {
            panic!("Ada was read");
        };
        assert_eq!(ada.id, 0);
        assert_eq!(known.recall("ada@example.com"), Recalled::Unknown);
        assert_eq!(known.recall("cy@example.com"), Recalled::NotThere);
        assert_eq!(known.recall("cy@example.com"), Recalled::Unknown);
        drop(Forgets(&known));
        assert_eq!(known.recall("bo@example.com"), Recalled::Unknown);
    }

    #[test]
    fn a_list_that_is_not_whole_says_nothing_of_who_is_not_in_it() {
        let known = everybody(
            &["ada@example.com", "bo@example.com", "BO@example.com"],
            false,
        );
        assert_eq!(known.recall("cy@example.com"), Recalled::Unknown);
        assert_eq!(known.recall("bo@example.com"), Recalled::Unknown);
        assert!(matches!(
            known.recall("ada@example.com"),
            Recalled::There(_)
        ));
    }
}
