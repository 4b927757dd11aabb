//! GoCardless: <https://developer.gocardless.com/api-reference/#appendix-webhooks>.
//!
//! One body carries up to 250 events of unrelated resources, and for a partner's app of several
//! organisations: then each event's own is its account. An event holds ids and causes, and neither
//! amount nor currency; they would have to be asked for, which no request waits for.

pub mod listing;
pub mod payload;
pub mod signature;
pub mod translate;

use axum::http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;

use crate::catchup::listing::Listing;
use crate::checked;
use crate::endpoints::Endpoint;
use crate::provider::{self, Provider, Refusal, Translated};

/// Where live posts say they come from.
const LIVE: &str = "https://api.gocardless.com";
/// Where test posts say they come from.
const SANDBOX: &str = "https://api-sandbox.gocardless.com";

/// The provider.
pub struct GoCardless;

impl Provider for GoCardless {
    fn name(&self) -> &'static str {
        "gocardless"
    }

    fn received(&self) -> StatusCode {
        StatusCode::NO_CONTENT
    }

    /// 498, "token invalid", is no standard status and the one that GoCardless asks for.
    fn bad_signature(&self) -> StatusCode {
        StatusCode::from_u16(498).unwrap_or(StatusCode::BAD_REQUEST)
    }

    fn listing(&self) -> Option<&'static dyn Listing> {
        Some(&listing::GoCardlessEvents)
    }

    fn verify(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        body: &[u8],
        _now: Timestamp,
    ) -> Result<(), Refusal> {
        let header = provider::one_header(
            headers,
            signature::HEADER,
            "the header Webhook-Signature must be there, once",
        )?;
        signature::verify(header, body, &endpoint.secrets)
    }

    fn translate(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Vec<Translated>, Refusal> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|_| Refusal::Body("the body must be JSON".into()))?;
        let events = payload::events(&body)
            .ok_or_else(|| Refusal::Body("`events` must be a list of events".into()))?;
        let other_mode = is_of_other_mode(headers, endpoint.livemode);
        events
            .map(|event| self.translate_one(endpoint, event, other_mode))
            .collect()
    }
}

impl GoCardless {
    fn translate_one(
        &self,
        endpoint: &Endpoint,
        event: payload::Event<'_>,
        other_mode: bool,
    ) -> Result<Translated, Refusal> {
        let (Some(resource), Some(action)) = (event.text("resource_type"), event.text("action"))
        else {
            return Err(Refusal::Body(
                "each event must have a `resource_type` and an `action`".into(),
            ));
        };
        let event_type = format!("{resource}.{action}");
        let account = event.link("organisation").unwrap_or(&endpoint.account);
        if other_mode || !endpoint.takes_account(account) {
            return Ok(Translated::not_for_us(event_type));
        }
        let translated = translate::translate(event, resource, action).map_err(Refusal::Body)?;
        let Some(mut billing) = translated else {
            return Ok(Translated::not_for_us(event_type));
        };
        billing.provider = self.name().to_owned();
        billing.account = account.to_owned();
        checked::event(&billing).map_err(Refusal::Body)?;
        Ok(Translated {
            event_type,
            event: Some(billing),
        })
    }
}

/// A body has no live mode; only the header says where it comes from, and may be missing. Secrets
/// are chosen by people, so that test and live may share one.
fn is_of_other_mode(headers: &HeaderMap, livemode: bool) -> bool {
    let other = if livemode { SANDBOX } else { LIVE };
    headers
        .get(header::ORIGIN)
        .is_some_and(|origin| origin.as_bytes() == other.as_bytes())
}
