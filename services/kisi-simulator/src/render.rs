//! Rows as Kisi prints them: mirror fields, counts and references filled in.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::rows::{
    Assignee, Assignment, EventRow, EventSet, Group, GroupLink, GroupLock, Integration, Lock,
    Login, LoginKind, Organization, Place, Target, User,
};
use crate::world::World;

/// Whole seconds and `Z`, as in Kisi's samples.
pub fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn optional(at: Option<Timestamp>) -> Option<String> {
    at.map(seconds)
}

pub fn organization_ref(world: &World, id: i64) -> Value {
    world.organizations.get(&id).map_or(Value::Null, |row| {
        json!({"id": row.id, "resource_type": "Organization", "name": row.name, "domain": row.domain})
    })
}

pub fn place_ref(world: &World, id: i64) -> Value {
    world.places.get(&id).map_or(
        Value::Null,
        |row| json!({"id": row.id, "resource_type": "Place", "name": row.name}),
    )
}

pub fn group_ref(world: &World, id: i64) -> Value {
    world.groups.get(&id).map_or(
        Value::Null,
        |row| json!({"id": row.id, "resource_type": "Group", "name": row.name}),
    )
}

pub fn user_ref(world: &World, id: i64) -> Value {
    world.users.get(&id).map_or(
        Value::Null,
        |row| json!({"id": row.id, "resource_type": "User", "email": row.email, "name": row.name}),
    )
}

fn assignee_ref(world: &World, assignee: Assignee) -> Value {
    match assignee {
        Assignee::User(id) if world.unnamed.contains(&id) => Value::Null,
        Assignee::User(id) => user_ref(world, id),
        Assignee::Team(id) => world.teams.get(&id).map_or(
            Value::Null,
            |row| json!({"id": row.id, "resource_type": "Team", "name": row.name}),
        ),
        Assignee::Guest(id) => world.guests.get(&id).map_or(Value::Null, |row| {
            json!({"id": row.id, "resource_type": "Guest", "name": row.name,
                   "email": row.email, "phone_number": row.phone_number})
        }),
    }
}

pub fn organization(world: &World, row: &Organization) -> Value {
    let places = world
        .places
        .values()
        .filter(|place| place.organization_id == row.id)
        .count();
    json!({
        "id": row.id, "resource_type": "Organization", "name": row.name, "domain": row.domain,
        "logo": null, "address": null, "description": null,
        "device_logins_expire_after": row.device_logins_expire_after, "places_count": places,
        "scim_enabled": false, "sso_flow_enabled": false, "sso_expiration_override_enabled": false,
        "sso_expiration_override": null, "metadata": null, "time_zone": row.time_zone,
        "web_authentication_api_enabled": false, "apple_pass_enabled": false,
        "created_at": seconds(row.created_at), "updated_at": seconds(row.updated_at),
        "user_id": row.user_id, "transfer_to_id": null, "image": null, "color": null,
    })
}

pub fn place(world: &World, row: &Place) -> Value {
    let locks = world
        .locks
        .values()
        .filter(|lock| lock.place_id == row.id)
        .count();
    let integrations = world
        .integrations
        .values()
        .filter(|found| found.place_id == Some(row.id))
        .count();
    let members = world.assignments_on(Target::Place(row.id)).count();
    json!({
        "id": row.id, "resource_type": "Place", "name": row.name, "description": row.description,
        "created_at": seconds(row.created_at), "updated_at": seconds(row.updated_at),
        "latitude": row.latitude, "longitude": row.longitude, "address": row.address, "image": null,
        "time_zone": row.time_zone, "tz_time_zone": row.time_zone, "locks_count": locks,
        "integrations_count": integrations, "locked_down": row.locked_down_since.is_some(),
        "locked_down_since": optional(row.locked_down_since), "occupancy_rate": null,
        "organization_id": row.organization_id,
        "organization": organization_ref(world, row.organization_id),
        "color": null, "logo": null, "user_id": null, "members_count": members,
    })
}

pub fn lock(world: &World, row: &Lock) -> Value {
    let place = world
        .places
        .get(&row.place_id)
        .map_or(Value::Null, |place| {
            json!({"id": place.id, "name": place.name,
               "latitude": place.latitude, "longitude": place.longitude})
        });
    json!({
        "id": row.id, "resource_type": "Lock", "created_at": seconds(row.created_at),
        "updated_at": seconds(row.updated_at), "configured": row.configured,
        "description": row.description, "first_to_arrive_required_until": null,
        "first_to_arrive_satisfied": true, "latitude": row.latitude,
        "locked_down": row.locked_down_since.is_some(),
        "locked_down_since": optional(row.locked_down_since), "longitude": row.longitude,
        "name": row.name, "on_scheduled_unlock": row.on_scheduled_unlock, "online": row.online,
        "open": false, "order_id": null, "unlocked": row.on_scheduled_unlock,
        "geofence_restriction_enabled": row.geofence_restriction_enabled,
        "geofence_restriction_radius": row.geofence_restriction_radius,
        "reader_restriction_enabled": row.reader_restriction_enabled,
        "time_restriction_enabled": row.time_restriction_enabled,
        "time_restriction_time_zone": null, "place_id": row.place_id, "place": place,
        "floor_id": row.floor_id, "groups_count": world.groups_of_lock(row.id).count(),
        "unlocked_until": null,
    })
}

pub fn group(world: &World, row: &Group) -> Value {
    let mut users: Vec<i64> = world
        .assignments_on(Target::Group(row.id))
        .filter_map(|assignment| assignment.assignee.user())
        .collect();
    users.sort_unstable();
    users.dedup();
    let locks = world
        .group_locks
        .values()
        .filter(|link| link.group_id == row.id)
        .count();
    let rules = &row.rules;
    let mut value = json!({
        "id": row.id, "resource_type": "Group", "name": row.name, "description": row.description,
        "created_at": seconds(row.created_at), "updated_at": seconds(row.updated_at),
        "geofence_restriction_enabled": rules.geofence_restriction_enabled,
        "geofence_restriction_radius": rules.geofence_restriction_radius,
        "primary_device_restriction_enabled": rules.primary_device_restriction_enabled,
        "managed_device_restriction_enabled": rules.managed_device_restriction_enabled,
        "reader_restriction_enabled": rules.reader_restriction_enabled,
        "time_restriction_enabled": rules.time_restriction_enabled,
        "tap_to_access_restriction_enabled": rules.tap_to_access_restriction_enabled,
        "login_enabled": rules.login_enabled, "users_count": users.len(), "locks_count": locks,
        "elevator_stops_count": 0, "place_id": row.place_id,
        "time_restriction_time_zone": null, "members_count": users.len(),
    });
    // `place` is absent, not null, for an organization group.
    if let Some(place_id) = row.place_id {
        value["place"] = place_ref(world, place_id);
    }
    value
}

pub fn group_lock(world: &World, row: &GroupLock) -> Value {
    let lock = world.locks.get(&row.lock_id);
    let place_id = lock.map(|lock| lock.place_id);
    json!({
        "id": row.id, "resource_type": "GroupLock", "created_at": seconds(row.created_at),
        "updated_at": seconds(row.created_at), "group_id": row.group_id,
        "group": group_ref(world, row.group_id), "lock_id": row.lock_id,
        "lock": lock.map(|lock| json!({"id": lock.id, "description": lock.description, "name": lock.name})),
        "place_id": place_id, "place": place_id.map(|id| place_ref(world, id)),
    })
}

fn groups_of_user(world: &World, id: i64) -> usize {
    let rows = world.assignments_of(Assignee::User(id));
    rows.filter(|row| matches!(row.applies_to, Target::Group(_)))
        .count()
}

pub fn user(world: &World, row: &User) -> Value {
    json!({
        "id": row.id, "resource_type": "User", "name": row.name, "email": row.email,
        "created_at": seconds(row.created_at), "updated_at": seconds(row.updated_at),
        "metadata": row.metadata, "image": row.image, "otp_required_for_login": false,
        "password_flow_enabled": row.password_flow_enabled, "access_enabled": row.access_enabled,
        "last_accessed_at": optional(row.last_accessed_at), "scim_access_enabled": true,
        "notes": row.notes, "organization_id": row.organization_id, "confirmed": row.confirmed,
        "groups_count": groups_of_user(world, row.id),
    })
}

pub fn current_user(world: &World, row: &User) -> Value {
    let primary = world
        .logins
        .values()
        .any(|login| login.user_id == row.id && login.primary);
    json!({
        "id": row.id, "resource_type": "User", "name": row.name, "email": row.email,
        "image": row.image, "locale": "en", "notifications_unread_count": 0,
        "otp_required_for_login": false, "otp_enabled_at": null, "primary_login_exists": primary,
        "created_at": seconds(row.created_at), "updated_at": seconds(row.updated_at),
        "announcements_last_seen_at": null, "last_read_at": null, "notes": row.notes,
        "organization_id": row.organization_id,
        "organization": organization_ref(world, row.organization_id),
    })
}

pub fn member(world: &World, row: &User) -> Value {
    let organization_role = world
        .assignments_of(Assignee::User(row.id))
        .find(|assignment| matches!(assignment.applies_to, Target::Organization(_)))
        .map_or("organization_basic", |assignment| {
            assignment.role_id.as_str()
        });
    json!({
        "id": row.member_id, "resource_type": "Member", "name": row.name, "image": row.image,
        "password_flow_enabled": row.password_flow_enabled, "access_enabled": row.access_enabled,
        "scim_access_enabled": true, "last_accessed_at": optional(row.last_accessed_at),
        "created_at": seconds(row.created_at), "updated_at": seconds(row.updated_at),
        "role_id": organization_role, "notes": row.notes, "metadata": row.metadata,
        "organization_id": row.organization_id, "user_id": row.id,
        "user": {"id": row.id, "resource_type": "User", "email": row.email, "name": row.name,
                 "otp_required_for_login": false},
        "place_id": null, "shares_count": groups_of_user(world, row.id), "confirmed": row.confirmed,
    })
}

pub fn assignment(world: &World, row: &Assignment) -> Value {
    let assignee = assignee_ref(world, row.assignee);
    let (scope, applies_to) = match row.applies_to {
        Target::Organization(id) => ("organization", organization_ref(world, id)),
        Target::Place(id) => ("place", place_ref(world, id)),
        Target::Group(id) => ("group", group_ref(world, id)),
    };
    let only = |kind: &str| (row.assignee.kind() == kind).then(|| row.assignee.id());
    let by_user = row.created_by_type.as_deref() == Some("User");
    let mut value = json!({
        "id": row.id, "resource_type": "RoleAssignment", "created_at": seconds(row.created_at),
        "updated_at": seconds(row.updated_at), "role_id": row.role_id, "notify": row.notify,
        "applies_to_type": row.applies_to.kind(), "applies_to_id": row.applies_to.id(),
        "applies_to": applies_to, "assignee_type": row.assignee.kind(),
        "assignee_id": row.assignee.id(), "assignee": assignee,
        "created_by_type": row.created_by_type, "created_by_id": row.created_by_id,
        "user_id": only("User"), "assignee_team_id": only("Team"), "guest_id": only("Guest"),
        "issued_by_id": row.created_by_id.filter(|_| by_user), "type": scope, "scope": scope,
    });
    let reference = match row.assignee {
        Assignee::User(_) => "user",
        Assignee::Team(_) => "assignee_team",
        Assignee::Guest(_) => "guest",
    };
    value[reference] = assignee;
    value[format!("{scope}_id")] = json!(row.applies_to.id());
    value[scope] = applies_to;
    if scope == "group" {
        // Windows are printed as precisely as they were given.
        value["valid_from"] = json!(row.valid_from.map(|at| at.to_string()));
        value["valid_until"] = json!(row.valid_until.map(|at| at.to_string()));
    }
    value
}

pub fn login(world: &World, row: &Login) -> Value {
    json!({
        "id": row.id, "created_at": seconds(row.created_at), "updated_at": seconds(row.updated_at),
        "type": match row.kind { LoginKind::Api => "api", LoginKind::Device => "device" },
        "name": row.name, "primary": row.primary, "expire": row.expire,
        "last_used_at": optional(row.last_used_at), "device_brand": row.device_brand,
        "device_model": row.device_model, "os_name": row.os_name, "user_id": row.user_id,
        "user": user_ref(world, row.user_id), "app": {"name": null, "version": null},
        "user_agent": {"name": null, "version": null},
        "device": {"brand": row.device_brand, "model": row.device_model},
        "os": {"name": row.os_name, "version": null},
    })
}

/// The one answer that shows the secret.
pub fn login_created(world: &World, row: &Login) -> Value {
    let mut value = login(world, row);
    let user = world.users.get(&row.user_id);
    let primary = world
        .logins
        .values()
        .any(|other| other.user_id == row.user_id && other.primary);
    value["scram_credentials"] =
        json!({"phone_key": row.phone_key, "online_certificate": row.online_certificate});
    value["secret"] = json!(row.secret);
    value["authentication_token"] = json!(row.secret);
    value["has_primary_device"] = json!(primary);
    value["email"] = json!(user.map(|user| user.email.clone()));
    value["notifications_unread_count"] = json!(0);
    value["otp_required_for_login"] = json!(false);
    value["otp_enabled_at"] = Value::Null;
    value["image"] = json!(user.and_then(|user| user.image.clone()));
    value["primary_login_exists"] = json!(primary);
    value
}

/// The list form; `event_webhook` adds what only the single form shows.
pub fn integration(world: &World, row: &Integration) -> Value {
    let mut value = json!({
        "id": row.id, "resource_type": "Integration", "name": row.name, "type": row.kind,
        "enabled": row.enabled, "disabled_due_to_error": row.disabled_due_to_error_at.is_some(),
        "disabled_due_to_error_at": optional(row.disabled_due_to_error_at),
        "created_at": seconds(row.created_at), "updated_at": seconds(row.updated_at),
        "organization_id": row.organization_id,
        "organization": organization_ref(world, row.organization_id), "place_id": row.place_id,
    });
    if let Some(place_id) = row.place_id {
        value["place"] = place_ref(world, place_id);
    }
    value
}

pub fn event_webhook(world: &World, row: &Integration) -> Value {
    let mut value = integration(world, row);
    value["url"] = json!(row.url);
    value["enabled_events"] = json!(row.enabled_events);
    value
}

/// As in event sets.
pub fn event(row: &EventRow) -> Value {
    json!({
        "uuid": row.uuid, "type": row.kind,
        "actor_type": row.actor_id.map(|_| "User"), "actor_id": row.actor_id,
        "actor_name": row.actor_name, "actor_email": row.actor_email,
        "authenticated_by_type": row.login_id.map(|_| "Login"), "authenticated_by_id": row.login_id,
        "authorized_by_type": null, "authorized_by_id": null,
        "authorized_by_role_id": row.authorized_by_role_id, "object_type": row.object_type,
        "object_id": row.object_id, "object_name": row.object_name,
        "action": row.kind.rsplit('.').next(), "created_at": seconds(row.created_at),
        "message": null, "success": row.success, "code": row.error_code,
        "sequence": row.sequence.to_string(), "organization_id": row.organization_id,
        "place_id": row.place_id, "error_code": row.error_code, "error_message": row.error_message,
        "details": {}, "via": {},
    })
}

/// As delivered to webhooks: the fields of Kisi's printed sample.
pub fn webhook_event(row: &EventRow) -> Value {
    json!({
        "uuid": row.uuid, "type": row.kind, "actor_type": row.actor_id.map(|_| "User"),
        "actor_id": row.actor_id, "actor_name": row.actor_name, "object_type": row.object_type,
        "object_id": row.object_id, "object_name": row.object_name,
        "organization_id": row.organization_id, "place_id": row.place_id, "success": row.success,
        "error_code": row.error_code, "error_message": row.error_message,
        "created_at": seconds(row.created_at),
    })
}

/// Without its events.
pub fn event_set(row: &EventSet, status: &str) -> Value {
    let mut value = json!({
        "id": row.id, "created_at": seconds(row.created_at), "status": status,
        "interval": row.interval, "cursor": null,
    });
    for name in [
        "event_actor_id",
        "event_actor_type",
        "event_authenticated_by_id",
        "event_authenticated_by_type",
        "event_object_id",
        "event_object_type",
        "event_place_id",
        "event_success",
        "event_sequence",
        "event_type",
        "event_uuid",
        "place_id",
    ] {
        value[name] = row.filters.get(name).cloned().unwrap_or(Value::Null);
    }
    value
}

pub fn group_link(world: &World, row: &GroupLink) -> Value {
    let mut value = json!({
        "id": row.id, "resource_type": "GroupLink", "name": row.name, "email": row.email,
        "phone": row.phone, "last_used_at": null, "link_enabled": row.link_enabled,
        "quick_response_code_type": null, "valid_from": optional(row.valid_from),
        "valid_until": optional(row.valid_until), "created_at": seconds(row.created_at),
        "updated_at": seconds(row.created_at), "group_id": row.group_id,
        "group": group_ref(world, row.group_id),
        "created_by_type": row.created_by_id.map(|_| "User"), "created_by_id": row.created_by_id,
        "issued_by_id": row.created_by_id,
    });
    if let Some(id) = row.created_by_id.filter(|id| world.users.contains_key(id)) {
        value["created_by"] = user_ref(world, id);
        value["issued_by"] = user_ref(world, id);
    }
    value
}
