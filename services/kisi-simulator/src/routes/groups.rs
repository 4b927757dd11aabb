//! Groups, the doors behind them, and the links that open them without a user.

use serde_json::Value;

use crate::answer::{Answer, Outcome};
use crate::context::{Call, Context, Happened, Standing};
use crate::paging;
use crate::render;
use crate::rows::{Group, GroupLock, GroupRules, Target};

fn find<'a>(cx: &'a Context<'_>, id: i64) -> Result<&'a Group, Answer> {
    let row = cx.world.groups.get(&id);
    row.filter(|row| row.organization_id == cx.caller.organization_id)
        .ok_or_else(Answer::not_found)
}

pub fn list(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let query = call
        .parameters
        .text("query")
        .unwrap_or_default()
        .to_lowercase();
    let with_lock = call.parameters.integer("lock_id");
    let rows = cx
        .world
        .groups
        .values()
        .filter(|row| row.organization_id == cx.caller.organization_id)
        .filter(|row| match &cx.caller.standing {
            Standing::PlaceAdministrator(places) => {
                row.place_id.is_some_and(|id| places.contains(&id))
            }
            _ => true,
        })
        .filter(|row| match call.parameters.text("scope") {
            Some("organization") => row.place_id.is_none(),
            Some(_) => row.place_id.is_some(),
            None => true,
        })
        .filter(|row| {
            call.parameters
                .integer("place_id")
                .is_none_or(|id| row.place_id == Some(id))
        })
        .filter(|row| {
            with_lock.is_none_or(|lock| cx.world.groups_of_lock(lock).any(|id| id == row.id))
        })
        // There are no elevators.
        .filter(|_| call.parameters.text("elevator_stop_id").is_none())
        .filter(|row| row.name.to_lowercase().contains(&query))
        .collect();
    Ok(paging::page(call, cx.settings, rows, |row| {
        render::group(cx.world, row)
    }))
}

pub fn create(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let body = call.wrapped("group");
    let place_id = body["place_id"].as_i64();
    let target = place_id.map_or(
        Target::Organization(cx.caller.organization_id),
        Target::Place,
    );
    if !cx.caller.may_manage(cx.world, target) {
        return Err(Answer::forbidden());
    }
    if place_id.is_some() && !cx.has_target(target) {
        return Err(Answer::unprocessable("place_id", "must exist"));
    }
    let id = cx.world.next_id();
    let mut row = Group {
        id,
        organization_id: cx.caller.organization_id,
        place_id,
        name: String::new(),
        description: None,
        rules: GroupRules::default(),
        created_at: cx.now,
        updated_at: cx.now,
    };
    change(&mut row, body);
    let answer = Answer::ok(&render::group(cx.world, &row));
    told(cx, "group.create", &row);
    cx.world.groups.insert(id, row);
    Ok(answer)
}

pub fn fetch(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let row = find(cx, call.id())?;
    Ok(Answer::ok(&render::group(cx.world, row)))
}

pub fn update(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let mut row = find(cx, call.id())?.clone();
    if !cx.caller.may_manage(cx.world, Target::Group(row.id)) {
        return Err(Answer::forbidden());
    }
    change(&mut row, call.wrapped("group"));
    row.updated_at = cx.now;
    told(cx, "group.update", &row);
    cx.world.groups.insert(row.id, row);
    Ok(Answer::no_content())
}

pub fn delete(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let row = find(cx, call.id())?.clone();
    if !cx.caller.may_manage(cx.world, Target::Group(row.id)) {
        return Err(Answer::forbidden());
    }
    cx.world.remove_group(row.id, cx.settings.deleted_rights);
    told(cx, "group.destroy", &row);
    Ok(Answer::no_content())
}

fn change(row: &mut Group, body: &Value) {
    if let Some(name) = body["name"].as_str() {
        row.name = name.to_owned();
    }
    if let Some(description) = body.get("description") {
        row.description = description.as_str().map(str::to_owned);
    }
    let flag = |name: &str, held: bool| body[name].as_bool().unwrap_or(held);
    let rules = &mut row.rules;
    rules.login_enabled = flag("login_enabled", rules.login_enabled);
    rules.geofence_restriction_enabled = flag(
        "geofence_restriction_enabled",
        rules.geofence_restriction_enabled,
    );
    rules.primary_device_restriction_enabled = flag(
        "primary_device_restriction_enabled",
        rules.primary_device_restriction_enabled,
    );
    rules.managed_device_restriction_enabled = flag(
        "managed_device_restriction_enabled",
        rules.managed_device_restriction_enabled,
    );
    rules.reader_restriction_enabled = flag(
        "reader_restriction_enabled",
        rules.reader_restriction_enabled,
    );
    rules.time_restriction_enabled =
        flag("time_restriction_enabled", rules.time_restriction_enabled);
    rules.tap_to_access_restriction_enabled = flag(
        "tap_to_access_restriction_enabled",
        rules.tap_to_access_restriction_enabled,
    );
}

fn told(cx: &mut Context<'_>, kind: &str, row: &Group) {
    cx.emit(Happened {
        kind,
        object_type: "Group",
        object_id: row.id,
        object_name: &row.name,
        place_id: row.place_id,
        ..Happened::default()
    });
}

pub fn list_locks(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let group = call.parameters.integer("group_id").unwrap_or(-1);
    find(cx, group)?;
    let lock = call.parameters.integer("lock_id");
    let rows = cx
        .world
        .group_locks
        .values()
        .filter(|row| row.group_id == group)
        .filter(|row| lock.is_none_or(|id| id == row.lock_id))
        .collect();
    Ok(paging::page(call, cx.settings, rows, |row| {
        render::group_lock(cx.world, row)
    }))
}

pub fn create_lock(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let body = call.wrapped("group_lock");
    let group_id = body["group_id"].as_i64().unwrap_or(-1);
    let lock_id = body["lock_id"].as_i64().unwrap_or(-1);
    if !cx.caller.may_manage(cx.world, Target::Group(group_id)) {
        return Err(Answer::forbidden());
    }
    if find(cx, group_id).is_err() {
        return Err(Answer::unprocessable("group_id", "must exist"));
    }
    let lock = cx.world.locks.get(&lock_id);
    let Some(lock) = lock.filter(|lock| lock.organization_id == cx.caller.organization_id) else {
        return Err(Answer::unprocessable("lock_id", "must exist"));
    };
    let place = cx
        .world
        .groups
        .get(&group_id)
        .and_then(|group| group.place_id);
    if place.is_some_and(|place| place != lock.place_id) {
        return Err(Answer::unprocessable(
            "lock_id",
            "must be in the group's place",
        ));
    }
    let id = cx.world.next_id();
    let row = GroupLock {
        id,
        organization_id: cx.caller.organization_id,
        group_id,
        lock_id,
        created_at: cx.now,
    };
    let answer = Answer::ok(&render::group_lock(cx.world, &row));
    told_lock(cx, "group_lock.create", &row);
    cx.world.group_locks.insert(id, row);
    Ok(answer)
}

fn find_lock(cx: &Context<'_>, id: i64) -> Result<GroupLock, Answer> {
    let row = cx.world.group_locks.get(&id);
    row.filter(|row| row.organization_id == cx.caller.organization_id)
        .cloned()
        .ok_or_else(Answer::not_found)
}

pub fn fetch_lock(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let row = find_lock(cx, call.id())?;
    Ok(Answer::ok(&render::group_lock(cx.world, &row)))
}

pub fn delete_lock(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let row = find_lock(cx, call.id())?;
    if !cx.caller.may_manage(cx.world, Target::Group(row.group_id)) {
        return Err(Answer::forbidden());
    }
    cx.world.group_locks.remove(&row.id);
    told_lock(cx, "group_lock.destroy", &row);
    Ok(Answer::no_content())
}

fn told_lock(cx: &mut Context<'_>, kind: &str, row: &GroupLock) {
    cx.emit(Happened {
        kind,
        object_type: "GroupLock",
        object_id: row.id,
        ..Happened::default()
    });
}

pub fn list_links(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let group = call.parameters.integer("group_id");
    let query = call
        .parameters
        .text("query")
        .unwrap_or_default()
        .to_lowercase();
    let rows = cx
        .world
        .group_links
        .values()
        .filter(|row| row.organization_id == cx.caller.organization_id)
        .filter(|row| group.is_none_or(|id| id == row.group_id))
        .filter(|row| row.name.to_lowercase().contains(&query))
        .collect();
    Ok(paging::page(call, cx.settings, rows, |row| {
        render::group_link(cx.world, row)
    }))
}
