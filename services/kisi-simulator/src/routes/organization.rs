//! What is there: the organization, its places and doors, the roles, and who is calling.

use serde_json::{Value, json};

use crate::answer::{Answer, Outcome};
use crate::context::{Call, Context, Standing};
use crate::paging;
use crate::render;
use crate::rows::Lock;

pub fn list(cx: &mut Context<'_>) -> Outcome {
    let organization = render_current(cx)?;
    Ok(Answer::ok(&json!([organization])))
}

pub fn current(cx: &mut Context<'_>) -> Outcome {
    Ok(Answer::ok(&render_current(cx)?))
}

fn render_current(cx: &Context<'_>) -> Result<Value, Answer> {
    let row = cx.world.organizations.get(&cx.caller.organization_id);
    row.map(|row| render::organization(cx.world, row))
        .ok_or_else(Answer::not_found)
}

pub fn current_user(cx: &mut Context<'_>) -> Outcome {
    let row = cx
        .world
        .users
        .get(&cx.caller.user_id)
        .ok_or_else(Answer::unauthorized)?;
    Ok(Answer::ok(&render::current_user(cx.world, row)))
}

/// Nobody has favourites here, so asking for them finds nothing.
fn is_favorite(call: &Call) -> Option<bool> {
    call.parameters.boolean("favorite")
}

/// The field is there only for those who ask.
fn with_favorite(call: &Call, mut row: Value) -> Value {
    if call.parameters.text("favorite").is_some() {
        row["favorite"] = json!(false);
    }
    row
}

pub fn list_places(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let query = call
        .parameters
        .text("query")
        .unwrap_or_default()
        .to_lowercase();
    let rows = cx
        .world
        .places
        .values()
        .filter(|row| row.organization_id == cx.caller.organization_id)
        .filter(|row| match &cx.caller.standing {
            Standing::PlaceAdministrator(places) => places.contains(&row.id),
            _ => true,
        })
        .filter(|row| row.name.to_lowercase().contains(&query))
        .filter(|_| is_favorite(call) != Some(true))
        .collect();
    Ok(paging::page(call, cx.settings, rows, |row| {
        with_favorite(call, render::place(cx.world, row))
    }))
}

pub fn place(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let row = cx.world.places.get(&call.id());
    let row = row.filter(|row| row.organization_id == cx.caller.organization_id);
    row.map(|row| Answer::ok(&render::place(cx.world, row)))
        .ok_or_else(Answer::not_found)
}

/// The doors that the caller may see: all for those who manage, their own for members.
fn sees(cx: &Context<'_>, lock: &Lock) -> bool {
    if lock.organization_id != cx.caller.organization_id {
        return false;
    }
    match &cx.caller.standing {
        Standing::Owner | Standing::Administrator => true,
        Standing::PlaceAdministrator(places) if places.contains(&lock.place_id) => true,
        _ => cx
            .world
            .rights_of(cx.caller.user_id)
            .filter(|row| row.has_begun(cx.now) && !row.has_ended(cx.now))
            .any(|row| cx.world.is_for_lock(row, lock)),
    }
}

pub fn list_locks(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let query = call
        .parameters
        .text("query")
        .unwrap_or_default()
        .to_lowercase();
    let wanted = |name: &str| call.parameters.boolean(name);
    let rows = cx
        .world
        .locks
        .values()
        .filter(|row| sees(cx, row))
        .filter(|row| {
            call.parameters
                .integer("place_id")
                .is_none_or(|id| id == row.place_id)
        })
        .filter(|row| {
            call.parameters
                .integer("floor_id")
                .is_none_or(|id| Some(id) == row.floor_id)
        })
        .filter(|row| wanted("unlocked").is_none_or(|yes| yes == row.on_scheduled_unlock))
        .filter(|_| is_favorite(call) != Some(true))
        .filter(|row| wanted("configured").is_none_or(|yes| yes == row.configured))
        .filter(|row| wanted("online").is_none_or(|yes| Some(yes) == row.online))
        .filter(|row| {
            wanted("locked_down").is_none_or(|yes| yes == row.locked_down_since.is_some())
        })
        .filter(|row| row.name.to_lowercase().contains(&query))
        .collect();
    Ok(paging::page(call, cx.settings, rows, |row| {
        with_favorite(call, render::lock(cx.world, row))
    }))
}

pub fn lock(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let row = cx.world.locks.get(&call.id()).filter(|row| sees(cx, row));
    row.map(|row| Answer::ok(&render::lock(cx.world, row)))
        .ok_or_else(Answer::not_found)
}

/// The roles and what each applies to.
pub const ROLES: [(&str, &str, &str); 6] = [
    ("organization_owner", "Organization", "Owner"),
    (
        "organization_administrator",
        "Organization",
        "Administrator",
    ),
    ("organization_basic", "Organization", "Member"),
    ("place_administrator", "Place", "Place administrator"),
    ("group_manager", "Group", "Group manager"),
    ("group_basic", "Group", "Access"),
];

/// A few of Kisi's flags: what a mere member of the organization may not, and a group's member not
/// beyond the doors.
fn render_role(&(id, applies_to, name): &(&str, &str, &str)) -> Value {
    let manages = !id.ends_with("_basic");
    json!({
        "id": id, "resource_type": "Role", "applies_to": applies_to, "name": name,
        "description": null, "custom": false, "custom_role_id": null,
        "permissions": {
            "locks_unlock": id != "organization_basic",
            "users_write": manages && applies_to != "Group",
            "role_assignments_write": manages,
        },
    })
}

pub fn list_roles() -> Answer {
    Answer::ok(&Value::Array(ROLES.iter().map(render_role).collect()))
}

pub fn role(call: &Call) -> Outcome {
    let id = call.id.as_deref().unwrap_or_default();
    let role = ROLES.iter().find(|(known, _, _)| *known == id);
    role.map(|role| Answer::ok(&render_role(role)))
        .ok_or_else(Answer::not_found)
}
