//! The registry of payment providers: one folder each, and one line here.
//!
//! A provider knows its own signature and its own JSON. What leaves it is a [`BillingEvent`], or
//! the word that an event is understood and not for us.

use axum::http::{HeaderMap, StatusCode};
use contracts::billing::v1::BillingEvent;
use jiff::Timestamp;

use crate::catchup::listing::Listing;
use crate::endpoints::Endpoint;
use crate::{gocardless, standard, stripe};

/// Why a post is refused. The message goes to the sender; it names what is wrong and no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The signature is missing, wrong, or too old.
    #[error("{0}")]
    Signature(&'static str),
    /// The body is not what the provider sends.
    #[error("{0}")]
    Body(String),
}

/// One event of a body, and what it becomes.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// The provider's own name of the type.
    pub event_type: String,
    /// `None`: understood, and not for us.
    pub event: Option<BillingEvent>,
}

impl Translated {
    /// Understood, and not for us.
    pub fn not_for_us(event_type: impl Into<String>) -> Self {
        Self {
            event_type: event_type.into(),
            event: None,
        }
    }
}

/// A payment provider.
pub trait Provider: Send + Sync {
    /// The word in the path and in [`BillingEvent::provider`].
    fn name(&self) -> &'static str;

    /// The status that says "received".
    fn received(&self) -> StatusCode {
        StatusCode::OK
    }

    /// The status that says "the signature is missing, wrong or stale".
    fn bad_signature(&self) -> StatusCode {
        StatusCode::BAD_REQUEST
    }

    /// How its API lists events; `None`: it has none to be asked.
    fn listing(&self) -> Option<&'static dyn Listing> {
        None
    }

    /// Checks the signature over the raw bytes, at `now`.
    fn verify(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal>;

    /// What the body's events become. Called after [`Provider::verify`].
    fn translate(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Vec<Translated>, Refusal>;
}

/// Every provider that can be posted to.
pub static PROVIDERS: [&dyn Provider; 3] = [
    &stripe::Stripe,
    &gocardless::GoCardless,
    &standard::Standard,
];

/// The provider of this name.
pub fn find(name: &str) -> Option<&'static dyn Provider> {
    PROVIDERS
        .iter()
        .find(|provider| provider.name() == name)
        .copied()
}

/// A header of the signature: there, once, and text. Where it stood twice, libraries would disagree
/// on which one counts.
pub fn one_header<'a>(
    headers: &'a HeaderMap,
    name: &str,
    otherwise: &'static str,
) -> Result<&'a str, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| Refusal::Signature(otherwise)),
        _ => Err(Refusal::Signature(otherwise)),
    }
}
