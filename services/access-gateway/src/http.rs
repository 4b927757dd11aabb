//! The JSON routes under `/api/v1`, the OpenAPI document, Kisi's event webhooks, the landing page.
//!
//! A handler reads the request into a message, calls [`crate::gateway`] and writes the answer in
//! the words of `json`; it decides nothing.

pub mod body;
mod json;
mod openapi;
mod problem;
mod routes;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, response::Html};
use service_runtime::identity::{Verifier, http::authenticate};
use service_runtime::trace_context::trace_requests;

use crate::gateway::Gateway;

/// Everything this service answers over HTTP.
pub fn router(gateway: Arc<Gateway>, verifier: Verifier) -> Router {
    let (api, _) = routes::api().split_for_parts();
    let api = api
        .route_layer(from_fn_with_state(verifier, authenticate))
        .with_state(Arc::clone(&gateway));
    let (kisi_events, _) = routes::kisi_events::routes().split_for_parts();
    Router::new()
        .merge(api)
        .merge(kisi_events.with_state(gateway))
        .route("/api/openapi.json", get(document))
        .route("/", get(landing_page))
        .layer(DefaultBodyLimit::max(body::MOST_BYTES))
        .layer(from_fn(problem::describe_errors))
        .layer(from_fn(problem::forbid_caching))
        .layer(from_fn(trace_requests))
}

/// Made when asked: it is asked seldom, and need not lie in memory.
async fn document() -> impl IntoResponse {
    let document = openapi::document();
    (
        [(header::CONTENT_TYPE, "application/json")],
        serde_json::to_string(&document).unwrap_or_default(),
    )
}

async fn landing_page() -> Html<&'static str> {
    Html(include_str!("http/landing.html"))
}
