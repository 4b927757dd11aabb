//! What people give in Kisi's own pages that no route of the API here makes: rights of teams, guests
//! and staff, access links, integrations.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::rows::{Assignee, Assignment, GroupLink, Guest, Integration, Target, Team};
use crate::world::World;

/// Who gets what. One of `email`, `team` and `guest`, one of `group_id`, `place_id` and
/// `organization_id`. A team or guest of that name is made where there is none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Right {
    email: Option<String>,
    team: Option<String>,
    guest: Option<String>,
    /// Of a guest who is made.
    guest_email: Option<String>,
    group_id: Option<i64>,
    place_id: Option<i64>,
    organization_id: Option<i64>,
    role_id: Option<String>,
    valid_until: Option<Timestamp>,
}

/// An access link.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    group_id: i64,
    name: String,
    email: Option<String>,
    enabled: Option<bool>,
}

/// An integration of another kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewIntegration {
    organization_id: i64,
    kind: String,
    name: String,
}

/// Gives the right.
pub fn right(world: &mut World, right: Right, now: Timestamp) -> Result<Value, String> {
    let (target, role) = match (right.group_id, right.place_id, right.organization_id) {
        (Some(id), None, None) => (Target::Group(id), "group_basic"),
        (None, Some(id), None) => (Target::Place(id), "place_administrator"),
        (None, None, Some(id)) => (Target::Organization(id), "organization_administrator"),
        _ => return Err("one of `group_id`, `place_id`, `organization_id` is expected".into()),
    };
    let organization_id = match target {
        Target::Group(id) => world.groups.get(&id).map(|row| row.organization_id),
        Target::Place(id) => world.places.get(&id).map(|row| row.organization_id),
        Target::Organization(id) => world.organizations.get(&id).map(|row| row.id),
    };
    let organization_id = organization_id.ok_or("there is no such thing to open")?;
    let assignee = holder(world, &right, organization_id)?;
    let owner = world.organizations.get(&organization_id);
    let created_by_id = owner.and_then(|organization| organization.user_id);
    let id = world.next_id();
    world.insert_assignment(Assignment {
        id,
        organization_id,
        role_id: right.role_id.unwrap_or_else(|| role.to_owned()),
        notify: false,
        assignee,
        applies_to: target,
        valid_from: None,
        valid_until: right.valid_until,
        created_by_type: Some("User".to_owned()),
        created_by_id,
        created_at: now,
        updated_at: now,
    });
    Ok(json!({ "assignment_id": id, "assignee_id": assignee.id() }))
}

fn holder(world: &mut World, right: &Right, organization_id: i64) -> Result<Assignee, String> {
    match (&right.email, &right.team, &right.guest) {
        (Some(email), None, None) => {
            let user = world.user_by_email(organization_id, email);
            Ok(Assignee::User(user.ok_or("no such user")?.id))
        }
        (None, Some(name), None) => {
            let known = world.teams.values().find(|team| team.name == *name);
            let id = known.map(|team| team.id);
            let id = id.unwrap_or_else(|| new_team(world, name, organization_id));
            Ok(Assignee::Team(id))
        }
        (None, None, Some(name)) => {
            let id = world.next_id();
            world.guests.insert(
                id,
                Guest {
                    id,
                    organization_id,
                    name: name.clone(),
                    email: right.guest_email.clone(),
                    phone_number: None,
                },
            );
            Ok(Assignee::Guest(id))
        }
        _ => Err("one of `email`, `team`, `guest` is expected".into()),
    }
}

fn new_team(world: &mut World, name: &str, organization_id: i64) -> i64 {
    let id = world.next_id();
    world.teams.insert(
        id,
        Team {
            id,
            organization_id,
            name: name.to_owned(),
            members: Vec::new(),
        },
    );
    id
}

/// Makes the link.
pub fn link(world: &mut World, link: Link, now: Timestamp) -> Result<Value, String> {
    let group = world.groups.get(&link.group_id).ok_or("no such group")?;
    let organization_id = group.organization_id;
    let owner = world.organizations.get(&organization_id);
    let created_by_id = owner.and_then(|organization| organization.user_id);
    let id = world.next_id();
    world.group_links.insert(
        id,
        GroupLink {
            id,
            organization_id,
            group_id: link.group_id,
            name: link.name,
            email: link.email,
            phone: None,
            link_enabled: link.enabled.unwrap_or(true),
            valid_from: None,
            valid_until: None,
            created_by_id,
            created_at: now,
        },
    );
    Ok(json!({ "link_id": id }))
}

/// Makes the integration, which does nothing here but be listed.
pub fn integration(
    world: &mut World,
    new: NewIntegration,
    now: Timestamp,
) -> Result<Value, String> {
    let known = world.organizations.contains_key(&new.organization_id);
    known.then_some(()).ok_or("no such organization")?;
    let id = world.next_id();
    world.integrations.insert(
        id,
        Integration {
            id,
            organization_id: new.organization_id,
            place_id: None,
            kind: new.kind,
            name: new.name,
            url: String::new(),
            enabled: true,
            enabled_events: Vec::new(),
            signature_key: None,
            failures_in_a_row: 0,
            disabled_due_to_error_at: None,
            created_at: now,
            updated_at: now,
        },
    );
    Ok(json!({ "integration_id": id }))
}
