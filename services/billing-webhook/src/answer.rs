//! What a sender is told: the status its provider understands, and a body that says what is wrong
//! and nothing of secrets.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::body::{MAX_BODY, Unread};
use crate::measures;
use crate::provider::{Provider, Refusal};

/// Every way a post can be answered.
#[derive(Debug)]
pub enum Answer {
    /// Every event is on disk, or not for us.
    Received,
    Refused(Refusal),
    NotFound,
    MethodNotAllowed,
    NotJson,
    Unread(Unread),
    /// JetStream did not ack in time.
    NotNow,
    /// Too many posts are in flight.
    Overloaded,
}

impl Answer {
    /// The answer in the words of this provider; of none when the path names none we know.
    pub fn for_provider(self, provider: Option<&'static dyn Provider>) -> Response {
        let response = self.response(provider);
        let name = provider.map_or(measures::NO_PROVIDER, |provider| provider.name());
        measures::answered(name, response.status().as_str());
        response
    }

    fn response(self, provider: Option<&'static dyn Provider>) -> Response {
        let (status, code, message) = match self {
            Self::Received => {
                let status = provider.map_or(StatusCode::OK, |provider| provider.received());
                if status == StatusCode::NO_CONTENT {
                    return status.into_response();
                }
                return (status, axum::Json(json!({ "received": true }))).into_response();
            }
            Self::Refused(Refusal::Signature(why)) => {
                let status =
                    provider.map_or(StatusCode::BAD_REQUEST, |provider| provider.bad_signature());
                (status, "signature", why.into())
            }
            Self::Refused(Refusal::Body(why)) => (StatusCode::BAD_REQUEST, "body", why),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not_found",
                "no such endpoint; post to /webhooks/{provider}/{endpoint}".into(),
            ),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method", "use POST".into()),
            Self::NotJson => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "media_type",
                "the content type must be application/json".into(),
            ),
            Self::Unread(Unread::TooLarge) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("the body is over {MAX_BODY} bytes"),
            ),
            Self::Unread(Unread::TooSlow) => (
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                "the body did not arrive in time".into(),
            ),
            Self::Unread(Unread::BrokenOff) => {
                (StatusCode::BAD_REQUEST, "body", "the body broke off".into())
            }
            Self::Unread(Unread::Stopping) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "stopping",
                "this replica stops; send it again".into(),
            ),
            Self::NotNow => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "not stored yet; send it again".into(),
            ),
            Self::Overloaded | Self::Unread(Unread::NoRoom) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "too many posts at once; send it again".into(),
            ),
        };
        let body = json!({ "error": { "code": code, "message": message } });
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
            }
            _ => {}
        }
        if matches!(code, "too_large" | "timeout" | "stopping") {
            // Whatever else is on its way on this connection is not worth reading.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
