//! What a run over one account reads: each listed event, translated as a post of it would be.

use std::collections::{BTreeMap, HashSet};

use axum::http::HeaderMap;
use contracts::billing::v1::BillingEvent;
use secrecy::SecretString;
use tracing::{info, warn};

use super::listing::{Listed, Listing};
use super::measures::{self, Became};
use crate::endpoints::Endpoint;
use crate::provider::Provider;

/// The list of one account at one endpoint.
pub struct Source<'a> {
    pub provider: &'static dyn Provider,
    pub listing: &'static dyn Listing,
    pub endpoint: &'a Endpoint,
    pub key: &'a SecretString,
    pub account: String,
}

impl Source<'_> {
    /// Tells it from all others; also a key of the bucket.
    pub fn name(&self) -> String {
        format!(
            "{}.{}.{}",
            self.provider.name(),
            self.endpoint.id,
            self.account
        )
    }
}

/// What a run over one account has read so far.
pub struct Run<'a> {
    source: &'a Source<'a>,
    /// The endpoint as a post of this account would meet it.
    endpoint: Endpoint,
    listed: HashSet<String>,
    /// For us, and perhaps on `BILLING` already; with the provider's id.
    pub waiting: Vec<(String, BillingEvent)>,
    /// Ids that need no second look.
    pub settled: HashSet<String>,
    became: BTreeMap<&'static str, usize>,
}

impl<'a> Run<'a> {
    pub fn new(source: &'a Source<'a>) -> Self {
        Self {
            source,
            endpoint: Endpoint {
                account: source.account.clone(),
                ..source.endpoint.clone()
            },
            listed: HashSet::new(),
            waiting: Vec::new(),
            settled: HashSet::new(),
            became: BTreeMap::new(),
        }
    }

    /// Reads one event; `settled` are those that needed no second look at the last run's end.
    pub fn read(&mut self, listed: &Listed, settled: Option<&HashSet<String>>) {
        // A list that moves while it is read shows an event twice.
        if !self.listed.insert(listed.id.clone()) {
            return;
        }
        if settled.is_some_and(|settled| settled.contains(&listed.id)) {
            self.settled.insert(listed.id.clone());
            return;
        }
        let provider = self.source.provider;
        let posted = self.source.listing.as_posted(&listed.event);
        let translated = match provider.translate(&self.endpoint, &HeaderMap::new(), &posted) {
            Ok(translated) => translated,
            Err(refusal) => {
                warn!(
                    provider = provider.name(),
                    endpoint = %self.endpoint.id,
                    "An event that was not delivered cannot be read: {refusal}"
                );
                self.count(Became::Refused, 1);
                self.settled.insert(listed.id.clone());
                return;
            }
        };
        let events: Vec<_> = translated.into_iter().filter_map(|one| one.event).collect();
        if events.is_empty() {
            self.count(Became::NotForUs, 1);
            self.settled.insert(listed.id.clone());
        }
        for event in events {
            self.waiting.push((listed.id.clone(), event));
        }
    }

    /// Counts what became of events.
    pub fn count(&mut self, became: Became, events: usize) {
        measures::count(self.source.provider.name(), became, events);
        *self.became.entry(became.as_str()).or_default() += events;
    }

    /// Says what had been missing.
    pub fn tell(&self) {
        let published = self.became.get(Became::Published.as_str());
        if let Some(events) = published.filter(|events| **events > 0) {
            info!(
                provider = self.source.provider.name(),
                endpoint = %self.endpoint.id,
                account = %self.source.account,
                events,
                "Caught up on {events} events that had not been delivered"
            );
        }
    }
}
