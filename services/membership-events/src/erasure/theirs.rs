//! What providers have said of a person.
//!
//! That is what is linked to a membership the person pays for, what was said of one while the
//! person paid for it, and what waits for its membership and names the person by an id that is
//! known to be theirs.

use std::collections::{BTreeSet, HashSet};

use access_domain::ids::{GymId, MemberId, MembershipId};
use sea_orm::ConnectionTrait;

use crate::error::Error;
use crate::rows;
use crate::store::billing::Keys;
use crate::store::entity::{billing_events, former_payers};
use crate::store::{self, StoreError};

/// What providers have said of a person.
#[derive(Debug, Default)]
pub(super) struct Theirs {
    /// The events that are held.
    pub facts: Vec<billing_events::Model>,
    /// The ids by which a provider knows the person, or what the person owes.
    names: HashSet<Name>,
}

/// As (provider, kind, id).
type Name = (String, &'static str, String);

impl Theirs {
    /// Whether an event with these ids speaks of the person.
    pub fn are_named(&self, keys: &Keys<'_>) -> bool {
        named(keys).any(|(kind, id)| {
            self.names
                .contains(&(keys.provider.to_owned(), kind, id.to_owned()))
        })
    }

    fn add(&mut self, fact: billing_events::Model, is_anothers: impl Fn(&Name) -> bool) {
        let keys = Keys::of_row(&fact);
        let names = named(&keys).map(|(kind, id)| (keys.provider.to_owned(), kind, id.to_owned()));
        self.names.extend(names.filter(|name| !is_anothers(name)));
        self.facts.push(fact);
    }
}

/// The ids by which a provider knows a person, or what the person owes.
fn named<'a>(keys: &Keys<'a>) -> impl Iterator<Item = (&'static str, &'a str)> {
    [
        ("invoice", keys.invoice),
        ("payment", keys.payment),
        ("subscription", keys.subscription),
        ("customer", keys.customer),
        ("mandate", keys.mandate),
    ]
    .into_iter()
    .filter_map(|(kind, id)| Some((kind, id?)))
}

fn kind_of(word: &str) -> Option<&'static str> {
    let kinds = ["invoice", "payment", "subscription", "customer", "mandate"];
    kinds.into_iter().find(|kind| *kind == word)
}

/// Reads it. The person's row must be locked.
pub(super) async fn find(
    db: &impl ConnectionTrait,
    gym: &GymId,
    member: &MemberId,
) -> Result<Theirs, Error> {
    let one = BTreeSet::from([member.clone()]);
    let mut paid_for: BTreeSet<MembershipId> = BTreeSet::new();
    for row in store::memberships::list_of_people(db, gym, &one).await? {
        // What the provider says is said of the one who pays.
        if rows::payer(&row)?.as_ref() == Some(member) {
            paid_for.insert(row.membership_id.0);
        }
    }
    let mut theirs = Theirs::default();
    for fact in store::billing::list_of_memberships(db, gym, &paid_for).await? {
        theirs.add(fact, |_| false);
    }
    let mut accounts: BTreeSet<(String, String)> = store::gyms::list_accounts(db, gym)
        .await?
        .into_iter()
        .collect();
    if !paid_for.is_empty() {
        for row in store::former_payers::list_references(db, gym, &paid_for).await? {
            accounts.insert((row.provider.clone(), row.account));
            if let Some(kind) = kind_of(&row.kind) {
                theirs.names.insert((row.provider, kind, row.reference));
            }
        }
    }
    let paid = store::former_payers::list(db, gym, member).await?;
    accounts.extend(
        paid.iter()
            .map(|row| (row.provider.clone(), row.account.clone())),
    );
    add_what_was_paid_for(db, gym, paid, &paid_for, &mut theirs).await?;
    for (provider, account) in accounts {
        for row in store::billing::list_parked_of_account(db, &provider, &account).await? {
            let names_theirs = row
                .named_membership
                .as_ref()
                .is_some_and(|named| paid_for.iter().any(|id| id.as_str() == named));
            if names_theirs || theirs.are_named(&Keys::of_row(&row)) {
                theirs.facts.push(row);
            }
        }
    }
    Ok(theirs)
}

/// What was said while the person paid, and what came later and speaks of the same.
async fn add_what_was_paid_for(
    db: &impl ConnectionTrait,
    gym: &GymId,
    paid: Vec<former_payers::Model>,
    paid_for: &BTreeSet<MembershipId>,
    theirs: &mut Theirs,
) -> Result<(), StoreError> {
    let memberships: BTreeSet<MembershipId> =
        paid.iter().map(|row| row.membership_id.0.clone()).collect();
    if memberships.is_empty() {
        return Ok(());
    }
    // What is another's to pay now is said of that one.
    let anothers: HashSet<Name> = store::former_payers::list_references(db, gym, &memberships)
        .await?
        .into_iter()
        .filter(|row| row.is_current && !paid_for.contains(&row.membership_id.0))
        .filter_map(|row| Some((row.provider, kind_of(&row.kind)?, row.reference)))
        .collect();
    let mut events: HashSet<(String, String, String)> = HashSet::new();
    for row in paid {
        if row.kind == "event" {
            events.insert((row.provider, row.account, row.reference));
        } else if let Some(kind) = kind_of(&row.kind) {
            let name = (row.provider, kind, row.reference);
            if !anothers.contains(&name) {
                theirs.names.insert(name);
            }
        }
    }
    let known: HashSet<_> = theirs.facts.iter().map(key_of).collect();
    let mut linked = store::billing::list_of_memberships(db, gym, &memberships).await?;
    linked.retain(|row| !known.contains(&key_of(row)));
    let (said, later): (Vec<_>, Vec<_>) = linked
        .into_iter()
        .partition(|row| events.contains(&key_of(row)));
    for fact in said {
        theirs.add(fact, |name| anothers.contains(name));
    }
    for fact in later {
        if theirs.are_named(&Keys::of_row(&fact)) {
            theirs.facts.push(fact);
        }
    }
    Ok(())
}

fn key_of(row: &billing_events::Model) -> (String, String, String) {
    (
        row.provider.clone(),
        row.account.clone(),
        row.event_id.clone(),
    )
}
