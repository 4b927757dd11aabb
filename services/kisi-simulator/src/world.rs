//! What exists in the simulated Kisi: the rows, their ids, and the few look-ups that must be fast.
//!
//! Rows are kept as Kisi means them, not as it prints them: counts and mirror fields are made when
//! a row is rendered (`render.rs`), so they cannot contradict the rows. Ids come from one counter
//! and are never used again. The indices are rebuilt after loading and are not stored.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::rows::{
    Assignee, Assignment, Email, EventRow, EventSet, Group, GroupLink, GroupLock, Guest,
    Integration, Lock, Login, Organization, Place, Target, Team, User,
};
use crate::settings::DeletedRights;

/// How many events are kept. Older ones are forgotten, as Kisi's retention does.
const EVENTS_KEPT: usize = 20_000;

/// All rows of all organizations.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct World {
    pub last_id: i64,
    pub organizations: BTreeMap<i64, Organization>,
    pub places: BTreeMap<i64, Place>,
    pub locks: BTreeMap<i64, Lock>,
    pub groups: BTreeMap<i64, Group>,
    pub group_locks: BTreeMap<i64, GroupLock>,
    pub users: BTreeMap<i64, User>,
    pub teams: BTreeMap<i64, Team>,
    pub guests: BTreeMap<i64, Guest>,
    pub logins: BTreeMap<i64, Login>,
    pub assignments: BTreeMap<i64, Assignment>,
    pub integrations: BTreeMap<i64, Integration>,
    pub event_sets: BTreeMap<i64, EventSet>,
    pub group_links: BTreeMap<i64, GroupLink>,
    pub events: Vec<EventRow>,
    pub event_sequence: u64,
    pub emails: Vec<Email>,
    /// Users whom the rights that they have do not name.
    #[serde(skip)]
    pub unnamed: BTreeSet<i64>,
    #[serde(skip)]
    index: Index,
}

#[derive(Clone, Debug, Default)]
struct Index {
    secrets: HashMap<String, i64>,
    emails: HashMap<(i64, String), i64>,
    by_assignee: HashMap<Assignee, BTreeSet<i64>>,
    by_target: HashMap<Target, BTreeSet<i64>>,
}

impl World {
    /// The next free id.
    pub fn next_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    /// Takes `wanted` as an id, or the next free one; later ids stay above it.
    pub fn claim_id(&mut self, wanted: Option<i64>) -> i64 {
        match wanted {
            Some(id) => {
                self.last_id = self.last_id.max(id);
                id
            }
            None => self.next_id(),
        }
    }

    /// Rebuilds what is not stored. Call after deserializing.
    pub fn rebuild_index(&mut self) {
        let mut index = Index::default();
        for login in self.logins.values() {
            index.secrets.insert(login.secret.clone(), login.id);
        }
        for user in self.users.values() {
            index
                .emails
                .insert((user.organization_id, user.email.to_lowercase()), user.id);
        }
        for row in self.assignments.values() {
            index
                .by_assignee
                .entry(row.assignee)
                .or_default()
                .insert(row.id);
            index
                .by_target
                .entry(row.applies_to)
                .or_default()
                .insert(row.id);
        }
        self.index = index;
    }

    pub fn insert_user(&mut self, user: User) {
        let key = (user.organization_id, user.email.to_lowercase());
        self.index.emails.insert(key, user.id);
        self.users.insert(user.id, user);
    }

    /// The user with this e-mail, compared without case.
    pub fn user_by_email(&self, organization_id: i64, email: &str) -> Option<&User> {
        let id = self
            .index
            .emails
            .get(&(organization_id, email.to_lowercase()))?;
        self.users.get(id)
    }

    pub fn insert_login(&mut self, login: Login) {
        self.index.secrets.insert(login.secret.clone(), login.id);
        self.logins.insert(login.id, login);
    }

    pub fn remove_login(&mut self, id: i64) -> Option<Login> {
        let login = self.logins.remove(&id)?;
        self.index.secrets.remove(&login.secret);
        Some(login)
    }

    pub fn login_by_secret(&self, secret: &str) -> Option<&Login> {
        self.logins.get(self.index.secrets.get(secret)?)
    }

    pub fn insert_assignment(&mut self, row: Assignment) {
        self.index
            .by_assignee
            .entry(row.assignee)
            .or_default()
            .insert(row.id);
        self.index
            .by_target
            .entry(row.applies_to)
            .or_default()
            .insert(row.id);
        self.assignments.insert(row.id, row);
    }

    pub fn remove_assignment(&mut self, id: i64) -> Option<Assignment> {
        let row = self.assignments.remove(&id)?;
        if let Some(ids) = self.index.by_assignee.get_mut(&row.assignee) {
            ids.remove(&id);
        }
        if let Some(ids) = self.index.by_target.get_mut(&row.applies_to) {
            ids.remove(&id);
        }
        Some(row)
    }

    pub fn assignments_of(&self, assignee: Assignee) -> impl Iterator<Item = &Assignment> {
        let ids = self.index.by_assignee.get(&assignee).into_iter().flatten();
        ids.filter_map(|id| self.assignments.get(id))
    }

    /// What a user holds, directly and through teams.
    pub fn rights_of(&self, user_id: i64) -> impl Iterator<Item = &Assignment> {
        let teams = self.teams.values();
        let through = teams
            .filter(move |team| team.members.contains(&user_id))
            .flat_map(|team| self.assignments_of(Assignee::Team(team.id)));
        self.assignments_of(Assignee::User(user_id)).chain(through)
    }

    /// Whether an assignment is for this door, alone or with others. A mere member of the
    /// organization has no right to its doors by that.
    pub fn is_for_lock(&self, row: &Assignment, lock: &Lock) -> bool {
        match row.applies_to {
            Target::Group(id) => self.groups_of_lock(lock.id).any(|group| group == id),
            Target::Place(id) => id == lock.place_id,
            Target::Organization(id) => {
                id == lock.organization_id && row.role_id != "organization_basic"
            }
        }
    }

    pub fn assignments_on(&self, target: Target) -> impl Iterator<Item = &Assignment> {
        let ids = self.index.by_target.get(&target).into_iter().flatten();
        ids.filter_map(|id| self.assignments.get(id))
    }

    /// Removes a user with its logins and team memberships, and with its assignments where they go;
    /// those are returned so that their end can be told.
    pub fn remove_user(
        &mut self,
        id: i64,
        rights: DeletedRights,
    ) -> Option<(User, Vec<Assignment>)> {
        let user = self.users.remove(&id)?;
        self.index
            .emails
            .remove(&(user.organization_id, user.email.to_lowercase()));
        let rows = self.assignments_of(Assignee::User(id));
        let rows: Vec<i64> = rows.map(|row| row.id).collect();
        let gone = self.remove_with_holder(&rows, rights);
        let logins: Vec<i64> = self
            .logins
            .values()
            .filter(|login| login.user_id == id)
            .map(|login| login.id)
            .collect();
        for login in logins {
            self.remove_login(login);
        }
        for team in self.teams.values_mut() {
            team.members.retain(|member| *member != id);
        }
        Some((user, gone))
    }

    /// Removes a group with its door links and access links, and with its assignments where they go.
    pub fn remove_group(
        &mut self,
        id: i64,
        rights: DeletedRights,
    ) -> Option<(Group, Vec<Assignment>)> {
        let group = self.groups.remove(&id)?;
        let rows = self.assignments_on(Target::Group(id));
        let rows: Vec<i64> = rows.map(|row| row.id).collect();
        let gone = self.remove_with_holder(&rows, rights);
        self.group_locks.retain(|_, link| link.group_id != id);
        self.group_links.retain(|_, link| link.group_id != id);
        Some((group, gone))
    }

    fn remove_with_holder(&mut self, rows: &[i64], rights: DeletedRights) -> Vec<Assignment> {
        match rights {
            DeletedRights::Stay => Vec::new(),
            DeletedRights::Go => {
                let rows = rows.iter();
                rows.filter_map(|row| self.remove_assignment(*row))
                    .collect()
            }
        }
    }

    /// Groups that open this door.
    pub fn groups_of_lock(&self, lock_id: i64) -> impl Iterator<Item = i64> {
        self.group_locks
            .values()
            .filter(move |link| link.lock_id == lock_id)
            .map(|link| link.group_id)
    }

    /// Keeps an event and gives it its place in the sequence.
    pub fn push_event(&mut self, mut event: EventRow) -> EventRow {
        self.event_sequence += 1;
        event.sequence = self.event_sequence;
        if self.events.len() >= EVENTS_KEPT {
            self.events.drain(..EVENTS_KEPT / 10);
        }
        self.events.push(event.clone());
        event
    }
}
