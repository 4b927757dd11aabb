//! What a call comes to, as a value.

use std::collections::BTreeSet;

use access_domain::ids::MemberId;
use contracts::billing::v1::BillingEvent;

use super::Outcome;
use crate::store::bulk::{NewReference, Person};
use crate::store::entity::memberships;

/// What a call comes to.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing: it is older than what is held.
    Stale(Outcome),
    /// This is to be written.
    Change(Box<Change>),
}

/// What is to be written for a call. One that says what is held already has nothing but those
/// concerned.
#[derive(Debug)]
pub(crate) struct Change {
    /// The answer, without the versions of those concerned.
    pub outcome: Outcome,
    /// Who is decided about.
    pub concerned: BTreeSet<MemberId>,
    /// A person to create or replace.
    pub person: Option<Person>,
    /// A person's overrides (JSON).
    pub overrides: Option<(MemberId, String)>,
    /// A membership's whole row.
    pub membership: Option<memberships::Model>,
    /// The membership has no row yet.
    pub is_new: bool,
    /// Its holders and payer, where these change.
    pub people: Option<BTreeSet<MemberId>>,
    /// Who paid for it until now, where another does from now on.
    pub former_payer: Option<MemberId>,
    /// Its billing references, where these change.
    pub references: Option<Vec<NewReference>>,
    /// A fact of staff about the membership.
    pub fact: Option<BillingEvent>,
}

impl Change {
    /// Nothing yet.
    pub fn about(concerned: BTreeSet<MemberId>, outcome: Outcome) -> Self {
        Self {
            outcome,
            concerned,
            person: None,
            overrides: None,
            membership: None,
            is_new: false,
            people: None,
            former_payer: None,
            references: None,
            fact: None,
        }
    }
}

impl From<Change> for Verdict {
    fn from(change: Change) -> Self {
        Self::Change(Box::new(change))
    }
}
