//! Role assignments: who may open what, and until when.

use jiff::Timestamp;
use serde_json::Value;

use crate::answer::{Answer, Outcome};
use crate::context::{Call, Context, Happened};
use crate::paging::{self, Listed};
use crate::render;
use crate::routes::organization::ROLES;
use crate::rows::{Assignee, Assignment, Target};
use crate::settings::{DuplicateAssignment, ExpiredListing, PatchWindow};

/// A row with the name it is sorted by.
struct Named<'a> {
    row: &'a Assignment,
    name: String,
}

impl Listed for Named<'_> {
    fn id(&self) -> i64 {
        self.row.id
    }

    fn key(&self, _sort: &str) -> String {
        self.name.clone()
    }
}

/// Rows past their end are gone for good where Kisi deletes them.
pub fn sweep(cx: &mut Context<'_>) {
    if cx.settings.expired_listing == ExpiredListing::Deleted {
        let now = cx.now;
        let ended: Vec<i64> = cx
            .world
            .assignments
            .values()
            .filter(|row| row.has_ended(now))
            .map(|row| row.id)
            .collect();
        for id in ended {
            cx.world.remove_assignment(id);
        }
    }
}

fn sees(cx: &Context<'_>, row: &Assignment) -> bool {
    row.organization_id == cx.caller.organization_id
        && (cx.caller.may_manage(cx.world, row.applies_to)
            || row.assignee == Assignee::User(cx.caller.user_id))
        && !(cx.hides_expired() && row.has_ended(cx.now))
}

pub fn list(cx: &mut Context<'_>, call: &Call) -> Outcome {
    sweep(cx);
    let number = |name: &str| call.parameters.integer(name);
    let assignee = call
        .parameters
        .text("assignee_type")
        .and_then(|kind| Assignee::parse(kind, number("assignee_id").unwrap_or(-1)));
    let target = call
        .parameters
        .text("applies_to_type")
        .and_then(|kind| Target::parse(kind, number("applies_to_id").unwrap_or(-1)));
    let user = call.parameters.user("user_id", cx.caller.user_id);
    let role = call.parameters.text("role_id");
    let scope = call.parameters.text("scope");
    let query = call
        .parameters
        .text("query")
        .unwrap_or_default()
        .to_lowercase();
    let name_of = |row: &Assignment| {
        let user = row.assignee.user().and_then(|id| cx.world.users.get(&id));
        user.map(|user| user.name.clone()).unwrap_or_default()
    };
    let rows: Vec<Named<'_>> = cx
        .world
        .assignments
        .values()
        .filter(|row| sees(cx, row))
        .filter(|row| assignee.is_none_or(|wanted| wanted == row.assignee))
        .filter(|row| target.is_none_or(|wanted| wanted == row.applies_to))
        .filter(|row| user.is_none_or(|wanted| row.assignee == Assignee::User(wanted)))
        .filter(|row| {
            number("group_id").is_none_or(|wanted| row.applies_to == Target::Group(wanted))
        })
        .filter(|row| {
            number("place_id").is_none_or(|wanted| row.applies_to == Target::Place(wanted))
        })
        .filter(|row| role.is_none_or(|wanted| wanted == row.role_id))
        .filter(|row| match scope {
            None => true,
            Some("team") => matches!(row.assignee, Assignee::Team(_)),
            Some(scope) => row.applies_to.kind().eq_ignore_ascii_case(scope),
        })
        .map(|row| Named {
            row,
            name: name_of(row),
        })
        .filter(|named| query.is_empty() || named.name.to_lowercase().contains(&query))
        .collect();
    let rows = rows.iter().collect();
    Ok(paging::page(call, cx.settings, rows, |named| {
        render::assignment(cx.world, named.row)
    }))
}

fn find(cx: &Context<'_>, id: i64) -> Result<Assignment, Answer> {
    let row = cx.world.assignments.get(&id).filter(|row| sees(cx, row));
    row.cloned().ok_or_else(Answer::not_found)
}

pub fn fetch(cx: &mut Context<'_>, call: &Call) -> Outcome {
    sweep(cx);
    let row = find(cx, call.id())?;
    Ok(Answer::ok(&render::assignment(cx.world, &row)))
}

pub fn create(cx: &mut Context<'_>, call: &Call) -> Outcome {
    sweep(cx);
    let body = call.wrapped("role_assignment");
    let number = |name: &str| body[name].as_i64();
    // The current form, or the deprecated one that the guides still show.
    let target = match body["applies_to_type"].as_str() {
        Some(kind) => Target::parse(kind, number("applies_to_id").unwrap_or(-1)),
        None => number("group_id")
            .map(Target::Group)
            .or_else(|| number("place_id").map(Target::Place))
            .or_else(|| number("organization_id").map(Target::Organization)),
    };
    let assignee = match body["assignee_type"].as_str() {
        Some(kind) => Assignee::parse(kind, number("assignee_id").unwrap_or(-1)),
        None => number("user_id").map(Assignee::User),
    };
    let (Some(target), Some(assignee)) = (target, assignee) else {
        return Err(Answer::unprocessable("base", "must say who gets what"));
    };
    let role_id = body["role_id"].as_str().unwrap_or_default();
    let fits = ROLES
        .iter()
        .any(|(id, applies_to, _)| *id == role_id && *applies_to == target.kind());
    if !fits {
        return Err(Answer::unprocessable("role_id", "does not apply to this"));
    }
    let (valid_from, valid_until) = window(cx, body, target, None)?;
    if !cx.has_target(target) || !cx.has_assignee(assignee) {
        return Err(Answer::not_found());
    }
    if !cx.caller.may_manage(cx.world, target) {
        return Err(Answer::forbidden());
    }
    let same: Vec<_> = cx
        .world
        .assignments_of(assignee)
        .filter(|row| row.applies_to == target && row.role_id == role_id)
        .map(|row| (row.valid_from, row.valid_until))
        .collect();
    let same_window = same.contains(&(valid_from, valid_until));
    if !same.is_empty() {
        match cx.settings.duplicate_assignments {
            DuplicateAssignment::NewRow => {}
            DuplicateAssignment::NewRowIfWindowDiffers if !same_window => {}
            DuplicateAssignment::Unprocessable => {
                return Err(Answer::unprocessable("base", "has already been assigned"));
            }
            _ => return Err(Answer::conflict("The role assignment already exists.")),
        }
    }
    let id = cx.world.next_id();
    let notify = body["notify"]
        .as_bool()
        .unwrap_or(cx.settings.notify_default);
    let row = Assignment {
        id,
        organization_id: cx.caller.organization_id,
        role_id: role_id.to_owned(),
        notify,
        assignee,
        applies_to: target,
        valid_from,
        valid_until,
        created_by_type: Some("User".into()),
        created_by_id: Some(cx.caller.user_id),
        created_at: cx.now,
        updated_at: cx.now,
    };
    let answer = render::assignment(cx.world, &row);
    told(cx, "role_assignment.create", &row);
    cx.world.insert_assignment(row);
    if let (true, Assignee::User(user)) = (notify, assignee) {
        cx.mail("role_assignment_created", user, Some(id));
    }
    Ok(Answer::ok(&answer))
}

/// The window that a body asks for; of what it leaves out, what `held` has.
fn window(
    cx: &Context<'_>,
    body: &Value,
    target: Target,
    held: Option<&Assignment>,
) -> Result<(Option<Timestamp>, Option<Timestamp>), Answer> {
    let read = |name: &str, held: Option<Timestamp>| match body.get(name) {
        None => Ok(held),
        Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok())
            .map(Some)
            .ok_or_else(|| Answer::unprocessable(name, "is not a time")),
    };
    let from = read("valid_from", held.and_then(|row| row.valid_from))?;
    let until = read("valid_until", held.and_then(|row| row.valid_until))?;
    let asked = body.get("valid_from").is_some_and(|v| !v.is_null())
        || body.get("valid_until").is_some_and(|v| !v.is_null());
    if asked && !matches!(target, Target::Group(_)) {
        return Err(Answer::unprocessable("valid_until", "is for groups only"));
    }
    if let Some(until) = until.filter(|_| body.get("valid_until").is_some())
        && (until <= cx.now || from.is_some_and(|from| until <= from))
    {
        return Err(Answer::unprocessable("valid_until", "must be later"));
    }
    Ok((from, until))
}

pub fn update(cx: &mut Context<'_>, call: &Call) -> Outcome {
    sweep(cx);
    let mut row = find(cx, call.id())?;
    if !cx.caller.may_manage(cx.world, row.applies_to) {
        return Err(Answer::forbidden());
    }
    let body = call.wrapped("role_assignment");
    if let Some(role) = body["role_id"].as_str() {
        let kind = row.applies_to.kind();
        if !ROLES
            .iter()
            .any(|(id, applies_to, _)| *id == role && *applies_to == kind)
        {
            return Err(Answer::unprocessable("role_id", "does not apply to this"));
        }
        row.role_id = role.to_owned();
    }
    let moves = body.get("valid_from").is_some() || body.get("valid_until").is_some();
    if moves {
        match cx.settings.patch_window {
            PatchWindow::Refuse => {
                return Err(Answer::unprocessable("valid_until", "cannot be changed"));
            }
            PatchWindow::Ignore => {}
            PatchWindow::Apply => {
                (row.valid_from, row.valid_until) = window(cx, body, row.applies_to, Some(&row))?;
            }
        }
    }
    let notify = body["notify"].as_bool().unwrap_or(row.notify);
    row.notify = notify;
    row.updated_at = cx.now;
    told(cx, "role_assignment.update", &row);
    if let (true, Assignee::User(user)) = (notify, row.assignee) {
        cx.mail("role_assignment_updated", user, Some(row.id));
    }
    cx.world.insert_assignment(row);
    Ok(Answer::no_content())
}

pub fn delete(cx: &mut Context<'_>, call: &Call) -> Outcome {
    sweep(cx);
    // Out of a list is not gone: a hidden row can still be deleted.
    let row = cx.world.assignments.get(&call.id());
    let row = row
        .filter(|row| row.organization_id == cx.caller.organization_id)
        .cloned()
        .ok_or_else(Answer::not_found)?;
    if !cx.caller.may_manage(cx.world, row.applies_to) {
        return Err(Answer::forbidden());
    }
    cx.world.remove_assignment(row.id);
    told(cx, "role_assignment.destroy", &row);
    Ok(Answer::no_content())
}

pub fn told(cx: &mut Context<'_>, kind: &str, row: &Assignment) {
    cx.emit(Happened {
        kind,
        object_type: "RoleAssignment",
        object_id: row.id,
        role_id: Some(&row.role_id),
        ..Happened::default()
    });
}
