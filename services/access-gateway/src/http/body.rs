//! JSON bodies and query strings, read so that an error names the field at fault.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use super::problem::HttpRefusal;
use crate::refusal::Refusal;

/// Largest body of a JSON route, in bytes.
pub const MOST_BYTES: usize = 256 * 1024;

/// A JSON body; 415 without its media type, 400 naming the field, 413 when too large.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = HttpRefusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, HttpRefusal> {
        if !is_json(&request) {
            return Err(HttpRefusal::of_http(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "a body of application/json is expected",
            ));
        }
        parse(&bytes(request, state).await?).map(Self)
    }
}

/// A JSON body that may be left out.
#[derive(Debug)]
pub struct OptionalJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = HttpRefusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, HttpRefusal> {
        let json = is_json(&request);
        let body = bytes(request, state).await?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        if !json {
            return Err(HttpRefusal::of_http(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "a body of application/json is expected",
            ));
        }
        parse(&body).map(Self)
    }
}

/// A body as it came.
pub async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, HttpRefusal> {
    Bytes::from_request(request, state).await.map_err(|failed| {
        let status = failed.status();
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            return HttpRefusal::of_http(status, "too_large", "the body is too large");
        }
        HttpRefusal::of_http(
            StatusCode::BAD_REQUEST,
            "invalid_argument",
            "the body broke off",
        )
    })
}

fn is_json(request: &Request) -> bool {
    let Some(media) = request.headers().get(header::CONTENT_TYPE) else {
        return false;
    };
    let essence = media
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, HttpRefusal> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let text = inner.to_string();
        // serde names a missing field in its text and the parent in the path.
        let missing = text
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split_once('`'))
            .map(|(name, _)| name);
        // `?` stands for a place that cannot be named, as in JSON that breaks off.
        let path = path.trim_end_matches('?').trim_end_matches('.');
        let field = match (path, missing) {
            _ if !inner.is_data() => "body".to_owned(),
            ("", Some(name)) => name.to_owned(),
            (path, Some(name)) => format!("{path}.{name}"),
            ("", None) => "body".to_owned(),
            (path, None) => path.to_owned(),
        };
        // The values of a body are not repeated: some are keys.
        let message = if missing.is_some() {
            "it is missing".to_owned()
        } else if inner.is_data() {
            expected(&text)
        } else {
            format!(
                "JSON is expected; line {} column {} is none",
                inner.line(),
                inner.column()
            )
        };
        HttpRefusal::from(Refusal::field(&field, message))
    })?;
    reader.end().map_err(|_| {
        HttpRefusal::from(Refusal::field(
            "body",
            "one JSON value is expected, not more",
        ))
    })?;
    Ok(parsed)
}

/// What serde expected, without the value it found.
fn expected(text: &str) -> String {
    let from = text.rfind("expected ").unwrap_or(0);
    let text = text.get(from..).unwrap_or(text);
    let text = text.split(" at line ").next().unwrap_or(text);
    match text.strip_prefix("expected ") {
        Some(what) => format!("{what} is expected"),
        None => "a value that makes sense is expected".to_owned(),
    }
}

/// A query parameter that is an instant.
pub fn instant(field: &str, text: &str) -> Result<jiff::Timestamp, HttpRefusal> {
    text.parse().map_err(|_| {
        Refusal::field(
            field,
            "an RFC 3339 instant is expected, such as 2026-03-01T06:00:00Z",
        )
        .into()
    })
}
