//! Rights that several gyms of an organization hold together: one at Kisi, a row of each gym.
//!
//! Such a right is open whenever one of its gyms wants it open: every gym makes it so, by the same
//! union of what all of them want, and so none undoes what another did. It ends with the last of
//! them; who leaves it to the others leaves it with the window that they want.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbErr};

use crate::held;
use crate::steps::{self, Window, row_window};
use crate::store::{applied_grants, integrations, members};

/// Assignment to what its other holders want of it; None where none of them wants it any more.
pub type Shared = BTreeMap<i64, Option<Window>>;

/// More members of a gym than these are read together.
const FEW: usize = 20;

/// What the holders of these rows want, by assignment.
pub async fn wanted_by<C: ConnectionTrait>(
    db: &C,
    holders: &[applied_grants::Model],
    now: i64,
) -> Result<Shared, DbErr> {
    let mut by_gym: BTreeMap<&str, Vec<&applied_grants::Model>> = BTreeMap::new();
    for row in holders {
        by_gym.entry(&row.gym_id).or_default().push(row);
    }
    let mut shared = Shared::new();
    for (gym, rows) in by_gym {
        let integration = integrations::find(db, gym).await?;
        let members = list_members(db, gym, &rows).await?;
        for row in rows {
            let Some(assignment) = row.assignment_id else {
                continue;
            };
            let member = members.get(&row.member_id);
            let wanted = wanted(integration.as_ref(), member, row, now)?;
            let known = shared.entry(assignment).or_default();
            *known = match (*known, wanted) {
                (Some(known), Some(wanted)) => Some(known.union(wanted)),
                (known, wanted) => known.or(wanted),
            };
        }
    }
    Ok(shared)
}

async fn list_members<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    rows: &[&applied_grants::Model],
) -> Result<BTreeMap<String, members::Model>, DbErr> {
    let mut listed = Vec::new();
    if rows.len() > FEW {
        listed = members::list(db, gym).await?;
    } else {
        for row in rows {
            listed.extend(members::find(db, gym, &row.member_id).await?);
        }
    }
    Ok(listed
        .into_iter()
        .map(|member| (member.member_id.clone(), member))
        .collect())
}

/// What stands is wanted where its gym has kept it, or does not know or may not do better.
fn wanted(
    integration: Option<&integrations::Model>,
    member: Option<&members::Model>,
    row: &applied_grants::Model,
    now: i64,
) -> Result<Option<Window>, DbErr> {
    let stands = Some(row_window(row).as_of(now));
    let works = integration.filter(|gym| gym.enabled && gym.activated);
    let known = member.filter(|member| member.version > 0 && !member.is_behind());
    let (Some(integration), Some(member)) = (works, known) else {
        return Ok(stands);
    };
    let wanted = match member.erased {
        true => None,
        false => {
            steps::wanted(&member.plans()?, &integration.associations()?, now).remove(&row.group_id)
        }
    };
    let is_held = member.held_by.is_some() && !held::holds_grants(member.held_by.as_deref());
    Ok(wanted.or(stands.filter(|_| is_held)))
}
