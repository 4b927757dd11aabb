//! Standard Webhooks: any other sender, with a [`BillingEvent`] in proto3 JSON as its body.
//!
//! A signed body is still a stranger's word: `provider` and `account` are the endpoint's, whatever
//! the body says. Fields come under either of their JSON names; unknown ones are ignored, because
//! senders add `type` and `timestamp`.

pub mod signature;

use access_domain::billing::BillingEventKind;
use axum::http::HeaderMap;
use contracts::billing::v1::BillingEvent;
use jiff::Timestamp;

use crate::checked;
use crate::endpoints::Endpoint;
use crate::provider::{Provider, Refusal, Translated};

/// The provider.
pub struct Standard;

impl Provider for Standard {
    fn name(&self) -> &'static str {
        "standard"
    }

    fn verify(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let text = |name: &str, missing: &'static str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .ok_or(Refusal::Signature(missing))
        };
        let headers = signature::Headers {
            id: text("webhook-id", "the header webhook-id is missing")?,
            timestamp: text(
                "webhook-timestamp",
                "the header webhook-timestamp is missing",
            )?,
            signature: text(
                "webhook-signature",
                "the header webhook-signature is missing",
            )?,
        };
        signature::verify(
            headers,
            body,
            &endpoint.secrets,
            endpoint.tolerance_seconds,
            now,
        )
    }

    fn translate(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Vec<Translated>, Refusal> {
        let mut event: BillingEvent = serde_json::from_slice(body).map_err(|error| {
            Refusal::Body(format!(
                "the body must be a BillingEvent in proto3 JSON (line {}, column {})",
                error.line(),
                error.column()
            ))
        })?;
        event.provider = self.name().to_owned();
        event.account.clone_from(&endpoint.account);
        if event.event_id.is_empty() {
            let id = headers.get("webhook-id").and_then(|id| id.to_str().ok());
            event.event_id = id.unwrap_or_default().to_owned();
        }
        let kind: BillingEventKind = event
            .kind
            .parse()
            .map_err(|why| Refusal::Body(format!("`kind` {why}")))?;
        if event
            .occurred_at
            .as_ref()
            .and_then(contracts::wire::instant)
            .is_none()
        {
            return Err(Refusal::Body(
                "`occurred_at` must be an RFC 3339 time".into(),
            ));
        }
        checked::names_something(&event).map_err(Refusal::Body)?;
        checked::ids(&event).map_err(Refusal::Body)?;
        if let Some(currency) = &mut event.currency {
            currency.make_ascii_uppercase();
            if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
                return Err(Refusal::Body(
                    "`currency` must be three letters of ISO 4217".into(),
                ));
            }
        }
        Ok(vec![Translated {
            event_type: kind.as_str().to_owned(),
            event: Some(event),
        }])
    }
}
