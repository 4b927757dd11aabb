//! The wrapping of a message: CloudEvents 1.0 in binary mode, as NATS headers, and the trace.
//!
//! `ce-id` is also `Nats-Msg-Id`, so that the stream's dedupe window trims repeats. It is derived
//! from the cause and never random: a retry is the same message.

use async_nats::HeaderMap;
use jiff::Timestamp;

pub(crate) const ID: &str = "ce-id";
pub(crate) const ABOUT: &str = "ce-subject";
pub(crate) const MESSAGE_ID: &str = "Nats-Msg-Id";
pub(crate) const TRACEPARENT: &str = "traceparent";

/// What a message says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// `ce-id`: the message's identity, derived from its cause.
    pub ce_id: String,
    /// `ce-type`: the full name of the proto message, such as `gymflow.billing.v1.BillingEvent`.
    pub ce_type: String,
    /// `ce-source`: who says so, such as `/membership-events`.
    pub ce_source: String,
    /// `ce-time`: when it happened, not when it was sent.
    pub ce_time: Timestamp,
    /// `ce-subject`: what it is about, as opaque ids.
    pub ce_subject: String,
    /// W3C `traceparent`. `None` when publishing means: the current span's, else a new trace.
    pub traceparent: Option<String>,
}

impl Envelope {
    pub(crate) fn write(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("ce-specversion", "1.0");
        headers.insert(ID, one_line(&self.ce_id));
        headers.insert("ce-type", one_line(&self.ce_type));
        headers.insert("ce-source", one_line(&self.ce_source));
        headers.insert("ce-time", self.ce_time.to_string());
        headers.insert(ABOUT, one_line(&self.ce_subject));
        headers.insert("content-type", "application/json");
        headers.insert(MESSAGE_ID, one_line(&self.ce_id));
        let traceparent = self
            .traceparent
            .clone()
            .unwrap_or_else(crate::trace_context::current_or_new);
        headers.insert(TRACEPARENT, one_line(&traceparent));
        headers
    }

    /// The envelope in `headers`; what is missing reads as empty, or as `received`.
    pub(crate) fn read(headers: &HeaderMap, received: Timestamp) -> Self {
        let text = |name: &str| text(headers, name).unwrap_or_default();
        Self {
            ce_id: text(ID),
            ce_type: text("ce-type"),
            ce_source: text("ce-source"),
            ce_time: text("ce-time").parse().unwrap_or(received),
            ce_subject: text(ABOUT),
            traceparent: Some(text(TRACEPARENT)).filter(|value| !value.is_empty()),
        }
    }
}

pub(crate) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.as_str().to_owned())
}

/// A header's value is one line; anything else would end the header block.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_survives_its_headers() {
        let envelope = Envelope {
            ce_id: "stripe/acct_a/evt_1".into(),
            ce_type: "gymflow.billing.v1.BillingEvent".into(),
            ce_source: "/billing-webhook".into(),
            ce_time: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            ce_subject: "sub_1".into(),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        };
        let headers = envelope.write();
        assert_eq!(Envelope::read(&headers, Timestamp::UNIX_EPOCH), envelope);
        assert_eq!(text(&headers, "Nats-Msg-Id").unwrap(), envelope.ce_id);
        assert_eq!(text(&headers, "content-type").unwrap(), "application/json");
        assert_eq!(text(&headers, "ce-specversion").unwrap(), "1.0");
    }
}
