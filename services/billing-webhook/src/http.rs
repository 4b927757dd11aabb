//! The one route: limits, signature, translation, publish. What is said is in `answer`.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use axum::routing::any;
use service_runtime::clock::Clock;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::answer::Answer;
use crate::body::{Bodies, Unread};
use crate::catchup::heard::Heard;
use crate::endpoints::watch::Current;
use crate::intake::Intake;
use crate::measures::{self, OVERLOADS};
use crate::provider::{self, Provider};

/// What a request needs.
pub struct Entrance {
    pub endpoints: Current,
    /// Empty until the bus is there.
    pub intake: Arc<OnceLock<Intake>>,
    pub clock: Arc<dyn Clock>,
    pub bodies: Bodies,
    pub heard: Arc<Heard>,
    /// Posts whose body is here and whose acks are not, at once.
    pub in_flight: Semaphore,
}

/// The router.
pub fn router(entrance: Arc<Entrance>) -> Router {
    Router::new()
        .route("/webhooks/{provider}/{endpoint}", any(post))
        .fallback(async || Answer::NotFound.for_provider(None))
        .with_state(entrance)
}

async fn post(
    State(entrance): State<Arc<Entrance>>,
    Path((provider, endpoint)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let provider = provider::find(&provider);
    let answer = match provider {
        Some(provider) => receive(&entrance, provider, &endpoint, &method, &headers, body).await,
        None => Answer::NotFound,
    };
    answer.for_provider(provider)
}

async fn receive(
    entrance: &Entrance,
    provider: &'static dyn Provider,
    id: &str,
    method: &Method,
    headers: &HeaderMap,
    body: Body,
) -> Answer {
    if entrance
        .endpoints
        .load()
        .find(provider.name(), id)
        .is_none()
    {
        return Answer::NotFound;
    }
    if method != Method::POST {
        return Answer::MethodNotAllowed;
    }
    if !is_json(headers) {
        return Answer::NotJson;
    }
    let body = match entrance.bodies.read(body).await {
        Ok(body) => body,
        Err(unread) => {
            if unread == Unread::NoRoom {
                metrics::counter!(OVERLOADS, "of" => "bodies").increment(1);
            }
            return Answer::Unread(unread);
        }
    };
    // Bounded, so that a flood is turned away and those inside are still answered in time.
    let Ok(_place) = entrance.in_flight.try_acquire() else {
        metrics::counter!(OVERLOADS, "of" => "posts").increment(1);
        return Answer::Overloaded;
    };
    // The endpoints of now: a body may have been on its way while a secret was replaced.
    let endpoints = entrance.endpoints.load();
    let Some(endpoint) = endpoints.find(provider.name(), id) else {
        return Answer::NotFound;
    };
    let now = entrance.clock.now();
    let events = match provider
        .verify(endpoint, headers, &body.bytes, now)
        .and_then(|()| provider.translate(endpoint, headers, &body.bytes))
    {
        Ok(translated) => {
            entrance.heard.note(endpoint, now);
            translated
        }
        Err(refusal) => {
            info!(provider = provider.name(), endpoint = %endpoint.id, "Refused a webhook: {refusal}");
            return Answer::Refused(refusal);
        }
    };
    count(provider.name(), &events);
    let ours: Vec<_> = events
        .into_iter()
        .filter_map(|translated| translated.event)
        .collect();
    if ours.is_empty() {
        return Answer::Received;
    }
    let Some(intake) = entrance.intake.get() else {
        return Answer::NotNow;
    };
    match intake.publish(&ours, now).await {
        Ok(()) => Answer::Received,
        Err(error) => {
            warn!(
                provider = provider.name(),
                endpoint = %endpoint.id,
                "A webhook is not on disk and will be sent again: {}",
                service_runtime::lifecycle::chain(&error)
            );
            Answer::NotNow
        }
    }
}

/// No content type is as good as JSON: the signature decides.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(media) = headers.get(header::CONTENT_TYPE) else {
        return true;
    };
    let media = media.to_str().unwrap_or_default();
    let essence = media.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn count(provider: &'static str, events: &[provider::Translated]) {
    for translated in events {
        match &translated.event {
            Some(event) => measures::event(provider, &event.kind),
            None => measures::not_for_us(provider, &translated.event_type),
        }
        tracing::debug!(
            provider,
            event_type = measures::type_label(provider, &translated.event_type),
            for_us = translated.event.is_some(),
            "Read a provider's event"
        );
    }
}
