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
use serde_json::Value;

use crate::checked;
use crate::endpoints::Endpoint;
use crate::provider::{self, Provider, Refusal, Translated};

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
        let headers = signature::Headers {
            id: provider::one_header(
                headers,
                "webhook-id",
                "the header webhook-id must be there, once",
            )?,
            timestamp: provider::one_header(
                headers,
                "webhook-timestamp",
                "the header webhook-timestamp must be there, once",
            )?,
            signature: provider::one_header(
                headers,
                "webhook-signature",
                "the header webhook-signature must be there, once",
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
        let mut event = read(body).map_err(|error| {
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
        without_empty_fields(&mut event);
        event.metadata.retain(|key, _| key.starts_with("gymflow_"));
        if let Some(currency) = &mut event.currency {
            currency.make_ascii_uppercase();
        }
        checked::event(&event).map_err(Refusal::Body)?;
        Ok(vec![Translated {
            event_type: kind.as_str().to_owned(),
            event: Some(event),
        }])
    }
}

/// Under either name of each field, int64 as a number or as text. In proto3 JSON `null` is a field
/// that is not there, which the generated code knows of some fields only.
fn read(body: &[u8]) -> Result<BillingEvent, serde_json::Error> {
    serde_json::from_slice(body).or_else(|error| {
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(body) else {
            return Err(error);
        };
        let before = fields.len();
        fields.retain(|_, value| !value.is_null());
        if fields.len() == before {
            return Err(error);
        }
        serde_json::from_value(Value::Object(fields)).map_err(|_| error)
    })
}

/// Some senders write a field that they have nothing for as an empty text.
fn without_empty_fields(event: &mut BillingEvent) {
    for field in [
        &mut event.invoice_id,
        &mut event.payment_id,
        &mut event.subscription_id,
        &mut event.mandate_id,
        &mut event.new_mandate_id,
        &mut event.customer_id,
        &mut event.currency,
        &mut event.reason,
        &mut event.payment_url,
    ] {
        field.take_if(|text| text.is_empty());
    }
}
