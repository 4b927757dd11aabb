//! Who opens which door, in the order in which Kisi decides.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::answer::{Answer, Outcome};
use crate::context::{Call, Caller, Context, Happened};
use crate::rows::{Assignment, Group, Hours, Lock, LoginKind, Target};
use crate::world::World;

/// Why a door stays shut: status, code, words.
type Refused = (u16, &'static str, &'static str);

pub fn unlock(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let lock_id = call.id();
    let decided = decide(cx.world, &cx.caller, lock_id, &call.body, cx.now);
    let (name, place_id) = match cx.world.locks.get(&lock_id) {
        Some(lock) => (lock.name.clone(), Some(lock.place_id)),
        None => (String::new(), None),
    };
    let told = |error: Option<(&'static str, &'static str)>, cx: &mut Context<'_>| {
        cx.emit(Happened {
            kind: "lock.unlock",
            object_type: "Lock",
            object_id: lock_id,
            object_name: &name,
            place_id,
            error,
            ..Happened::default()
        });
    };
    match decided {
        Ok(()) => {
            if let Some(user) = cx.world.users.get_mut(&cx.caller.user_id) {
                user.last_accessed_at = Some(cx.now);
            }
            told(None, cx);
            Ok(Answer::ok(&json!({ "message": "Unlocked!" })))
        }
        Err((status, code, words)) => {
            told(Some((code, words)), cx);
            Err(Answer::error(status, code, words))
        }
    }
}

fn decide(
    world: &World,
    caller: &Caller,
    lock_id: i64,
    body: &Value,
    now: Timestamp,
) -> Result<(), Refused> {
    let lock = world.locks.get(&lock_id);
    let lock = lock.filter(|lock| lock.organization_id == caller.organization_id);
    let Some(lock) = lock else {
        return Err((404, "fad10e", "The door could not be found."));
    };
    let place = world.places.get(&lock.place_id);
    if lock.locked_down_since.is_some() {
        return Err((409, "fad001", "The door is locked down."));
    }
    if place.is_some_and(|place| place.locked_down_since.is_some()) {
        return Err((409, "fad002", "The place is locked down."));
    }
    let suspended = world
        .users
        .get(&caller.user_id)
        .is_none_or(|user| !user.access_enabled);
    if suspended {
        return Err((403, "fcd8ff", "The user is suspended."));
    }
    // An admin's key acts as the admin, and only the door's own limits apply.
    if !caller.is_admin() {
        by_rights(world, caller, lock, body, now)?;
    }
    if lock.time_restriction_enabled == Some(true) && !within(world, lock, lock.hours, now) {
        return Err((403, "34ffaa", "Outside of the allowed hours."));
    }
    if lock.reader_restriction_enabled == Some(true) && proof(body).is_none() {
        return Err((403, "bb4faa", "You are not in front of the reader."));
    }
    if lock.on_scheduled_unlock {
        return Err((409, "fad110", "The door is unlocked by a schedule."));
    }
    match (lock.configured, lock.online) {
        (false, _) => Err((409, "ff420a", "The door has no controller.")),
        (true, Some(false)) => Err((503, "fac001", "The controller does not answer.")),
        _ => Ok(()),
    }
}

fn by_rights(
    world: &World,
    caller: &Caller,
    lock: &Lock,
    body: &Value,
    now: Timestamp,
) -> Result<(), Refused> {
    let rows: Vec<&Assignment> = world
        .rights_of(caller.user_id)
        .filter(|row| world.is_for_lock(row, lock))
        .collect();
    if rows.is_empty() {
        return Err((403, "afc496", "Access denied."));
    }
    let mut refused = (403, "f35ade", "The access right has ended.");
    // Somebody in several groups gets in if one of them lets them.
    for row in rows {
        if row.has_ended(now) {
            continue;
        }
        if !row.has_begun(now) {
            refused = (403, "f358de", "The access right has not begun.");
            continue;
        }
        let Target::Group(id) = row.applies_to else {
            return Ok(());
        };
        let Some(group) = world.groups.get(&id) else {
            continue;
        };
        let hours_allow = within(world, lock, group.rules.hours, now);
        match of_group(group, caller, body, hours_allow) {
            Ok(()) => return Ok(()),
            Err(why) => refused = why,
        }
    }
    Err(refused)
}

fn of_group(
    group: &Group,
    caller: &Caller,
    body: &Value,
    hours_allow: bool,
) -> Result<(), Refused> {
    let rules = &group.rules;
    if !rules.login_enabled {
        return Err((403, "f01337", "The group has no app access."));
    }
    if rules.tap_to_access_restriction_enabled {
        return Err((403, "bbc93f", "Tap the reader to unlock."));
    }
    if rules.time_restriction_enabled && !hours_allow {
        return Err((403, "34ffaa", "Outside of the allowed hours."));
    }
    if rules.primary_device_restriction_enabled
        && !(caller.login_kind == LoginKind::Device && caller.primary_device)
    {
        return Err((403, "34bd8f", "This is not the primary device."));
    }
    if rules.geofence_restriction_enabled && body["context"]["location"].is_null() {
        return Err((403, "a3799f", "The location is needed."));
    }
    if rules.reader_restriction_enabled && proof(body).is_none() {
        return Err((403, "bb4faa", "You are not in front of the reader."));
    }
    Ok(())
}

fn proof(body: &Value) -> Option<&str> {
    body["lock"]["proximity_proof"]
        .as_str()
        .filter(|proof| !proof.is_empty())
}

/// Hours are those of the door's place, or of the organization where the place names no zone.
fn within(world: &World, lock: &Lock, hours: Option<Hours>, now: Timestamp) -> bool {
    let of_place = world.places.get(&lock.place_id);
    let of_organization = world.organizations.get(&lock.organization_id);
    let zone = of_place
        .and_then(|place| place.time_zone.as_deref())
        .or(of_organization.map(|organization| organization.time_zone.as_str()))
        .and_then(|name| TimeZone::get(name).ok())
        .unwrap_or(TimeZone::UTC);
    let time = zone.to_datetime(now).time();
    hours.is_some_and(|hours| hours.from <= time && time < hours.to)
}

/// Whether this user opens this door now, without trying it.
pub fn opens(world: &World, user_id: i64, lock_id: i64, now: Timestamp) -> bool {
    let Some(caller) = crate::auth::caller_of(world, user_id, None, now) else {
        return false;
    };
    decide(world, &caller, lock_id, &Value::Null, now).is_ok()
}
