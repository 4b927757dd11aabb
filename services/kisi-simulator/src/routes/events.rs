//! Event sets: past events, asked for, polled, then read page by page.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::answer::{Answer, Outcome};
use crate::context::{Call, Context};
use crate::render;
use crate::rows::{EventRow, EventSet};

/// Kisi's longest interval.
const LONGEST: jiff::SignedDuration = jiff::SignedDuration::from_hours(90 * 24);

pub fn create(cx: &mut Context<'_>, call: &Call) -> Outcome {
    cx.caller.require_admin()?;
    let body = call.wrapped("event_set");
    let interval = body["interval"].as_str().unwrap_or_default();
    let bounds = interval.split_once('/').and_then(|(from, to)| {
        Some((
            from.parse::<Timestamp>().ok()?,
            to.parse::<Timestamp>().ok()?,
        ))
    });
    let Some((from, to)) = bounds.filter(|(from, to)| from <= to) else {
        return Err(Answer::unprocessable("interval", "is not an interval"));
    };
    if to.duration_since(from) > LONGEST {
        return Err(Answer::unprocessable("interval", "is longer than 90 days"));
    }
    let id = cx.world.next_id();
    let row = EventSet {
        id,
        organization_id: cx.caller.organization_id,
        interval: interval.to_owned(),
        from,
        to,
        filters: body.as_object().cloned().unwrap_or_default(),
        polls_left: cx.settings.event_set_polls,
        created_at: cx.now,
    };
    let answer = Answer::ok(&render::event_set(&row, "in_progress"));
    cx.world.event_sets.insert(id, row);
    Ok(answer)
}

pub fn fetch(cx: &mut Context<'_>, call: &Call) -> Outcome {
    cx.caller.require_admin()?;
    let organization = cx.caller.organization_id;
    let row = cx.world.event_sets.get_mut(&call.id());
    let row = row
        .filter(|row| row.organization_id == organization)
        .ok_or_else(Answer::not_found)?;
    if row.polls_left > 0 {
        row.polls_left -= 1;
        return Ok(Answer::ok(&render::event_set(row, "in_progress")));
    }
    let row = row.clone();
    let skip: usize = match call.parameters.text("cursor") {
        None => 0,
        Some(cursor) => cursor
            .parse()
            .map_err(|_| Answer::bad_request("The cursor is not one of ours."))?,
    };
    let limit = call
        .parameters
        .integer("limit")
        .and_then(|n| usize::try_from(n).ok());
    let limit = limit.unwrap_or(50).max(1);
    let events: Vec<&EventRow> = cx
        .world
        .events
        .iter()
        .filter(|e| matches(&row, e))
        .collect();
    let page: Vec<Value> = events
        .iter()
        .skip(skip)
        .take(limit)
        .map(|e| render::event(e))
        .collect();
    let next = skip.saturating_add(limit);
    let mut value = render::event_set(&row, "finished");
    value["events"] = Value::Array(page);
    value["cursor"] = if next < events.len() {
        json!(next.to_string())
    } else {
        Value::Null
    };
    Ok(Answer::ok(&value))
}

fn matches(set: &EventSet, event: &EventRow) -> bool {
    let wanted = |name: &str| set.filters.get(name).filter(|value| !value.is_null());
    event.organization_id == set.organization_id
        && (set.from..=set.to).contains(&event.created_at)
        && wanted("event_type").is_none_or(|kind| *kind == json!(event.kind))
        && wanted("event_object_id").is_none_or(|id| *id == json!(event.object_id))
        && wanted("event_object_type").is_none_or(|kind| *kind == json!(event.object_type))
        && wanted("event_actor_id").is_none_or(|id| *id == json!(event.actor_id))
        && wanted("event_place_id").is_none_or(|id| *id == json!(event.place_id))
        && wanted("event_success").is_none_or(|yes| *yes == json!(event.success))
        && wanted("event_uuid").is_none_or(|uuid| *uuid == json!(event.uuid))
}
