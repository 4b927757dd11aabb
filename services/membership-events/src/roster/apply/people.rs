//! People: e-mail and name. Nothing is decided about them by that.

use std::collections::BTreeSet;

use super::{Work, advanced, cause, is_change, kept};
use crate::error::Error;
use crate::roster::Stop;
use crate::roster::claim::Claimed;
use crate::roster::compare;
use crate::store;
use crate::store::bulk::{self, Person};
use crate::store::keys::MemberKey;
use crate::store::roster::imports::Import;
use crate::store::roster::staged::Staged;
use crate::writes::member::member_lock;

pub(super) async fn apply(claimed: &Claimed, page: &[Staged]) -> Result<Work, Stop> {
    let decisions = &claimed.importer.decisions;
    let gym = &claimed.row.gym_id;
    let seen = compare::people(decisions.store().reads(), gym, page, false).await?;
    if !seen.iter().any(|person| person.verdict.is_written()) {
        return Ok(Work::Nothing);
    }
    let new: BTreeSet<String> = seen
        .iter()
        .filter(|person| !person.is_known)
        .map(|person| member_lock(gym, &person.put.member))
        .collect();
    let row = decisions
        .retrying(|| apply_once(claimed, page, &new))
        .await?;
    kept(row)
}

async fn apply_once(
    claimed: &Claimed,
    page: &[Staged],
    new: &BTreeSet<String>,
) -> Result<Option<Import>, Error> {
    let gym = &claimed.row.gym_id;
    let unit = claimed.importer.decisions.begin(cause(claimed)).await?;
    if !new.is_empty() {
        store::locks::take(unit.db(), new.clone(), BTreeSet::new()).await?;
    }
    let compared = compare::people(unit.db(), gym, page, true).await?;
    let people: Vec<Person> = compared
        .iter()
        .filter(|person| person.verdict.is_written())
        .map(|person| Person {
            member_id: MemberKey::from(&person.put.member),
            email: person.put.email.clone(),
            name: person.put.name.clone(),
            source_version: person.put.source_version,
            erased: false,
        })
        .collect();
    bulk::put_people(unit.db(), gym, &people).await?;
    let changes = compared.iter().filter(|person| is_change(person.verdict));
    let row = advanced(claimed, unit.db(), page, changes.count()).await?;
    if row.is_some() {
        unit.commit().await?;
    }
    Ok(row)
}
