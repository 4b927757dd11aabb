//! One request, from the socket to the answer: arrive, count, fail on purpose, identify, check,
//! handle, log.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, State as Extracted};
use axum::http::{HeaderMap, HeaderValue, Method, Response, Uri};
use axum::routing::any;
use jiff::Timestamp;
use serde_json::Value;

use crate::answer::{Answer, Outcome};
use crate::auth;
use crate::context::{Call, Context};
use crate::control;
use crate::faults::FaultKind;
use crate::limiter::Budget;
use crate::paging;
use crate::parameters::Parameters;
use crate::request_log::Entry;
use crate::routes;
use crate::settings::{RefusalBody, RetryAfter, Settings};
use crate::spec::{BadBody, Operation, Route, SPEC};
use crate::state::{Shared, State};

/// How often a request that waits asks whether it still has to.
const LOOKS_AGAIN: Duration = Duration::from_millis(5);
/// Longer than any client waits.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// Kisi's routes, and the control side below `/_simulator`.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .nest("/_simulator", control::router())
        .fallback(any(kisi))
        .layer(DefaultBodyLimit::max(8 * 1024 * 1024))
        .with_state(shared)
}

/// What is left to do once the lock is released.
struct Decided {
    answer: Answer,
    fault: Option<FaultKind>,
}

async fn kisi(
    Extracted(shared): Extracted<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let (latency, jitter) = {
        let state = shared.lock();
        (state.settings.latency_ms, state.settings.jitter_ms)
    };
    if latency + jitter > 0 {
        let random = if jitter == 0 {
            0
        } else {
            rand::random_range(0..=jitter)
        };
        tokio::time::sleep(Duration::from_millis(latency + random)).await;
    }
    wait(&shared, &method, &uri).await;
    let decided = decide(&shared, &peer, &method, &uri, &headers, &body);
    match decided.fault {
        Some(FaultKind::Hang | FaultKind::HangAfterApplying) => {
            tokio::time::sleep(FOR_EVER).await;
        }
        Some(FaultKind::WaitAfterApplying) => {
            until_cleared(&shared, FaultKind::WaitAfterApplying).await;
        }
        Some(FaultKind::Reset | FaultKind::ResetAfterApplying) => {
            // Ends the connection's task, and the connection with it, without an answer.
            std::panic::resume_unwind(Box::new("connection reset on purpose"));
        }
        _ => {}
    }
    render(decided.answer)
}

/// Until whoever holds such requests back lets them go.
async fn wait(shared: &Shared, method: &Method, uri: &Uri) {
    let waits = {
        let mut state = shared.lock();
        match SPEC.route(method.as_str(), uri.path()) {
            Route::Found(operation, _) => {
                let route = operation.template.as_str();
                state.faults.holds_back(method.as_str(), route)
            }
            _ => false,
        }
    };
    if waits {
        until_cleared(shared, FaultKind::Wait).await;
    }
}

async fn until_cleared(shared: &Shared, kind: FaultKind) {
    while shared.lock().faults.hold(kind) {
        tokio::time::sleep(LOOKS_AGAIN).await;
    }
}

fn decide(
    shared: &Shared,
    peer: &SocketAddr,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Decided {
    let authorization = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let mut state = shared.lock();
    let arrived = state.now();
    let route = SPEC.route(method.as_str(), uri.path());
    let template = match &route {
        Route::Found(operation, _) => operation.template.as_str(),
        _ => "",
    };
    let user_id = auth::budget_owner(&state.world, authorization);
    let admitted = admit(&mut state, user_id, peer, &route, arrived);
    let mut note = None;
    let mut events = Vec::new();
    let mut fault = None;
    let answer = if admitted {
        fault = state.faults.take(method.as_str(), template);
        match fault {
            Some(kind) if !kind.applies() => faulty(kind, &state.settings, arrived),
            _ => {
                let request = Request {
                    authorization,
                    query: uri.query(),
                    body,
                };
                let done = handle(
                    &mut state,
                    &route,
                    &request,
                    arrived,
                    &mut note,
                    &mut events,
                );
                match fault {
                    Some(FaultKind::UnavailableAfterApplying) => unavailable(),
                    Some(FaultKind::ShortPage) => paging::shortened(done, false),
                    Some(FaultKind::ShortList) => paging::shortened(done, true),
                    _ => done,
                }
            }
        }
    } else {
        refusal(&state.settings, arrived)
    };
    let lost = matches!(
        fault,
        Some(
            FaultKind::Hang
                | FaultKind::HangAfterApplying
                | FaultKind::Reset
                | FaultKind::ResetAfterApplying
        )
    );
    let limiter = state.settings.limiter.word();
    let answered_at = state.now();
    state.log.push(Entry {
        seq: 0,
        time: arrived,
        answered_at,
        user_id,
        method: method.to_string(),
        route: template.to_owned(),
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        status: (!lost).then_some(answer.status),
        refused_by_limiter: !admitted,
        limiter,
        note,
        request_headers: shown(headers),
        request_body: json_or_text(body),
        response_headers: answer
            .headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), v.clone()))
            .collect(),
        response_body: json_or_text(&answer.body),
    });
    if method != Method::GET {
        state.dirty = true;
        shared.changed.notify_one();
    }
    drop(state);
    for event in events {
        // Nobody delivers once the simulator stops.
        let _ = shared.events.send(event);
    }
    Decided { answer, fault }
}

fn admit(
    state: &mut State,
    user_id: Option<i64>,
    peer: &SocketAddr,
    route: &Route<'_>,
    now: Timestamp,
) -> bool {
    let (model, rate) = (state.settings.limiter, state.settings.rate);
    let budget = user_id.map_or_else(|| Budget::Address(peer.ip().to_string()), Budget::User);
    let passes = state
        .limiter
        .admit(model, rate, budget, now.as_microsecond());
    let makes_event_set =
        matches!(route, Route::Found(operation, _) if operation.id == "createEventSet");
    match (makes_event_set, user_id) {
        (true, Some(id)) => {
            let own = state
                .limiter
                .admit(model, 1, Budget::EventSets(id), now.as_microsecond());
            passes && own
        }
        _ => passes,
    }
}

/// What of a request its handling looks at.
struct Request<'a> {
    authorization: Option<&'a str>,
    query: Option<&'a str>,
    body: &'a [u8],
}

fn handle(
    state: &mut State,
    route: &Route<'_>,
    request: &Request<'_>,
    now: Timestamp,
    note: &mut Option<String>,
    events: &mut Vec<crate::rows::EventRow>,
) -> Answer {
    let outcome = try_handle(state, route, request, now, note, events);
    outcome.unwrap_or_else(|refused| refused)
}

fn try_handle(
    state: &mut State,
    route: &Route<'_>,
    request: &Request<'_>,
    now: Timestamp,
    note: &mut Option<String>,
    events: &mut Vec<crate::rows::EventRow>,
) -> Outcome {
    let (operation, id) = match route {
        Route::Found(operation, id) => (*operation, id.clone()),
        Route::WrongMethod => {
            *note = Some("no such method in openapi.yaml".into());
            return Err(match state.settings.wrong_method {
                405 => Answer::error(405, "000405", "Method not allowed."),
                _ => Answer::unknown_route(),
            });
        }
        Route::Unknown => {
            *note = Some("no such route in openapi.yaml".into());
            return Err(Answer::unknown_route());
        }
    };
    let State {
        world, settings, ..
    } = state;
    let caller = auth::identify(world, settings, now, request.authorization)?
        .ok_or_else(Answer::unauthorized)?;
    let parameters = Parameters::check(operation, request.query.unwrap_or_default(), settings)
        .inspect_err(|refused| *note = Some(text_of(refused)))?;
    let body = check_body(operation, request.body, settings)
        .inspect_err(|refused| *note = Some(text_of(refused)))?;
    // `operation` lives as long as the document, which is for ever.
    let operation: &'static Operation = static_operation(operation);
    let call = Call {
        operation,
        id,
        parameters,
        body,
    };
    let mut cx = Context {
        world,
        settings,
        now,
        caller,
        events: Vec::new(),
    };
    let outcome = routes::answer(&mut cx, &call);
    *events = cx.events;
    outcome
}

fn static_operation(operation: &Operation) -> &'static Operation {
    SPEC.operations()
        .iter()
        .find(|known| known.id == operation.id)
        .unwrap_or_else(|| unreachable!("an operation of the embedded document"))
}

fn check_body(operation: &Operation, body: &[u8], settings: &Settings) -> Result<Value, Answer> {
    operation
        .check_body(body, settings.strict)
        .map_err(|bad| match bad {
            BadBody::NotJson => Answer::bad_request("The body is not JSON."),
            BadBody::Invalid(errors) => Answer::unprocessable_fields(errors),
        })
}

fn text_of(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// A 429, in the variant that is set.
fn refusal(settings: &Settings, now: Timestamp) -> Answer {
    let answer = match settings.refusal_body {
        RefusalBody::Error => Answer::error(429, "000429", "Too many requests."),
        RefusalBody::Empty => Answer::empty(429),
        RefusalBody::Html => Answer::html(429, "Too Many Requests"),
    };
    match settings.retry_after {
        RetryAfter::None => answer,
        RetryAfter::Seconds => answer.with_header("retry-after", "1".into()),
        RetryAfter::Date => {
            let at = now
                .checked_add(jiff::SignedDuration::from_secs(1))
                .unwrap_or(now);
            let date = at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            answer.with_header("retry-after", date)
        }
    }
}

fn unavailable() -> Answer {
    Answer::error(503, "000503", "Service unavailable.")
}

fn faulty(kind: FaultKind, settings: &Settings, now: Timestamp) -> Answer {
    match kind {
        FaultKind::TooMany => refusal(settings, now),
        FaultKind::Forbidden => Answer::forbidden(),
        FaultKind::NotFound => Answer::error(404, "000404", "Not found."),
        FaultKind::Conflict => Answer::error(409, "000409", "Conflict."),
        FaultKind::BadGateway | FaultKind::Html => Answer::html(502, "Bad Gateway"),
        FaultKind::Unavailable => unavailable(),
        FaultKind::EmptyBody => Answer::empty(500),
        _ => Answer::error(500, "ffffff", "An unexpected error occurred."),
    }
}

fn render(answer: Answer) -> Response<Body> {
    let mut response = Response::builder().status(answer.status);
    if let Some(headers) = response.headers_mut() {
        for (name, value) in &answer.headers {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(*name, value);
            }
        }
    }
    response
        .body(Body::from(answer.body))
        .unwrap_or_else(|_| Response::new(Body::empty()))
}

/// Headers as sent, but for the secret.
fn shown(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let value = value.to_str().unwrap_or("(not text)");
            let value = match name.as_str() {
                "authorization" => format!("{} …", value.split(' ').next().unwrap_or_default()),
                _ => value.to_owned(),
            };
            (name.to_string(), value)
        })
        .collect()
}

fn json_or_text(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}
