//! Event webhooks as integrations.

use serde_json::Value;

use crate::answer::{Answer, Outcome};
use crate::context::{Call, Context, Happened};
use crate::paging;
use crate::render;
use crate::rows::Integration;

pub fn list(cx: &mut Context<'_>, call: &Call) -> Outcome {
    cx.caller.require_admin()?;
    let enabled = call.parameters.boolean("enabled");
    let query = call
        .parameters
        .text("query")
        .unwrap_or_default()
        .to_lowercase();
    let rows = cx
        .world
        .integrations
        .values()
        .filter(|row| row.organization_id == cx.caller.organization_id)
        .filter(|row| row.name.to_lowercase().contains(&query))
        .filter(|row| match call.parameters.text("scope") {
            Some("organization") => row.place_id.is_none(),
            Some(_) => row.place_id.is_some(),
            None => true,
        })
        // An event webhook is never of a group.
        .filter(|_| call.parameters.text("group_id").is_none())
        .filter(|row| enabled.is_none_or(|wanted| wanted == row.enabled))
        .filter(|row| {
            call.parameters
                .integer("place_id")
                .is_none_or(|id| row.place_id == Some(id))
        })
        .collect();
    Ok(paging::page(call, cx.settings, rows, |row| {
        render::integration(cx.world, row)
    }))
}

fn find(cx: &Context<'_>, id: i64) -> Result<Integration, Answer> {
    cx.caller.require_admin()?;
    let row = cx.world.integrations.get(&id);
    row.filter(|row| row.organization_id == cx.caller.organization_id)
        .cloned()
        .ok_or_else(Answer::not_found)
}

pub fn create(cx: &mut Context<'_>, call: &Call) -> Outcome {
    cx.caller.require_admin()?;
    let id = cx.world.next_id();
    let mut row = Integration {
        id,
        organization_id: cx.caller.organization_id,
        place_id: None,
        kind: Integration::EVENT_WEBHOOK.to_owned(),
        name: String::new(),
        url: String::new(),
        enabled: true,
        enabled_events: Vec::new(),
        signature_key: None,
        failures_in_a_row: 0,
        disabled_due_to_error_at: None,
        created_at: cx.now,
        updated_at: cx.now,
    };
    change(&mut row, call.wrapped("integration"));
    let answer = Answer::ok(&render::event_webhook(cx.world, &row));
    told(cx, "integration.create", &row);
    cx.world.integrations.insert(id, row);
    Ok(answer)
}

pub fn fetch(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let row = find(cx, call.id())?;
    Ok(Answer::ok(&render::event_webhook(cx.world, &row)))
}

pub fn update(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let mut row = find(cx, call.id())?;
    change(&mut row, call.wrapped("integration"));
    row.updated_at = cx.now;
    if row.enabled {
        row.failures_in_a_row = 0;
        row.disabled_due_to_error_at = None;
    }
    told(cx, "integration.update", &row);
    cx.world.integrations.insert(row.id, row);
    Ok(Answer::no_content())
}

pub fn delete(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let row = find(cx, call.id())?;
    cx.world.integrations.remove(&row.id);
    told(cx, "integration.destroy", &row);
    Ok(Answer::no_content())
}

fn change(row: &mut Integration, body: &Value) {
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    if let Some(name) = text("name") {
        row.name = name;
    }
    if let Some(url) = text("url") {
        row.url = url;
    }
    if let Some(key) = text("signature_key") {
        row.signature_key = Some(key);
    }
    if let Some(enabled) = body["enabled"].as_bool() {
        row.enabled = enabled;
    }
    if let Some(events) = body["enabled_events"].as_array() {
        row.enabled_events = events
            .iter()
            .filter_map(|e| e.as_str().map(str::to_owned))
            .collect();
    }
}

fn told(cx: &mut Context<'_>, kind: &str, row: &Integration) {
    cx.emit(Happened {
        kind,
        object_type: "Integration",
        object_id: row.id,
        object_name: &row.name,
        ..Happened::default()
    });
}
