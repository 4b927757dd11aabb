//! Stripe: <https://docs.stripe.com/webhooks>.

pub mod payload;
pub mod signature;
pub mod translate;

use axum::http::HeaderMap;
use jiff::Timestamp;
use serde_json::Value;

use crate::checked;
use crate::endpoints::Endpoint;
use crate::provider::{Provider, Refusal, Translated};

/// The provider.
pub struct Stripe;

impl Provider for Stripe {
    fn name(&self) -> &'static str {
        "stripe"
    }

    fn verify(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let header = headers
            .get(signature::HEADER)
            .ok_or(Refusal::Signature("the header Stripe-Signature is missing"))?
            .to_str()
            .map_err(|_| Refusal::Signature("the header Stripe-Signature is not text"))?;
        signature::verify(
            header,
            body,
            &endpoint.secrets,
            endpoint.tolerance_seconds,
            now,
        )
    }

    fn translate(
        &self,
        endpoint: &Endpoint,
        _headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Vec<Translated>, Refusal> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|_| Refusal::Body("the body must be JSON".into()))?;
        let event_type = body
            .get("type")
            .and_then(Value::as_str)
            .ok_or_else(|| Refusal::Body("`type` must be the event's type".into()))?
            .to_owned();
        // Thin events carry ids only, and no data to read.
        if body.get("object").and_then(Value::as_str) == Some("v2.core.event") {
            return Ok(vec![Translated {
                event_type,
                event: None,
            }]);
        }
        // What serde says may quote the body, and a body holds people and pay links.
        let event: payload::Event = serde_json::from_value(body).map_err(|_| {
            Refusal::Body(
                "not a Stripe event: `id`, `type` and `created` (Unix seconds) must stand beside \
                 `data.object`"
                    .into(),
            )
        })?;
        // A live endpoint of a connected account gets its test events too.
        let other_mode = endpoint.livemode != event.livemode;
        let account = event.account.as_deref().unwrap_or(&endpoint.account);
        if other_mode || !endpoint.takes_account(account) {
            return Ok(vec![Translated {
                event_type,
                event: None,
            }]);
        }
        let translated = translate::translate(&event).map_err(Refusal::Body)?;
        let event = match translated {
            Some(mut billing) => {
                billing.provider = self.name().to_owned();
                billing.account = account.to_owned();
                checked::ids(&billing).map_err(Refusal::Body)?;
                checked::names_something(&billing).map_err(Refusal::Body)?;
                Some(billing)
            }
            None => None,
        };
        Ok(vec![Translated { event_type, event }])
    }
}
