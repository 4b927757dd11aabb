//! People: e-mail and name, for whoever has to know them.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::ids::{GymId, MemberId};

use super::{By, Outcome};
use crate::error::Error;
use crate::requests::PutMember;
use crate::store;
use crate::unit::Decisions;

/// A first write has no row to lock yet.
pub(crate) fn member_lock(gym: &GymId, member: &MemberId) -> String {
    format!("member/{gym}/{member}")
}

/// Creates or replaces a person.
pub async fn put_member(decisions: &Decisions, by: &By, put: PutMember) -> Result<Outcome, Error> {
    decisions
        .retrying(|| put_member_once(decisions, by, &put))
        .await
}

async fn put_member_once(
    decisions: &Decisions,
    by: &By,
    put: &PutMember,
) -> Result<Outcome, Error> {
    let unit = decisions.begin(by.cause(decisions)).await?;
    let lock = BTreeSet::from([member_lock(&put.gym, &put.member)]);
    store::locks::take(unit.db(), lock, BTreeSet::new()).await?;
    if store::gyms::find(unit.db(), &put.gym).await?.is_none() {
        return Err(Error::Unknown("gym"));
    }
    let id = BTreeSet::from([put.member.clone()]);
    let held = store::members::lock(unit.db(), &put.gym, &id).await?.pop();
    let version = held.as_ref().map_or(0, |held| held.version);
    if let Some(held) = held {
        if held.source_version > put.source_version {
            return Ok(Outcome::stale(held.source_version));
        }
        if held.erased {
            return Err(Error::Refused(
                "the member was erased; a person who comes back gets a new id".to_owned(),
            ));
        }
    }
    store::members::put(
        unit.db(),
        &put.gym,
        &put.member,
        &put.email,
        &put.name,
        put.source_version,
    )
    .await?;
    unit.commit().await?;
    let members = if version == 0 {
        BTreeMap::new()
    } else {
        BTreeMap::from([(put.member.clone(), version)])
    };
    Ok(Outcome::applied(put.source_version, members))
}
