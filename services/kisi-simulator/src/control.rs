//! The control side: what a test, a script or the dev stack does that no client of Kisi could.

mod gifts;
mod hands;
mod seed;

use axum::extract::{Query, State as Extracted};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::faults::Fault;
use crate::render;
use crate::routes::opens;
use crate::settings::Settings;
use crate::state::Shared;

/// Routes below `/_simulator`.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/seed", post(seed::seed))
        .route("/state", get(state).delete(forget))
        .route("/requests", get(requests).delete(clear_requests))
        .route("/exchanges", get(exchanges))
        .route("/settings", get(settings).put(change_settings))
        .route("/clock", get(clock).post(set_clock))
        .route("/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/hands", post(hands::change))
        .route("/doors", get(doors))
        .route("/emails", get(emails))
        .route("/events", get(events))
}

/// Why a control request makes no sense.
pub(crate) fn refused(why: impl Into<String>) -> Response {
    (
        StatusCode::BAD_REQUEST,
        Json(json!({ "error": why.into() })),
    )
        .into_response()
}

async fn state(Extracted(shared): Extracted<Shared>) -> Json<Value> {
    let state = shared.lock();
    let world = &state.world;
    Json(json!({
        "organizations": world.organizations.values().map(|row| render::organization(world, row)).collect::<Vec<_>>(),
        "places": world.places.values().map(|row| render::place(world, row)).collect::<Vec<_>>(),
        "locks": world.locks.values().map(|row| render::lock(world, row)).collect::<Vec<_>>(),
        "groups": world.groups.values().map(|row| render::group(world, row)).collect::<Vec<_>>(),
        "group_locks": world.group_locks.values().map(|row| render::group_lock(world, row)).collect::<Vec<_>>(),
        "users": world.users.values().map(|row| render::user(world, row)).collect::<Vec<_>>(),
        "role_assignments": world.assignments.values().map(|row| render::assignment(world, row)).collect::<Vec<_>>(),
        "logins": world.logins.values().map(|row| render::login(world, row)).collect::<Vec<_>>(),
        "integrations": world.integrations.values().map(|row| render::event_webhook(world, row)).collect::<Vec<_>>(),
        "last_request": state.log.last(),
        "now": state.now(),
    }))
}

/// Everything back to nothing; settings stay.
async fn forget(Extracted(shared): Extracted<Shared>) -> StatusCode {
    let mut state = shared.lock();
    state.world = Default::default();
    state.log.clear();
    state.limiter.reset();
    state.faults.clear();
    state.dirty = true;
    shared.changed.notify_one();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    since: u64,
}

async fn requests(Extracted(shared): Extracted<Shared>, Query(query): Query<Since>) -> Json<Value> {
    let state = shared.lock();
    let entries: Vec<_> = state.log.since(query.since).collect();
    Json(json!({ "last": state.log.last(), "requests": entries }))
}

async fn clear_requests(Extracted(shared): Extracted<Shared>) -> StatusCode {
    shared.lock().log.clear();
    StatusCode::NO_CONTENT
}

async fn exchanges(Extracted(shared): Extracted<Shared>) -> String {
    shared.lock().log.as_jsonl()
}

async fn settings(Extracted(shared): Extracted<Shared>) -> Json<Settings> {
    Json(shared.lock().settings.clone())
}

/// Any subset; the rest stays.
async fn change_settings(
    Extracted(shared): Extracted<Shared>,
    Json(change): Json<Value>,
) -> Response {
    let mut state = shared.lock();
    let Ok(mut merged) = serde_json::to_value(&state.settings) else {
        return refused("the settings have no JSON form");
    };
    let Some(change) = change.as_object() else {
        return refused("an object of settings is expected");
    };
    for (name, value) in change {
        merged[name] = value.clone();
    }
    match serde_json::from_value::<Settings>(merged) {
        Ok(settings) => {
            let counts_anew =
                (settings.limiter, settings.rate) != (state.settings.limiter, state.settings.rate);
            state.settings = settings.clone();
            if counts_anew {
                state.limiter.reset();
            }
            Json(settings).into_response()
        }
        Err(error) => refused(error.to_string()),
    }
}

async fn clock(Extracted(shared): Extracted<Shared>) -> Json<Value> {
    Json(json!({ "now": shared.lock().now() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockChange {
    /// Moves the clock by so many seconds, either way.
    advance_seconds: Option<i64>,
    /// Sets it.
    now: Option<Timestamp>,
}

async fn set_clock(
    Extracted(shared): Extracted<Shared>,
    Json(change): Json<ClockChange>,
) -> Response {
    let mut state = shared.lock();
    let shown = state.now();
    state.clock_offset = match (change.advance_seconds, change.now) {
        (Some(seconds), None) => state.clock_offset + SignedDuration::from_secs(seconds),
        (None, Some(now)) => state.clock_offset + now.duration_since(shown),
        _ => return refused("one of `advance_seconds` and `now` is expected"),
    };
    state.dirty = true;
    shared.changed.notify_one();
    Json(json!({ "now": state.now() })).into_response()
}

async fn faults(Extracted(shared): Extracted<Shared>) -> Json<Vec<Fault>> {
    Json(shared.lock().faults.list().to_vec())
}

async fn add_fault(Extracted(shared): Extracted<Shared>, Json(fault): Json<Fault>) -> StatusCode {
    shared.lock().faults.add(fault);
    StatusCode::NO_CONTENT
}

async fn clear_faults(Extracted(shared): Extracted<Shared>) -> StatusCode {
    shared.lock().faults.clear();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct Who {
    email: Option<String>,
    user_id: Option<i64>,
}

/// Which doors this person opens now, by name.
async fn doors(Extracted(shared): Extracted<Shared>, Query(who): Query<Who>) -> Json<Value> {
    let state = shared.lock();
    let now = state.now();
    let email = who.email.as_deref().map(str::to_lowercase);
    let users: Vec<_> = state
        .world
        .users
        .values()
        .filter(|user| {
            Some(user.id) == who.user_id || email.as_ref() == Some(&user.email.to_lowercase())
        })
        .collect();
    let doors: Vec<Value> = users
        .iter()
        .flat_map(|user| {
            state
                .world
                .locks
                .values()
                .filter(|lock| lock.organization_id == user.organization_id)
                .map(|lock| {
                    json!({
                        "lock_id": lock.id, "name": lock.name, "user_id": user.id,
                        "opens": opens(&state.world, user.id, lock.id, now),
                    })
                })
                .collect::<Vec<_>>()
        })
        .collect();
    Json(json!({ "known": !users.is_empty(), "doors": doors }))
}

async fn emails(Extracted(shared): Extracted<Shared>) -> Json<Value> {
    Json(json!(shared.lock().world.emails))
}

async fn events(Extracted(shared): Extracted<Shared>) -> Json<Value> {
    Json(json!(shared.lock().world.events))
}
