//! W3C trace context in a message's headers: who published is linked to who consumes.
//!
//! A delivery's span *links* to the publishing one and is not its child: it may run hours later,
//! and many times.

use opentelemetry::trace::{SpanContext, TraceContextExt};
use std::collections::HashMap;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The current span's `traceparent`; `None` where no trace is recorded.
pub fn current() -> Option<String> {
    let context = Span::current().context();
    let span = context.span().span_context().clone();
    span.is_valid().then(|| render(&span))
}

/// The current span's `traceparent`, else that of a new, unsampled trace, so that a message's way
/// can be followed in any case.
pub(crate) fn current_or_new() -> String {
    current().unwrap_or_else(|| {
        format!(
            "00-{:032x}-{:016x}-00",
            rand::random::<u128>().max(1),
            rand::random::<u64>().max(1)
        )
    })
}

/// Links `span` to the one that `traceparent` names; nothing when that is malformed.
pub fn link(span: &Span, traceparent: &str) {
    if let Some(publisher) = parse(traceparent) {
        span.add_link(publisher);
    }
}

fn render(span: &SpanContext) -> String {
    format!(
        "00-{}-{}-{:02x}",
        span.trace_id(),
        span.span_id(),
        span.trace_flags().to_u8()
    )
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    use opentelemetry::propagation::TextMapPropagator;
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let context = opentelemetry_sdk::propagation::TraceContextPropagator::new().extract(&carrier);
    let span = context.span().span_context().clone();
    span.is_valid().then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_survives_parsing() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(render(&parse(text).unwrap()), text);
        assert!(parse("00-zz-1-01").is_none());
    }

    #[test]
    fn without_a_trace_a_message_still_gets_a_valid_traceparent() {
        assert!(parse(&current_or_new()).is_some());
    }
}
