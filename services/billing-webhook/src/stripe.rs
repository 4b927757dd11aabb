//! Stripe: <https://docs.stripe.com/webhooks>.

pub mod listing;
pub mod payload;
pub mod signature;
pub mod translate;

use axum::http::HeaderMap;
use jiff::Timestamp;
use serde_json::Value;

use crate::catchup::listing::Listing;
use crate::checked;
use crate::endpoints::Endpoint;
use crate::provider::{self, Provider, Refusal, Translated};

/// The provider.
pub struct Stripe;

impl Provider for Stripe {
    fn name(&self) -> &'static str {
        "stripe"
    }

    fn listing(&self) -> Option<&'static dyn Listing> {
        Some(&listing::StripeEvents)
    }

    fn verify(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let header = provider::one_header(
            headers,
            signature::HEADER,
            "the header Stripe-Signature must be there, once",
        )?;
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
        let event = payload::Event(&body);
        let event_type = event
            .kind()
            .ok_or_else(|| Refusal::Body("`type` must be the event's type".into()))?;
        let not_for_us = || Ok(vec![Translated::not_for_us(event_type)]);
        // A live endpoint of a connected account gets its test events too.
        let other_mode = event.livemode() == Some(!endpoint.livemode);
        let account = event.account().unwrap_or(&endpoint.account);
        if event.is_thin() || other_mode || !endpoint.takes_account(account) {
            return not_for_us();
        }
        let translated =
            translate::translate(event, event_type, endpoint.collects_by).map_err(Refusal::Body)?;
        // Types that nobody here reads, `invoice.created` before all, are accepted whatever else
        // they hold: without a 2xx Stripe holds the gym's invoices back.
        let Some(mut billing) = translated else {
            return not_for_us();
        };
        billing.provider = self.name().to_owned();
        billing.account = account.to_owned();
        checked::event(&billing).map_err(Refusal::Body)?;
        Ok(vec![Translated {
            event_type: event_type.to_owned(),
            event: Some(billing),
        }])
    }
}
