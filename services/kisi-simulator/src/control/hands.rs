//! `POST /_simulator/hands`: what people do in Kisi's own pages, as another user or, as a test of
//! how little Kisi tells, as the owner of the key.

use axum::Json;
use axum::extract::State as Extracted;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, json};

use crate::auth;
use crate::context::{Context, Happened};
use crate::control::{gifts, refused};
use crate::routes;
use crate::rows::{Assignee, Assignment, Target, User};
use crate::state::{Shared, State};

/// One change.
#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Gives a person a group; makes the person if there is none. `by` is the user who does it; the
    /// organization's owner without it.
    AddAssignment {
        group_id: i64,
        email: Option<String>,
        user_id: Option<i64>,
        by: Option<i64>,
        valid_from: Option<Timestamp>,
        valid_until: Option<Timestamp>,
    },
    RemoveAssignment {
        assignment_id: i64,
        by: Option<i64>,
    },
    SetWindow {
        assignment_id: i64,
        valid_from: Option<Timestamp>,
        valid_until: Option<Timestamp>,
        by: Option<i64>,
    },
    DeleteGroup {
        group_id: i64,
    },
    DeleteUser {
        user_id: i64,
    },
    SuspendUser {
        user_id: i64,
        suspended: bool,
    },
    /// The key is known to be dead from now on.
    RevokeKey {
        secret: String,
    },
    /// The user loses every role in the organization, and its keys die with it.
    Demote {
        user_id: i64,
    },
    /// A right for a team, a guest, or a person on a whole place or organization.
    GiveRight(gifts::Right),
    /// An access link of a group.
    AddLink(gifts::Link),
    /// An integration that Kisi's own pages set up, such as `active_directory_user_import`.
    AddIntegration(gifts::NewIntegration),
    /// The person follows the invitation.
    SignUp {
        email: String,
    },
    LockOnline {
        lock_id: i64,
        online: bool,
    },
    LockDownLock {
        lock_id: i64,
        locked_down: bool,
    },
}

/// Makes it.
pub async fn change(Extracted(shared): Extracted<Shared>, Json(change): Json<Change>) -> Response {
    let mut state = shared.lock();
    let mut events = Vec::new();
    let answer = apply(&mut state, change, &mut events);
    state.dirty = true;
    shared.changed.notify_one();
    drop(state);
    for event in events {
        let _ = shared.events.send(event);
    }
    match answer {
        Ok(value) => Json(value).into_response(),
        Err(why) => refused(why),
    }
}

fn apply(
    state: &mut State,
    change: Change,
    events: &mut Vec<crate::rows::EventRow>,
) -> Result<serde_json::Value, String> {
    let now = state.now();
    match change {
        Change::AddAssignment {
            group_id,
            email,
            user_id,
            by,
            valid_from,
            valid_until,
        } => {
            let group = state.world.groups.get(&group_id).ok_or("no such group")?;
            let organization_id = group.organization_id;
            let owner = state
                .world
                .organizations
                .get(&organization_id)
                .and_then(|o| o.user_id);
            let user = match (user_id, email) {
                (Some(id), _) => id,
                (None, Some(email)) => match state.world.user_by_email(organization_id, &email) {
                    Some(user) => user.id,
                    None => new_user(state, organization_id, &email, now),
                },
                _ => return Err("one of `user_id` and `email` is expected".into()),
            };
            let id = state.world.next_id();
            let row = Assignment {
                id,
                organization_id,
                role_id: "group_basic".into(),
                notify: false,
                assignee: Assignee::User(user),
                applies_to: Target::Group(group_id),
                valid_from,
                valid_until,
                created_by_type: Some("User".into()),
                created_by_id: by.or(owner),
                created_at: now,
                updated_at: now,
            };
            state.world.insert_assignment(row);
            told(
                state,
                by.or(owner),
                "role_assignment.create",
                id,
                now,
                events,
            );
            Ok(json!({ "assignment_id": id, "user_id": user }))
        }
        Change::RemoveAssignment { assignment_id, by } => {
            let row = state
                .world
                .remove_assignment(assignment_id)
                .ok_or("no such assignment")?;
            let owner = state
                .world
                .organizations
                .get(&row.organization_id)
                .and_then(|o| o.user_id);
            told(
                state,
                by.or(owner),
                "role_assignment.destroy",
                assignment_id,
                now,
                events,
            );
            Ok(json!({ "assignment_id": assignment_id }))
        }
        Change::SetWindow {
            assignment_id,
            valid_from,
            valid_until,
            by,
        } => {
            let row = state
                .world
                .assignments
                .get_mut(&assignment_id)
                .ok_or("no such assignment")?;
            row.valid_from = valid_from;
            row.valid_until = valid_until;
            row.updated_at = now;
            let organization = row.organization_id;
            let owner = state
                .world
                .organizations
                .get(&organization)
                .and_then(|o| o.user_id);
            told(
                state,
                by.or(owner),
                "role_assignment.update",
                assignment_id,
                now,
                events,
            );
            Ok(json!({ "assignment_id": assignment_id }))
        }
        Change::DeleteGroup { group_id } => {
            let rights = state.settings.deleted_rights;
            let gone = state.world.remove_group(group_id, rights);
            gone.ok_or("no such group")?;
            Ok(json!({ "group_id": group_id }))
        }
        Change::DeleteUser { user_id } => {
            let rights = state.settings.deleted_rights;
            let gone = state.world.remove_user(user_id, rights);
            gone.ok_or("no such user")?;
            Ok(json!({ "user_id": user_id }))
        }
        Change::SuspendUser { user_id, suspended } => {
            let user = state.world.users.get_mut(&user_id).ok_or("no such user")?;
            user.access_enabled = !suspended;
            Ok(json!({ "user_id": user_id }))
        }
        Change::RevokeKey { secret } => {
            let login = state
                .world
                .logins
                .values_mut()
                .find(|login| login.secret == secret);
            let login = login.ok_or("no such key")?;
            login.revoked = true;
            Ok(json!({ "login_id": login.id }))
        }
        Change::Demote { user_id } => {
            let rows: Vec<i64> = state
                .world
                .assignments_of(Assignee::User(user_id))
                .filter(|row| matches!(row.applies_to, Target::Organization(_)))
                .map(|row| row.id)
                .collect();
            for row in &rows {
                state.world.remove_assignment(*row);
            }
            Ok(json!({ "removed": rows }))
        }
        Change::GiveRight(right) => gifts::right(&mut state.world, right, now),
        Change::AddLink(link) => gifts::link(&mut state.world, link, now),
        Change::AddIntegration(new) => gifts::integration(&mut state.world, new, now),
        Change::SignUp { email } => {
            let users = state.world.users.values_mut();
            let mut known = users.filter(|user| user.email.eq_ignore_ascii_case(&email));
            let user = known.next().ok_or("no such user")?;
            user.confirmed = true;
            user.updated_at = now;
            Ok(json!({ "user_id": user.id }))
        }
        Change::LockOnline { lock_id, online } => {
            let lock = state.world.locks.get_mut(&lock_id).ok_or("no such lock")?;
            lock.online = Some(online);
            Ok(json!({ "lock_id": lock_id }))
        }
        Change::LockDownLock {
            lock_id,
            locked_down,
        } => {
            let lock = state.world.locks.get_mut(&lock_id).ok_or("no such lock")?;
            lock.locked_down_since = locked_down.then_some(now);
            Ok(json!({ "lock_id": lock_id }))
        }
    }
}

fn new_user(state: &mut State, organization_id: i64, email: &str, now: Timestamp) -> i64 {
    let id = state.world.next_id();
    let member_id = state.world.next_id();
    state.world.insert_user(User {
        id,
        member_id,
        organization_id,
        email: email.to_owned(),
        name: email.split('@').next().unwrap_or_default().to_owned(),
        image: None,
        metadata: Map::new(),
        notes: None,
        access_enabled: true,
        password_flow_enabled: true,
        confirmed: true,
        last_accessed_at: None,
        created_at: now,
        updated_at: now,
    });
    id
}

fn told(
    state: &mut State,
    by: Option<i64>,
    kind: &str,
    assignment_id: i64,
    now: Timestamp,
    events: &mut Vec<crate::rows::EventRow>,
) {
    let Some(caller) = by.and_then(|id| auth::caller_of(&state.world, id, None, now)) else {
        return;
    };
    let State {
        world, settings, ..
    } = state;
    let mut cx = Context {
        world,
        settings,
        now,
        caller,
        events: Vec::new(),
    };
    cx.emit(Happened {
        kind,
        object_type: "RoleAssignment",
        object_id: assignment_id,
        ..Happened::default()
    });
    routes::sweep(&mut cx);
    events.append(&mut cx.events);
}
