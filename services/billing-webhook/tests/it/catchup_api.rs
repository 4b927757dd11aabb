//! The providers' lists of events as a small HTTP server: it pages, filters and refuses as theirs
//! do, and can be told to fail.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// What the server takes for Stripe's key.
pub const STRIPE_KEY: &str = "sk_live_KEYCANARY";
/// What the server takes for GoCardless's.
pub const GOCARDLESS_KEY: &str = "live_KEYCANARY";

/// An event that a provider keeps.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The account that it belongs to.
    pub account: String,
    /// As it was, or should have been, posted.
    pub posted: Value,
    /// Whether all of Stripe's deliveries were taken.
    pub delivered: bool,
}

/// What happens to requests from now on.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// They are answered this.
    Status(u16),
    /// They are answered 200 and this.
    Body(String),
    /// They are never answered.
    Silence,
    /// They are answered as they should be, a little later.
    Slow(Duration),
}

/// One request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub provider: &'static str,
    pub account: Option<String>,
    pub query: HashMap<String, String>,
}

#[derive(Default)]
struct Inside {
    /// Newest first.
    stripe: Vec<Kept>,
    gocardless: Vec<Kept>,
    asked: Vec<Asked>,
    /// From the request of this number on.
    fault: Option<(usize, Fault)>,
    /// Of every page but the first.
    pages: Option<Fault>,
}

/// The server. It ends with the test.
#[derive(Clone)]
pub struct ProviderApi {
    pub url: String,
    inside: Arc<Mutex<Inside>>,
}

impl ProviderApi {
    pub async fn start() -> Self {
        let inside = Arc::new(Mutex::new(Inside::default()));
        let router = Router::new()
            .route("/v1/events", get(stripe))
            .route("/events", get(gocardless))
            .with_state(Arc::clone(&inside));
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = tokio::net::TcpListener::bind(local).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            url: format!("http://{address}"),
            inside,
        }
    }

    pub fn keep_stripe(&self, mut events: Vec<Kept>) {
        events.sort_by_key(|kept| -kept.posted["created"].as_i64().expect("a time"));
        self.lock().stripe = events;
    }

    pub fn keep_gocardless(&self, mut events: Vec<Kept>) {
        events.sort_by_key(|kept| kept.posted["created_at"].as_str().map(str::to_owned));
        events.reverse();
        self.lock().gocardless = events;
    }

    /// Fails from the `nth` request from now on.
    pub fn fail(&self, nth: usize, fault: Fault) {
        let mut inside = self.lock();
        let from = inside.asked.len() + nth;
        inside.fault = Some((from, fault));
    }

    /// Fails every page but the first.
    pub fn fail_pages(&self, fault: Fault) {
        let mut inside = self.lock();
        inside.fault = None;
        inside.pages = Some(fault);
    }

    pub fn heal(&self) {
        let mut inside = self.lock();
        inside.fault = None;
        inside.pages = None;
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().expect("no panic")
    }
}

type Params = HashMap<String, String>;

/// Notes the request and fails where it should.
async fn enter(
    inside: &Mutex<Inside>,
    headers: &HeaderMap,
    key: &str,
    asked: Asked,
) -> Option<Response> {
    let fault = {
        let mut inside = inside.lock().expect("no panic");
        let is_first = !["starting_after", "after"]
            .iter()
            .any(|name| asked.query.contains_key(*name));
        inside.asked.push(asked);
        let number = inside.asked.len();
        let fault = inside.fault.clone();
        let fault = fault
            .filter(|(from, _)| number >= *from)
            .map(|(_, fault)| fault);
        fault.or_else(|| inside.pages.clone().filter(|_| !is_first))
    };
    match fault {
        Some(Fault::Status(status)) => {
            let status = StatusCode::from_u16(status).expect("a status");
            // As Stripe does, with a part of the key.
            let body =
                json!({ "error": { "message": "Invalid API Key provided: sk_live_KEY***" } });
            return Some((status, Json(body)).into_response());
        }
        Some(Fault::Body(body)) => return Some(body.into_response()),
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Slow(pause)) => tokio::time::sleep(pause).await,
        None => {}
    }
    let given = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let is_right = given == Some(format!("Bearer {key}").as_str());
    (!is_right).then(|| StatusCode::UNAUTHORIZED.into_response())
}

fn limit(query: &Params, default: usize, most: usize) -> Option<usize> {
    let limit = match query.get("limit") {
        Some(limit) => limit.parse().ok()?,
        None => default,
    };
    (1..=most).contains(&limit).then_some(limit)
}

async fn stripe(
    State(inside): State<Arc<Mutex<Inside>>>,
    headers: HeaderMap,
    Query(query): Query<Params>,
) -> Response {
    let account = headers.get("stripe-account");
    let account = account.map(|account| account.to_str().expect("text").to_owned());
    let asked = Asked {
        provider: "stripe",
        account: account.clone(),
        query: query.clone(),
    };
    if let Some(refused) = enter(&inside, &headers, STRIPE_KEY, asked).await {
        return refused;
    }
    let Some(limit) = limit(&query, 10, 100) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let inside = inside.lock().expect("no panic");
    let own = account.unwrap_or_else(|| "acct_default".into());
    let all: Vec<&Kept> = inside
        .stripe
        .iter()
        .filter(|kept| kept.account == own)
        .collect();
    if own != "acct_default" && all.is_empty() {
        // Not a connected account of this platform.
        return StatusCode::FORBIDDEN.into_response();
    }
    let from = match query.get("starting_after") {
        None => 0,
        Some(after) => match all
            .iter()
            .position(|kept| kept.posted["id"] == after.as_str())
        {
            Some(at) => at + 1,
            None => return StatusCode::BAD_REQUEST.into_response(),
        },
    };
    let undelivered = query.get("delivery_success").map(String::as_str) == Some("false");
    let rest: Vec<&Kept> = all[from..]
        .iter()
        .copied()
        .filter(|kept| !(undelivered && kept.delivered))
        .collect();
    let data: Vec<Value> = rest
        .iter()
        .take(limit)
        .map(|kept| {
            let mut event = kept.posted.clone();
            // Whoever asks in an account's name knows whose events these are.
            event.as_object_mut().expect("an event").remove("account");
            event
        })
        .collect();
    let has_more = rest.len() > limit;
    Json(json!({ "object": "list", "url": "/v1/events", "data": data, "has_more": has_more }))
        .into_response()
}

async fn gocardless(
    State(inside): State<Arc<Mutex<Inside>>>,
    headers: HeaderMap,
    Query(query): Query<Params>,
) -> Response {
    let asked = Asked {
        provider: "gocardless",
        account: None,
        query: query.clone(),
    };
    if let Some(refused) = enter(&inside, &headers, GOCARDLESS_KEY, asked).await {
        return refused;
    }
    let version = headers.get("gocardless-version");
    let limit = limit(&query, 50, 500);
    let (Some(limit), true) = (
        limit,
        version.is_some_and(|version| version == "2015-07-06"),
    ) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let inside = inside.lock().expect("no panic");
    let since = query.get("created_at[gte]").cloned().unwrap_or_default();
    let all: Vec<&Value> = inside
        .gocardless
        .iter()
        .map(|kept| &kept.posted)
        .filter(|event| event["created_at"].as_str().expect("a time") >= since.as_str())
        .collect();
    let from = match query.get("after") {
        None => 0,
        Some(after) => match all.iter().position(|event| event["id"] == after.as_str()) {
            Some(at) => at + 1,
            None => return StatusCode::UNPROCESSABLE_ENTITY.into_response(),
        },
    };
    let events: Vec<Value> = all[from..].iter().take(limit).copied().cloned().collect();
    let id_of = |event: Option<&Value>| event.map_or(Value::Null, |event| event["id"].clone());
    let after = match all.len() > from + limit {
        true => id_of(events.last()),
        false => Value::Null,
    };
    let before = match from > 0 {
        true => id_of(events.first()),
        false => Value::Null,
    };
    let meta = json!({ "cursors": { "before": before, "after": after }, "limit": limit });
    Json(json!({ "events": events, "meta": meta })).into_response()
}
