//! People: e-mail and name, for whoever has to know them.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::ids::{GymId, MemberId};

use super::{Change, Facts, Outcome, Verdict};
use crate::error::Error;
use crate::requests::PutMember;
use crate::store::bulk::Person;

/// A first write has no row to lock yet.
pub(crate) fn member_lock(gym: &GymId, member: &MemberId) -> String {
    format!("member/{gym}/{member}")
}

/// Creates or replaces a person, about whom nothing is decided by that.
pub(super) fn weigh(put: &PutMember, facts: &Facts) -> Result<Verdict, Error> {
    let held = facts.find_person(&put.member);
    if let Some(held) = held {
        if held.source_version > put.source_version {
            return Ok(Verdict::Stale(Outcome::stale(held.source_version)));
        }
        if held.erased {
            return Err(Error::Refused(
                "the member was erased; a person who comes back gets a new id".to_owned(),
            ));
        }
    }
    let version = held.map(|held| held.version).filter(|version| *version > 0);
    let members: BTreeMap<MemberId, i64> = version
        .map(|version| (put.member.clone(), version))
        .into_iter()
        .collect();
    let outcome = Outcome::applied(put.source_version, members);
    let mut change = Change::about(BTreeSet::new(), outcome);
    change.person = Some(Person {
        member_id: (&put.member).into(),
        email: put.email.clone(),
        name: put.name.clone(),
        source_version: put.source_version,
        erased: false,
    });
    Ok(change.into())
}
