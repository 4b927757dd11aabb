//! `POST /_simulator/seed`: organizations with all that is in them, by names.

use axum::Json;
use axum::extract::State as Extracted;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::control::refused;
use crate::routes::random_hex;
use crate::rows::{
    Assignee, Assignment, Group, GroupLock, GroupRules, Guest, Lock, Login, LoginKind,
    Organization, Place, Target, Team, User,
};
use crate::state::Shared;
use crate::world::World;

/// What to make.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    organizations: Vec<SeedOrganization>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedOrganization {
    id: Option<i64>,
    name: String,
    domain: Option<String>,
    time_zone: Option<String>,
    owner: SeedUser,
    #[serde(default)]
    places: Vec<SeedPlace>,
    /// Organization groups; their doors by name, of any place.
    #[serde(default)]
    groups: Vec<SeedGroup>,
    #[serde(default)]
    users: Vec<SeedUser>,
    #[serde(default)]
    teams: Vec<SeedTeam>,
    #[serde(default)]
    guests: Vec<SeedGuest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedPlace {
    id: Option<i64>,
    name: String,
    #[serde(default)]
    locks: Vec<SeedLock>,
    #[serde(default)]
    groups: Vec<SeedGroup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedLock {
    id: Option<i64>,
    name: String,
    online: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedGroup {
    id: Option<i64>,
    name: String,
    #[serde(default)]
    locks: Vec<String>,
    #[serde(default)]
    rules: GroupRules,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedUser {
    id: Option<i64>,
    email: String,
    #[serde(default)]
    name: String,
    /// Such as `organization_administrator`.
    role: Option<String>,
    /// The secret of an API login.
    api_key: Option<String>,
    /// Groups by name.
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedTeam {
    name: String,
    /// Users by e-mail.
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedGuest {
    name: String,
    email: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
}

/// Makes it, and answers the ids.
pub async fn seed(Extracted(shared): Extracted<Shared>, Json(seed): Json<Seed>) -> Response {
    let mut state = shared.lock();
    let now = state.now();
    // On a copy, so that a seed that makes no sense leaves nothing.
    let mut world = state.world.clone();
    world.rebuild_index();
    let mut made = Vec::new();
    for organization in seed.organizations {
        match Maker::new(&mut world, now).organization(organization) {
            Ok(ids) => made.push(ids),
            Err(why) => return refused(why),
        }
    }
    state.world = world;
    state.dirty = true;
    shared.changed.notify_one();
    Json(json!({ "organizations": made })).into_response()
}

struct Maker<'a> {
    world: &'a mut World,
    now: Timestamp,
    organization: i64,
    owner: i64,
}

impl<'a> Maker<'a> {
    fn new(world: &'a mut World, now: Timestamp) -> Self {
        Self {
            world,
            now,
            organization: 0,
            owner: 0,
        }
    }

    fn organization(mut self, seed: SeedOrganization) -> Result<Value, String> {
        self.organization = self.world.claim_id(seed.id);
        let domain = seed
            .domain
            .unwrap_or_else(|| seed.name.to_lowercase().replace(' ', "-"));
        self.world.organizations.insert(
            self.organization,
            Organization {
                id: self.organization,
                name: seed.name,
                domain,
                time_zone: seed.time_zone.unwrap_or_else(|| "Etc/UTC".into()),
                device_logins_expire_after: None,
                user_id: None,
                created_at: self.now,
                updated_at: self.now,
            },
        );
        let owner = SeedUser {
            role: Some("organization_owner".into()),
            ..seed.owner
        };
        let owner_groups = owner.groups.clone();
        self.owner = self.user(SeedUser {
            groups: Vec::new(),
            ..owner
        })?;
        if let Some(row) = self.world.organizations.get_mut(&self.organization) {
            row.user_id = Some(self.owner);
        }
        let mut places = Vec::new();
        let mut groups = Vec::new();
        for place in seed.places {
            places.push(self.place(place, &mut groups)?);
        }
        for group in seed.groups {
            groups.push(self.group(None, group)?);
        }
        for group in owner_groups {
            self.grant(Assignee::User(self.owner), &group)?;
        }
        let mut users = vec![json!({ "id": self.owner })];
        for user in seed.users {
            let email = user.email.clone();
            let id = self.user(user)?;
            users.push(json!({ "id": id, "email": email }));
        }
        for team in seed.teams {
            let id = self.world.next_id();
            let organization_id = self.organization;
            let mut members = Vec::new();
            for email in &team.members {
                let user = self.world.user_by_email(organization_id, email);
                let user = user.ok_or_else(|| format!("team {}: no user {email}", team.name))?;
                members.push(user.id);
            }
            let row = Team {
                id,
                organization_id,
                name: team.name,
                members,
            };
            self.world.teams.insert(id, row);
            for group in team.groups {
                self.grant(Assignee::Team(id), &group)?;
            }
        }
        for guest in seed.guests {
            let id = self.world.next_id();
            self.world.guests.insert(
                id,
                Guest {
                    id,
                    organization_id: self.organization,
                    name: guest.name,
                    email: guest.email,
                    phone_number: None,
                },
            );
            for group in guest.groups {
                self.grant(Assignee::Guest(id), &group)?;
            }
        }
        Ok(json!({
            "id": self.organization, "owner_id": self.owner, "places": places, "groups": groups,
            "users": users,
        }))
    }

    fn place(&mut self, seed: SeedPlace, groups: &mut Vec<Value>) -> Result<Value, String> {
        let id = self.world.claim_id(seed.id);
        self.world.places.insert(
            id,
            Place {
                id,
                organization_id: self.organization,
                name: seed.name.clone(),
                description: None,
                address: "1 High Street".into(),
                latitude: Some(51.5),
                longitude: Some(-0.12),
                time_zone: None,
                locked_down_since: None,
                created_at: self.now,
                updated_at: self.now,
            },
        );
        let mut locks = Vec::new();
        for lock in seed.locks {
            let lock_id = self.world.claim_id(lock.id);
            locks.push(json!({ "id": lock_id, "name": lock.name }));
            self.world.locks.insert(
                lock_id,
                Lock {
                    id: lock_id,
                    organization_id: self.organization,
                    place_id: id,
                    name: lock.name,
                    description: None,
                    configured: true,
                    online: Some(lock.online.unwrap_or(true)),
                    locked_down_since: None,
                    on_scheduled_unlock: false,
                    latitude: Some(51.5),
                    longitude: Some(-0.12),
                    floor_id: None,
                    geofence_restriction_enabled: None,
                    geofence_restriction_radius: 300.0,
                    reader_restriction_enabled: None,
                    time_restriction_enabled: None,
                    hours: None,
                    created_at: self.now,
                    updated_at: self.now,
                },
            );
        }
        for group in seed.groups {
            groups.push(self.group(Some(id), group)?);
        }
        Ok(json!({ "id": id, "name": seed.name, "locks": locks }))
    }

    fn group(&mut self, place_id: Option<i64>, seed: SeedGroup) -> Result<Value, String> {
        let id = self.world.claim_id(seed.id);
        for name in &seed.locks {
            let lock = self
                .world
                .locks
                .values()
                .find(|lock| lock.organization_id == self.organization && lock.name == *name);
            let Some(lock_id) = lock.map(|lock| lock.id) else {
                return Err(format!("group {}: no lock {name}", seed.name));
            };
            let link = self.world.next_id();
            self.world.group_locks.insert(
                link,
                GroupLock {
                    id: link,
                    organization_id: self.organization,
                    group_id: id,
                    lock_id,
                    created_at: self.now,
                },
            );
        }
        self.world.groups.insert(
            id,
            Group {
                id,
                organization_id: self.organization,
                place_id,
                name: seed.name.clone(),
                description: None,
                rules: seed.rules,
                created_at: self.now,
                updated_at: self.now,
            },
        );
        Ok(json!({ "id": id, "name": seed.name, "place_id": place_id }))
    }

    fn user(&mut self, seed: SeedUser) -> Result<i64, String> {
        if self
            .world
            .user_by_email(self.organization, &seed.email)
            .is_some()
        {
            return Err(format!("{} is there already", seed.email));
        }
        let id = self.world.claim_id(seed.id);
        let member_id = self.world.next_id();
        self.world.insert_user(User {
            id,
            member_id,
            organization_id: self.organization,
            email: seed.email,
            name: seed.name,
            image: None,
            metadata: Map::new(),
            notes: None,
            access_enabled: true,
            password_flow_enabled: true,
            confirmed: true,
            last_accessed_at: None,
            created_at: self.now,
            updated_at: self.now,
        });
        if let Some(role) = seed.role {
            self.assign(
                Assignee::User(id),
                Target::Organization(self.organization),
                &role,
            );
        }
        if let Some(secret) = seed.api_key {
            let login = self.world.next_id();
            self.world.insert_login(Login {
                id: login,
                user_id: id,
                kind: LoginKind::Api,
                name: Some("Gymflow".into()),
                secret,
                expire: false,
                primary: false,
                device_brand: None,
                device_model: None,
                os_name: None,
                phone_key: random_hex(),
                online_certificate: random_hex(),
                revoked: false,
                last_used_at: None,
                created_at: self.now,
                updated_at: self.now,
            });
        }
        for group in seed.groups {
            self.grant(Assignee::User(id), &group)?;
        }
        Ok(id)
    }

    fn grant(&mut self, assignee: Assignee, name: &str) -> Result<(), String> {
        let group = self
            .world
            .groups
            .values()
            .find(|group| group.organization_id == self.organization && group.name == name);
        let Some(id) = group.map(|group| group.id) else {
            return Err(format!("no group {name}"));
        };
        self.assign(assignee, Target::Group(id), "group_basic");
        Ok(())
    }

    fn assign(&mut self, assignee: Assignee, applies_to: Target, role_id: &str) {
        let id = self.world.next_id();
        let owner = if self.owner == 0 {
            None
        } else {
            Some(self.owner)
        };
        self.world.insert_assignment(Assignment {
            id,
            organization_id: self.organization,
            role_id: role_id.to_owned(),
            notify: false,
            assignee,
            applies_to,
            valid_from: None,
            valid_until: None,
            created_by_type: owner.map(|_| "User".into()),
            created_by_id: owner,
            created_at: self.now,
            updated_at: self.now,
        });
    }
}
