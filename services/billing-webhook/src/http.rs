//! The one route: limits, signature, translation, publish, and which answer says what.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use service_runtime::clock::Clock;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::endpoints::watch::Current;
use crate::intake::Intake;
use crate::measures::{ANSWERS, EVENTS, OVERLOADS};
use crate::provider::{self, Refusal};

/// The largest body; providers' are a hundredth of it.
pub const MAX_BODY: usize = 1024 * 1024;

/// What a request needs.
pub struct Entrance {
    pub endpoints: Current,
    pub intake: Intake,
    pub clock: Arc<dyn Clock>,
    /// Bodies under way at once.
    pub in_flight: Semaphore,
    /// How long a sender may take to send its body.
    pub read_timeout: Duration,
}

/// The router.
pub fn router(entrance: Arc<Entrance>) -> Router {
    Router::new()
        .route("/webhooks/{provider}/{endpoint}", any(post))
        .fallback(async || Answer::NotFound.into_response())
        .with_state(entrance)
}

/// Every way a post can be answered.
#[derive(Debug)]
enum Answer {
    Received,
    Refused(Refusal),
    NotFound,
    MethodNotAllowed,
    TooSlow,
    TooLarge,
    NotJson,
    Unreadable,
    /// JetStream did not ack in time.
    NotNow,
    Overloaded,
}

async fn post(
    State(entrance): State<Arc<Entrance>>,
    Path((provider, endpoint)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = receive(&entrance, &provider, &endpoint, &method, &headers, body).await;
    answer.into_response()
}

async fn receive(
    entrance: &Entrance,
    provider: &str,
    id: &str,
    method: &Method,
    headers: &HeaderMap,
    body: Body,
) -> Answer {
    let endpoints = entrance.endpoints.load();
    let (Some(provider), Some(endpoint)) = (provider::find(provider), endpoints.find(provider, id))
    else {
        return Answer::NotFound;
    };
    if method != Method::POST {
        return Answer::MethodNotAllowed;
    }
    if !is_json(headers) {
        return Answer::NotJson;
    }
    // Bounded, so that a flood is turned away instead of eating the memory.
    let Ok(_place) = entrance.in_flight.try_acquire() else {
        metrics::counter!(OVERLOADS).increment(1);
        return Answer::Overloaded;
    };
    let body = match read(body, entrance.read_timeout).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let now = entrance.clock.now();
    let events = match provider
        .verify(endpoint, headers, &body, now)
        .and_then(|()| provider.translate(endpoint, headers, &body))
    {
        Ok(translated) => translated,
        Err(refusal) => {
            info!(provider = provider.name(), endpoint = %endpoint.id, "Refused a webhook: {refusal}");
            return Answer::Refused(refusal);
        }
    };
    count(&events);
    let ours: Vec<_> = events
        .into_iter()
        .filter_map(|translated| translated.event)
        .collect();
    if ours.is_empty() {
        return Answer::Received;
    }
    match entrance.intake.publish(&ours, now).await {
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

async fn read(body: Body, within: Duration) -> Result<Bytes, Answer> {
    match tokio::time::timeout(within, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Answer::TooLarge),
        Ok(Err(_)) => Err(Answer::Unreadable),
        Err(_) => Err(Answer::TooSlow),
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

fn count(events: &[provider::Translated]) {
    use access_domain::billing::BillingEventKind;
    for translated in events {
        // A word of the closed set, so that the label cannot grow without bound.
        let kind = translated
            .event
            .as_ref()
            .and_then(|event| event.kind.parse::<BillingEventKind>().ok())
            .map_or("not_for_us", BillingEventKind::as_str);
        metrics::counter!(EVENTS, "kind" => kind).increment(1);
        tracing::debug!(event_type = %translated.event_type, kind, "Read a provider's event");
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let (status, code, message) = match &self {
            Self::Received => {
                counted(StatusCode::OK);
                return axum::Json(serde_json::json!({ "received": true })).into_response();
            }
            Self::Refused(Refusal::Signature(why)) => {
                (StatusCode::BAD_REQUEST, "signature", (*why).to_owned())
            }
            Self::Refused(Refusal::Body(why)) => (StatusCode::BAD_REQUEST, "body", why.clone()),
            Self::Unreadable => (
                StatusCode::BAD_REQUEST,
                "body",
                "the body broke off".to_owned(),
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not_found",
                "no such endpoint; post to /webhooks/{provider}/{endpoint}".to_owned(),
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "use POST".to_owned(),
            ),
            Self::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                "the body did not arrive in time".to_owned(),
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("the body is over {MAX_BODY} bytes"),
            ),
            Self::NotJson => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "media_type",
                "the content type must be application/json".to_owned(),
            ),
            Self::NotNow => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "not stored yet; send it again".to_owned(),
            ),
            Self::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "too many posts at once; send it again".to_owned(),
            ),
        };
        counted(status);
        let body = serde_json::json!({ "error": { "code": code, "message": message } });
        let mut response = (status, axum::Json(body)).into_response();
        let header = match status {
            StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, "5")),
            StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, "POST")),
            // Whatever else is on its way on this connection is not worth reading.
            StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE => {
                Some((header::CONNECTION, "close"))
            }
            _ => None,
        };
        if let Some((name, value)) = header {
            response
                .headers_mut()
                .insert(name, header::HeaderValue::from_static(value));
        }
        response
    }
}

fn counted(status: StatusCode) {
    let known = crate::measures::STATUSES
        .iter()
        .find(|known| **known == status.as_str());
    metrics::counter!(ANSWERS, "status" => known.copied().unwrap_or("other")).increment(1);
}
