//! Errors of the JSON routes: problem details (RFC 9457), with the fields at fault.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use service_runtime::problem::{MEDIA_TYPE, Problem};
use utoipa::ToSchema;

use crate::refusal::{FieldError, Refusal};

/// Problem details (RFC 9457): the body of every error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// A URI of the kind of problem; `about:blank`: the status tells it all.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// One word for programs, such as `invalid_argument`.
    pub code: String,
    /// A sentence for people.
    pub detail: String,
    /// The fields of the request at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemField>,
}

/// One field of a request at fault.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemField {
    /// Its name, such as `associations[0].group_id`.
    pub field: String,
    /// What is expected.
    pub message: String,
}

impl From<FieldError> for ProblemField {
    fn from(error: FieldError) -> Self {
        Self {
            field: error.field,
            message: error.message,
        }
    }
}

/// A refusal on its way out of a handler.
/// Boxed, because every handler's result has room for one.
#[derive(Debug)]
pub struct HttpRefusal(Box<Refused>);

#[derive(Debug)]
struct Refused {
    problem: Problem,
    errors: Vec<FieldError>,
}

impl HttpRefusal {
    /// A status of HTTP's own, such as 415.
    pub fn of_http(status: StatusCode, code: &str, detail: &str) -> Self {
        Self(Box::new(Refused {
            problem: Problem::new(status, code, detail),
            errors: Vec::new(),
        }))
    }
}

impl From<Refusal> for HttpRefusal {
    fn from(refusal: Refusal) -> Self {
        // service-runtime owns the mapping from gRPC codes.
        let status = tonic::Status::new(refusal.code(), refusal.sentence());
        let mut problem = Problem::from(status);
        if matches!(refusal, Refusal::NotCaughtUp | Refusal::BusAway) {
            problem.retry_after = Some(Duration::from_secs(2));
        }
        Self(Box::new(Refused {
            problem,
            errors: refusal.fields(),
        }))
    }
}

impl IntoResponse for HttpRefusal {
    fn into_response(self) -> Response {
        let Refused { problem, errors } = *self.0;
        let body = ProblemBody {
            kind: problem.kind.clone(),
            title: problem.title.clone(),
            status: problem.status,
            code: problem.code.clone(),
            detail: problem.detail.clone(),
            errors: errors.into_iter().map(Into::into).collect(),
        };
        // The headers (Retry-After, WWW-Authenticate) are the problem's own.
        let mut response = problem.into_response();
        *response.body_mut() = serde_json::to_vec(&body).unwrap_or_default().into();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response
    }
}

/// Middleware: errors that axum answers by itself (no such route, wrong method, too large) get a
/// problem's body, and keep their headers, `Allow` above all.
pub async fn describe_errors(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let described = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|media| media == MEDIA_TYPE);
    if described || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (code, detail) = match status {
        StatusCode::NOT_FOUND => ("not_found", "there is nothing at this address"),
        StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "see the header Allow"),
        StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "the body is too large"),
        StatusCode::BAD_REQUEST => ("invalid_argument", "the address makes no sense"),
        _ => ("error", "the request cannot be answered"),
    };
    let (parts, _) = response.into_parts();
    let mut described = HttpRefusal::of_http(status, code, detail).into_response();
    for (name, value) in &parts.headers {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            described.headers_mut().insert(name.clone(), value.clone());
        }
    }
    described
}

/// Middleware: answers are for this caller and this moment alone.
pub async fn forbid_caching(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
