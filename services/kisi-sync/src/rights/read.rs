//! Reading the rights of others at Kisi, with as few requests as tell them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use kisi_client::model::{AssigneeType, AssignmentFilter, GroupFilter, RoleAssignment};
use kisi_client::{HttpKisi, KisiError, KisiRead, Lane, Listing};

use super::Scope;
use crate::store::micros;
use crate::store::other_rights::{GROUP, GUEST, LINK, Model, ORGANIZATION, PLACE, TEAM, USER};

/// What opens a door, where Kisi tells it of a role.
const UNLOCK: &str = "locks_unlock";

/// For which doors, and what is known already.
pub struct Reader<'a> {
    pub kisi: &'a HttpKisi,
    pub lane: Lane,
    pub gym: &'a str,
    pub organization: i64,
    pub scope: &'a Scope<'a>,
    /// Assignments of ours, of every gym in the organization.
    pub ours: &'a BTreeSet<i64>,
    pub now: i64,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Reading {
    pub rights: Vec<Model>,
    /// No list moved while it was read, and none was refused.
    pub complete: bool,
    pub requests: i64,
}

/// The doors of our groups, and which other groups hold them.
#[derive(Default)]
struct Doors {
    /// Door to those of our groups that hold it.
    ours: BTreeMap<i64, BTreeSet<i64>>,
    /// Any group with one of the doors to those of ours that share one with it.
    sharing: BTreeMap<i64, BTreeSet<i64>>,
    /// Place to those of our groups with a door in it.
    places: BTreeMap<i64, BTreeSet<i64>>,
}

impl Doors {
    /// Those of our groups with one of these doors.
    fn behind(&self, locks: &[i64]) -> BTreeSet<i64> {
        let known = locks.iter().filter_map(|lock| self.ours.get(lock));
        known.flatten().copied().collect()
    }
}

impl Reader<'_> {
    /// Everything, page after page.
    pub async fn read(&self) -> Result<Reading, KisiError> {
        let mut reading = Reading {
            complete: true,
            ..Reading::default()
        };
        let doors = self.doors(&mut reading).await?;
        if doors.ours.is_empty() {
            return Ok(reading);
        }
        for (group, opens) in &doors.sharing {
            let listed = match self.scope.lists.get(group) {
                Some(rows) => Cow::Borrowed(rows),
                None => {
                    let filter = AssignmentFilter::Group(*group);
                    Cow::Owned(self.rights_on(filter, &mut reading).await?)
                }
            };
            for row in listed.iter() {
                self.add(row, (GROUP, *group), opens, &mut reading);
            }
        }
        self.read_staff(&doors, &mut reading).await?;
        self.read_links(&doors, &mut reading).await?;
        Ok(reading)
    }

    async fn doors(&self, reading: &mut Reading) -> Result<Doors, KisiError> {
        let mut doors = Doors::default();
        let mut locks_of: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for group in self.scope.groups {
            let locks = self.locks_of(*group, reading).await?;
            for lock in &locks {
                doors.ours.entry(*lock).or_default().insert(*group);
            }
            locks_of.insert(*group, locks);
        }
        if doors.ours.is_empty() {
            return Ok(doors);
        }
        let listed = self.kisi.list_locks(self.lane, None).await?;
        let mut unaccounted: BTreeMap<i64, u64> = BTreeMap::new();
        for lock in taken(listed, reading) {
            let Some(groups) = doors.ours.get(&lock.id) else {
                continue;
            };
            if let Some(place) = lock.place_id {
                doors.places.entry(place).or_default().extend(groups);
            }
            let others = lock
                .groups_count
                .map_or(u64::MAX, |all| all.saturating_sub(groups.len() as u64));
            unaccounted.insert(lock.id, others);
        }
        self.find_sharing(&doors, unaccounted, &mut locks_of, reading)
            .await?;
        for (group, locks) in locks_of {
            let shared = doors.behind(&locks);
            if !shared.is_empty() {
                doors.sharing.insert(group, shared);
            }
        }
        Ok(doors)
    }

    /// Other groups with one of our doors: looked for only as long as some door is in more groups than
    /// are known to hold it.
    async fn find_sharing(
        &self,
        doors: &Doors,
        mut unaccounted: BTreeMap<i64, u64>,
        locks_of: &mut BTreeMap<i64, Vec<i64>>,
        reading: &mut Reading,
    ) -> Result<(), KisiError> {
        if unaccounted.values().all(|others| *others == 0) {
            return Ok(());
        }
        let all = GroupFilter::default();
        let listed = self.kisi.list_groups(self.lane, &all).await?;
        for group in taken(listed, reading) {
            let elsewhere = group
                .place_id
                .is_some_and(|place| !doors.places.contains_key(&place));
            if self.scope.groups.contains(&group.id) || elsewhere {
                continue;
            }
            if unaccounted.values().all(|others| *others == 0) {
                break;
            }
            let locks = self.locks_of(group.id, reading).await?;
            for lock in &locks {
                if let Some(others) = unaccounted.get_mut(lock) {
                    *others = others.saturating_sub(1);
                }
            }
            locks_of.insert(group.id, locks);
        }
        Ok(())
    }

    /// The doors of a group; none when it is gone.
    async fn locks_of(&self, group: i64, reading: &mut Reading) -> Result<Vec<i64>, KisiError> {
        match self.kisi.list_group_locks(self.lane, group).await {
            Ok(listed) => Ok(taken(listed, reading)
                .into_iter()
                .map(|held| held.lock_id)
                .collect()),
            Err(error) if error.is_not_found() => {
                reading.requests += 1;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Rights on whole places and on the organization, as far as their role opens doors.
    async fn read_staff(&self, doors: &Doors, reading: &mut Reading) -> Result<(), KisiError> {
        let everywhere: BTreeSet<i64> = doors.ours.values().flatten().copied().collect();
        let organization = AssignmentFilter::Organization(self.organization);
        let mut found = vec![(ORGANIZATION, self.organization, organization, &everywhere)];
        for (place, groups) in &doors.places {
            found.push((PLACE, *place, AssignmentFilter::Place(*place), groups));
        }
        let mut rows = Vec::new();
        for (kind, id, filter, groups) in found {
            for row in self.rights_on(filter, reading).await? {
                rows.push((kind, id, row, groups));
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        reading.requests += 1;
        let roles = self.kisi.list_roles(self.lane).await;
        let roles = optional(roles, reading)?.unwrap_or_default();
        let opens = |role: &str| {
            let known = roles.iter().find(|known| known.id == role);
            known
                .and_then(|role| role.may(UNLOCK))
                .unwrap_or(!role.ends_with("_basic"))
        };
        for (kind, id, row, groups) in rows {
            if opens(&row.role_id) {
                self.add(&row, (kind, id), groups, reading);
            }
        }
        Ok(())
    }

    async fn read_links(&self, doors: &Doors, reading: &mut Reading) -> Result<(), KisiError> {
        let listed = self.kisi.list_group_links(self.lane).await;
        let Some(listed) = optional(listed, reading)? else {
            return Ok(());
        };
        for link in taken(listed, reading) {
            let until = link.valid_until.map(micros);
            let Some(groups) = doors.sharing.get(&link.group_id) else {
                continue;
            };
            if !link.link_enabled || until.is_some_and(|until| until <= self.now) {
                continue;
            }
            reading.rights.push(Model {
                right_id: link.id,
                holder: LINK.to_owned(),
                holder_id: link.id,
                member_id: self.scope.people.member(None, link.email.as_deref()),
                target: GROUP.to_owned(),
                target_id: link.group_id,
                groups: json(groups),
                valid_from: link.valid_from.map(micros),
                valid_until: until,
                ..self.blank()
            });
        }
        Ok(())
    }

    /// The rows of a list; none where it is refused or gone.
    async fn rights_on(
        &self,
        filter: AssignmentFilter,
        reading: &mut Reading,
    ) -> Result<Vec<RoleAssignment>, KisiError> {
        let listed = self.kisi.list_role_assignments(self.lane, filter).await;
        let listed = match listed {
            // More than Kisi lets anyone read.
            Err(KisiError::BeyondOffsetLimit { .. }) => {
                reading.complete = false;
                return Ok(Vec::new());
            }
            listed => optional(listed, reading)?,
        };
        Ok(listed.map_or_else(Vec::new, |listed| taken(listed, reading)))
    }

    fn add(
        &self,
        row: &RoleAssignment,
        (target, target_id): (&str, i64),
        opens: &BTreeSet<i64>,
        reading: &mut Reading,
    ) {
        let until = row.valid_until.map(micros);
        if self.ours.contains(&row.id) || until.is_some_and(|until| until <= self.now) {
            return;
        }
        let holder = match row.assignee_type {
            AssigneeType::User => USER,
            AssigneeType::Team => TEAM,
            AssigneeType::Guest => GUEST,
            AssigneeType::Other => return,
        };
        let named = row.assignee.as_ref();
        let email = named.and_then(|named| named.email.as_deref());
        let user = (holder == USER).then_some(row.assignee_id);
        let team = named.and_then(|named| named.name.clone());
        reading.rights.push(Model {
            right_id: row.id,
            holder: holder.to_owned(),
            holder_id: row.assignee_id,
            member_id: self.scope.people.member(user, email),
            team_name: team.filter(|_| holder == TEAM).unwrap_or_default(),
            target: target.to_owned(),
            target_id,
            role_id: row.role_id.clone(),
            groups: json(opens),
            valid_from: row.valid_from.map(micros),
            valid_until: until,
            ..self.blank()
        });
    }

    fn blank(&self) -> Model {
        Model {
            id: 0,
            gym_id: self.gym.to_owned(),
            right_id: 0,
            holder: String::new(),
            holder_id: 0,
            member_id: None,
            team_name: String::new(),
            target: String::new(),
            target_id: 0,
            role_id: String::new(),
            groups: "[]".to_owned(),
            valid_from: None,
            valid_until: None,
        }
    }
}

/// The rows of a list, with its pages counted.
fn taken<T>(listed: Listing<T>, reading: &mut Reading) -> Vec<T> {
    /// As the client asks for them; users, whose pages are shorter, are not read here.
    const PAGE: u64 = 250;
    let pages = listed.total.div_ceil(PAGE).max(1);
    reading.requests += i64::try_from(pages).unwrap_or(i64::MAX);
    reading.complete &= listed.complete;
    listed.items
}

/// What this key, or the gym's plan at Kisi, may not see or does not have is left out.
fn optional<T>(
    answer: Result<T, KisiError>,
    reading: &mut Reading,
) -> Result<Option<T>, KisiError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.status(), Some(403 | 404)) => {
            reading.requests += 1;
            reading.complete = false;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn json(groups: &BTreeSet<i64>) -> String {
    serde_json::to_string(groups).unwrap_or_else(|_| "[]".to_owned())
}
