//! Rights that several gyms of an organization hold together: one at Kisi, a row of each gym.
//!
//! Such a right is open whenever one of its gyms wants it open: every gym makes it so, by the same
//! union of what all of them want, and so none undoes what another did. It ends with the last of
//! them; who leaves it to the others leaves it with the window that they want.

use std::collections::{BTreeMap, BTreeSet};

use kisi_client::model::RoleAssignment;
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect};

use crate::held;
use crate::steps::{self, Window, row_window};
use crate::store::{applied_grants, integrations, key_checks, members, micros};

/// How far Kisi's clock may be behind ours, in microseconds.
pub const CLOCKS_DIFFER_BY: i64 = 120_000_000;

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

/// What other gyms of an organization have at Kisi, by the tables.
#[derive(Debug, Default)]
pub struct Elsewhere {
    /// Assignments that are held.
    held: BTreeSet<i64>,
    /// What was asked for, or is about to be, and has no answer yet: group and user to since when.
    asked: BTreeMap<(i64, i64), i64>,
    /// Whose keys they have, or had.
    owners: BTreeSet<i64>,
    /// And whose the gym itself has or had, where it is not alone.
    own: BTreeSet<i64>,
}

impl Elsewhere {
    /// Of all their members.
    pub async fn of_gym<C: ConnectionTrait>(
        db: &C,
        organization: i64,
        gym: &str,
    ) -> Result<Self, DbErr> {
        let of_others = || {
            applied_grants::Entity::find()
                .filter(applied_grants::Column::OrganizationId.eq(organization))
                .filter(applied_grants::Column::GymId.ne(gym))
        };
        // In this order, or an answer that is written down in between is in neither.
        let asked = of_others().filter(applied_grants::Column::AssignmentId.is_null());
        let asked = asked.all(db).await?;
        let held: Vec<i64> = of_others()
            .filter(applied_grants::Column::AssignmentId.is_not_null())
            .select_only()
            .column(applied_grants::Column::AssignmentId)
            .into_tuple()
            .all(db)
            .await?;
        let (owners, own) = owners(db, organization, gym).await?;
        Ok(Self {
            held: held.into_iter().collect(),
            asked: asked_for(asked.iter()),
            owners,
            own,
        })
    }

    /// Of one user, and of other members of this gym too.
    pub async fn of_user<C: ConnectionTrait>(
        db: &C,
        organization: i64,
        (gym, member): (&str, &str),
        user: i64,
    ) -> Result<Self, DbErr> {
        let mut rows = applied_grants::of_user(db, organization, user).await?;
        rows.retain(|row| row.gym_id != gym || row.member_id != member);
        let asked = rows.iter().filter(|row| row.assignment_id.is_none());
        let (owners, own) = owners(db, organization, gym).await?;
        Ok(Self {
            held: rows.iter().filter_map(|row| row.assignment_id).collect(),
            asked: asked_for(asked.filter(|row| row.gym_id != gym)),
            owners,
            own,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// A row holds it, or is about to: its answer is not written down yet.
    pub fn has(&self, right: &RoleAssignment) -> bool {
        let asked = self.asked.get(&(right.applies_to_id, right.assignee_id));
        let is_asked = asked.is_some_and(|since| {
            let is_since = |at| micros(at) >= since - CLOCKS_DIFFER_BY;
            right.created_at.is_none_or(is_since)
        });
        self.held.contains(&right.id) || (is_asked && is_by(right, &self.owners))
    }

    /// Some gym of the organization has given it, which need not be alone with it; or a key's owner did by
    /// hand.
    pub fn may_have_had(&self, right: &RoleAssignment) -> bool {
        is_by(right, &self.owners) || is_by(right, &self.own)
    }

    /// It was given since the tables were read, and what came of it since is not in them.
    pub fn may_have(&self, right: &RoleAssignment, read_at: i64) -> bool {
        let is_new = |at| micros(at) >= read_at - CLOCKS_DIFFER_BY;
        is_by(right, &self.owners) && right.created_at.is_some_and(is_new)
    }
}

fn is_by(right: &RoleAssignment, owners: &BTreeSet<i64>) -> bool {
    let by = right.created_by_id;
    by.is_some_and(|by| owners.contains(&by))
}

/// Of two the one that was asked for first.
fn asked_for<'a>(
    rows: impl Iterator<Item = &'a applied_grants::Model>,
) -> BTreeMap<(i64, i64), i64> {
    let mut asked = BTreeMap::new();
    for row in rows {
        let since = asked
            .entry((row.group_id, row.kisi_user_id))
            .or_insert(row.intended_at);
        *since = row.intended_at.min(*since);
    }
    asked
}

/// Whose keys the other gyms of the organization have, or had; and this one, if there are others.
async fn owners<C: ConnectionTrait>(
    db: &C,
    organization: i64,
    gym: &str,
) -> Result<(BTreeSet<i64>, BTreeSet<i64>), DbErr> {
    let gyms = integrations::list_owners(db, organization).await?;
    let (mut owners, mut own) = (BTreeSet::new(), BTreeSet::new());
    if gyms.iter().all(|(other, _)| other == gym) {
        return Ok((owners, own));
    }
    let names = gyms.iter().map(|(gym, _)| gym.clone()).collect();
    let former = key_checks::list_former_owners(db, names).await?;
    let now = gyms
        .into_iter()
        .filter_map(|(gym, owner)| Some((gym, owner?)));
    for (other, owner) in now.chain(former) {
        match other == gym {
            true => own.insert(owner),
            false => owners.insert(owner),
        };
    }
    Ok((owners, own))
}
