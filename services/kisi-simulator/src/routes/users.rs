//! Users, and members, their deprecated twin with ids of its own.

use jiff::SignedDuration;
use serde_json::Value;

use crate::answer::{Answer, Outcome};
use crate::context::{Call, Context, Happened};
use crate::paging;
use crate::render;
use crate::rows::{Assignee, Target, User};
use crate::settings::{DuplicateUser, PatchMetadata};

/// Rows that the filters leave, in the caller's organization.
fn filtered<'a>(cx: &'a Context<'_>, call: &Call) -> Vec<&'a User> {
    let email = call.parameters.text("email");
    let has_email = |row: &User, email: &str| match cx.settings.email_by_case {
        true => row.email == email,
        false => row.email.to_lowercase() == email.to_lowercase(),
    };
    let query = call.parameters.text("query").map(str::to_lowercase);
    let milliseconds =
        |lag: u64| SignedDuration::from_millis(i64::try_from(lag).unwrap_or(i64::MAX));
    let lag = milliseconds(cx.settings.query_lag_ms);
    let email_lag = milliseconds(cx.settings.email_lag_ms);
    let of_target = |target: Target, user: i64| {
        cx.world
            .assignments_on(target)
            .any(|row| row.assignee == Assignee::User(user))
    };
    cx.world
        .users
        .values()
        .filter(|row| row.organization_id == cx.caller.organization_id)
        .filter(|row| cx.caller.is_admin() || row.id == cx.caller.user_id)
        .filter(|row| email.is_none_or(|email| has_email(row, email)))
        .filter(|row| email.is_none() || cx.now.duration_since(row.created_at) >= email_lag)
        .filter(|row| match &query {
            None => true,
            // The search lags behind a creation.
            Some(_) if cx.now.duration_since(row.created_at) < lag => false,
            Some(query) => [
                &row.email,
                &row.name,
                row.notes.as_ref().unwrap_or(&row.name),
            ]
            .iter()
            .any(|text| text.to_lowercase().contains(query)),
        })
        .filter(|row| {
            let wanted = call.parameters.user("user_id", cx.caller.user_id);
            wanted.is_none_or(|id| id == row.id)
        })
        .filter(|row| {
            call.parameters
                .integer("group_id")
                .is_none_or(|id| of_target(Target::Group(id), row.id))
        })
        .filter(|row| {
            call.parameters
                .integer("place_id")
                .is_none_or(|id| of_target(Target::Place(id), row.id))
        })
        .collect()
}

pub fn list(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let rows = filtered(cx, call);
    Ok(paging::page(call, cx.settings, rows, |row| {
        render::user(cx.world, row)
    }))
}

pub fn list_members(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let rows = filtered(cx, call);
    Ok(paging::page(call, cx.settings, rows, |row| {
        render::member(cx.world, row)
    }))
}

pub fn create(cx: &mut Context<'_>, call: &Call, wrapper: &str) -> Outcome {
    cx.caller.require_admin()?;
    let body = call.wrapped(wrapper);
    let email = body["email"].as_str().unwrap_or_default();
    if !email.contains('@') {
        return Err(Answer::unprocessable("email", "can't be blank or invalid"));
    }
    if cx
        .world
        .user_by_email(cx.caller.organization_id, email)
        .is_some()
    {
        return Err(match cx.settings.duplicate_users {
            DuplicateUser::Conflict => Answer::conflict("The user already exists."),
            DuplicateUser::Unprocessable => {
                Answer::unprocessable("email", "has already been taken")
            }
        });
    }
    let id = cx.world.next_id();
    let member_id = cx.world.next_id();
    let mut row = User {
        id,
        member_id,
        organization_id: cx.caller.organization_id,
        email: email.to_owned(),
        name: String::new(),
        image: None,
        metadata: serde_json::Map::new(),
        notes: None,
        access_enabled: true,
        password_flow_enabled: true,
        confirmed: body["confirm"] == true && body["send_emails"] == false,
        last_accessed_at: None,
        created_at: cx.now,
        updated_at: cx.now,
    };
    change(&mut row, body, cx.settings.patch_metadata);
    let sends = body["send_emails"].as_bool().unwrap_or(true);
    let answer = match wrapper {
        "member" => render::member(cx.world, &row),
        _ => render::user(cx.world, &row),
    };
    told(cx, &format!("{wrapper}.create"), &row);
    cx.world.insert_user(row);
    if sends {
        cx.mail("invitation", id, None);
    }
    Ok(Answer::ok(&answer))
}

/// By the id of a user, or of a member.
fn find(cx: &Context<'_>, call: &Call) -> Result<User, Answer> {
    let id = call.id();
    let of_members = call.operation.template.starts_with("/members");
    let row = if of_members {
        cx.world.users.values().find(|row| row.member_id == id)
    } else {
        cx.world.users.get(&id)
    };
    row.filter(|row| row.organization_id == cx.caller.organization_id)
        .filter(|row| cx.caller.is_admin() || row.id == cx.caller.user_id)
        .cloned()
        .ok_or_else(Answer::not_found)
}

pub fn fetch(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let row = find(cx, call)?;
    Ok(Answer::ok(&render::user(cx.world, &row)))
}

pub fn fetch_member(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let row = find(cx, call)?;
    Ok(Answer::ok(&render::member(cx.world, &row)))
}

pub fn update(cx: &mut Context<'_>, call: &Call, wrapper: &str) -> Outcome {
    let mut row = find(cx, call)?;
    cx.caller.require_admin()?;
    change(&mut row, call.wrapped(wrapper), cx.settings.patch_metadata);
    row.updated_at = cx.now;
    told(cx, &format!("{wrapper}.update"), &row);
    cx.world.insert_user(row);
    Ok(Answer::no_content())
}

pub fn delete(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let row = find(cx, call)?;
    cx.caller.require_admin()?;
    let owner = cx
        .world
        .organizations
        .get(&row.organization_id)
        .and_then(|o| o.user_id);
    if owner == Some(row.id) {
        return Err(Answer::unprocessable("base", "The owner cannot be deleted"));
    }
    let rights = cx.settings.deleted_rights;
    let Some((row, gone)) = cx.world.remove_user(row.id, rights) else {
        return Err(Answer::not_found());
    };
    for assignment in gone {
        super::assignments::told(cx, "role_assignment.destroy", &assignment);
    }
    told(cx, "user.destroy", &row);
    Ok(Answer::no_content())
}

fn change(row: &mut User, body: &Value, patch_metadata: PatchMetadata) {
    if let Some(name) = body["name"].as_str() {
        row.name = name.to_owned();
    }
    if let Some(image) = body.get("image") {
        row.image = image.as_str().map(str::to_owned);
    }
    if let Some(notes) = body.get("notes") {
        row.notes = notes.as_str().map(str::to_owned);
    }
    if let Some(metadata) = body["metadata"].as_object() {
        if patch_metadata == PatchMetadata::Replace {
            row.metadata.clear();
        }
        row.metadata.extend(metadata.clone());
    }
    if let Some(enabled) = body["access_enabled"].as_bool() {
        row.access_enabled = enabled;
    }
    if let Some(enabled) = body["password_flow_enabled"].as_bool() {
        row.password_flow_enabled = enabled;
    }
}

fn told(cx: &mut Context<'_>, kind: &str, row: &User) {
    cx.emit(Happened {
        kind,
        object_type: "User",
        object_id: row.id,
        object_name: &row.name,
        ..Happened::default()
    });
}
