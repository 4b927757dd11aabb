//! One webhook, and the billing facts in it.

use std::collections::BTreeSet;

use crate::history::Provider;

/// A fact's identity for good: provider, account, event.
pub type FactId = (String, String, String);

/// What a provider posts at once: one event of Stripe's, up to 250 of GoCardless's.
#[derive(Clone, Debug)]
pub struct Post {
    pub provider: Provider,
    /// Its id: the event's, or the webhook's.
    pub name: String,
    /// When the provider makes it, Unix seconds.
    pub at: i64,
    pub body: Vec<u8>,
    /// The rest is answered and left out.
    pub facts: BTreeSet<FactId>,
}

pub fn fact_id(provider: Provider, account: &str, event: &str) -> FactId {
    (
        provider.as_str().to_owned(),
        account.to_owned(),
        event.to_owned(),
    )
}
