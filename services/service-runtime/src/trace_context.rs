//! W3C trace context over HTTP and gRPC: one span per request, joined to the caller's.
//!
//! Messages on the bus carry theirs in their own headers, which the bus library writes.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector};
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Writes the current span's `traceparent` into `headers`; nothing when there is no trace.
pub fn inject(headers: &mut HeaderMap) {
    inject_from(&Span::current(), headers);
}

/// Writes `span`'s `traceparent` into `headers`; nothing when it has no trace.
pub fn inject_from(span: &Span, headers: &mut HeaderMap) {
    opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&span.context(), &mut Headers(headers));
    });
}

/// The caller's trace context in `headers`.
pub fn extract(headers: &HeaderMap) -> Context {
    opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.extract(&HeadersRef(headers))
    })
}

/// Middleware for axum: a span per request, child of the caller's. The path is not in it, because
/// paths hold ids of people; the matched route is.
pub async fn trace_requests(request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<axum::extract::MatchedPath>()
        .map_or("unmatched", |path| path.as_str())
        .to_owned();
    let span =
        tracing::info_span!("http.request", http.method = %request.method(), http.route = %route);
    // Fails only where no exporter is installed, and then there is nothing to join.
    let _ = span.set_parent(extract(request.headers()));
    next.run(request).instrument(span).await
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::try_from(key),
            http::HeaderValue::try_from(value),
        ) {
            self.0.insert(name, value);
        }
    }
}

struct HeadersRef<'a>(&'a HeaderMap);

impl Extractor for HeadersRef<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
