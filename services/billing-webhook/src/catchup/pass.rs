//! One run: every endpoint with a key, account by account. List, translate as a post would be,
//! leave out what is on `BILLING`, publish the rest under the same ids.
//!
//! A run over an account counts as completed only when its list was read to the end and everything
//! in it is on disk; only then does its cursor move. A page that fails ends it, and the next run
//! begins where the last completed one did.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::http::HeaderMap;
use contracts::billing::v1::BillingEvent;
use contracts::message::BusMessage;
use contracts::{subjects, wire};
use event_bus::{Bucket, BucketError, Bus, PublishError, StoredIdsError};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use service_runtime::clock::Clock;
use service_runtime::lifecycle::chain;
use tracing::{error, info, warn};

use super::api::{Api, ApiError, goes_round};
use super::listing::{Listed, Listing};
use super::measures::{self, Became};
use crate::catchup::CatchUpSettings;
use crate::endpoints::{Endpoint, Endpoints};
use crate::intake::Intake;
use crate::provider::{self, Provider};

/// Where a first run begins: as far back as `BILLING` can say what it holds.
const FIRST_LOOK: SignedDuration = SignedDuration::from_hours(30 * 24);
/// An event may show in the list a little late, and clocks differ; so does when `BILLING` stored it.
const OVERLAP: SignedDuration = SignedDuration::from_mins(10);
/// Events that wait for a look at `BILLING`; more are settled before the list is read on.
const MOST_WAITING: usize = 5_000;
/// Events that are published side by side.
const SIDE_BY_SIDE: usize = 32;

/// Why a run over one account ended early.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the provider's API failed")]
    Api(#[from] ApiError),
    #[error("BILLING cannot be looked through")]
    Look(#[from] StoredIdsError),
    #[error("an event is not on disk")]
    Publish(#[from] PublishError),
    #[error("the cursor cannot be read or moved")]
    Cursor(#[from] BucketError),
}

impl Failed {
    fn cause(&self) -> &'static str {
        match self {
            Self::Api(error) => error.cause(),
            _ => "bus",
        }
    }

    fn concerns_account_alone(&self) -> bool {
        matches!(self, Self::Api(error) if error.concerns_account_alone())
    }
}

/// Up to where a list was read; kept in the bucket per account.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Cursor {
    /// When the last completed run began.
    listed_to: Timestamp,
}

/// What a run needs, and what it remembers until the next.
pub struct Catcher {
    pub bus: Bus,
    pub bucket: Bucket,
    pub intake: Intake,
    pub api: Api,
    pub settings: CatchUpSettings,
    pub clock: Arc<dyn Clock>,
    pub settled: Settled,
}

/// Ids of listed events that need no second look, by account: those on `BILLING`, not for us, and
/// refused. Saves work alone: a process that starts has none.
#[derive(Default)]
pub struct Settled {
    endpoints: Option<Arc<Endpoints>>,
    by_account: BTreeMap<String, HashSet<String>>,
}

impl Settled {
    /// What an event is depends on its endpoint, so other endpoints need a second look at all.
    fn under(&mut self, endpoints: &Arc<Endpoints>) {
        let same = |known: &Arc<Endpoints>| Arc::ptr_eq(known, endpoints);
        if !self.endpoints.as_ref().is_some_and(same) {
            self.endpoints = Some(Arc::clone(endpoints));
            self.by_account.clear();
        }
    }
}

/// The list of one account at one endpoint.
struct Source<'a> {
    provider: &'static dyn Provider,
    listing: &'static dyn Listing,
    endpoint: &'a Endpoint,
    key: &'a SecretString,
    account: String,
}

impl Source<'_> {
    /// Tells it from all others; also a key of the bucket.
    fn name(&self) -> String {
        format!(
            "{}.{}.{}",
            self.provider.name(),
            self.endpoint.id,
            self.account
        )
    }
}

impl Catcher {
    /// Runs over everything once.
    pub async fn run(&mut self, endpoints: &Arc<Endpoints>) {
        self.settled.under(endpoints);
        for endpoint in endpoints.iter() {
            self.run_endpoint(endpoint).await;
        }
    }

    async fn run_endpoint(&mut self, endpoint: &Endpoint) {
        let Some(provider) = provider::find(&endpoint.provider) else {
            return;
        };
        let (Some(key), Some(listing)) = (&endpoint.api_key, provider.listing()) else {
            return;
        };
        for account in listing.accounts(endpoint) {
            let source = Source {
                provider,
                listing,
                endpoint,
                key,
                account,
            };
            let Err(failed) = self.run_source(&source).await else {
                measures::completed(provider.name());
                continue;
            };
            measures::failed(provider.name(), failed.cause());
            tell(&source, &failed);
            if !failed.concerns_account_alone() {
                return;
            }
        }
    }

    async fn run_source(&mut self, source: &Source<'_>) -> Result<(), Failed> {
        let began = self.clock.now();
        let cursor = match source.listing.keeps_cursor() {
            true => Some(self.cursor(source).await?),
            false => None,
        };
        let listed_to = cursor.and_then(|(at, _)| at);
        let since = listed_to
            .and_then(|at| at.checked_sub(OVERLAP).ok())
            .or_else(|| began.checked_sub(FIRST_LOOK).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH);
        let mut run = Run::new(source);
        let mut after: Option<String> = None;
        loop {
            let page = self.page(source, since, after.as_deref()).await?;
            let settled = self.settled.by_account.get(&source.name());
            for listed in &page.events {
                run.read(listed, settled);
            }
            if run.waiting.len() >= MOST_WAITING {
                self.settle(source, &mut run).await?;
            }
            match page.next {
                Some(next) if goes_round(after.as_deref(), &next, &page.events) => {
                    return Err(ApiError::Unreadable("its pages lead round in a circle").into());
                }
                Some(next) => after = Some(next),
                None => break,
            }
        }
        self.settle(source, &mut run).await?;
        if let Some((_, revision)) = cursor {
            // Clocks may differ, and the overlap is for that.
            let cursor = Cursor { listed_to: began };
            self.bucket
                .write(&cursor_key(source), &cursor, revision)
                .await?;
        }
        run.tell();
        self.settled.by_account.insert(source.name(), run.settled);
        Ok(())
    }

    async fn cursor(&self, source: &Source<'_>) -> Result<(Option<Timestamp>, u64), BucketError> {
        let found = self.bucket.read::<Cursor>(&cursor_key(source)).await?;
        Ok(found.map_or((None, 0), |(cursor, revision)| {
            (Some(cursor.listed_to), revision)
        }))
    }

    async fn page(
        &self,
        source: &Source<'_>,
        since: Timestamp,
        after: Option<&str>,
    ) -> Result<super::listing::Page, ApiError> {
        let Source {
            provider,
            listing,
            endpoint,
            key,
            account,
        } = source;
        let ask = listing.ask(endpoint, account, since, after);
        let base = self.settings.base(provider.name());
        let base = match base {
            Some(base) => base.clone(),
            None => super::api::base(listing.base(endpoint.livemode))
                .map_err(|_| ApiError::Unreadable("there is no address to ask"))?,
        };
        measures::asked(provider.name());
        self.api.page(*listing, &base, key, &ask).await
    }

    /// Publishes what waits and is not on `BILLING`.
    async fn settle(&self, source: &Source<'_>, run: &mut Run<'_>) -> Result<(), Failed> {
        let waiting = std::mem::take(&mut run.waiting);
        let stored = self.stored(source, &waiting).await?;
        let (known, missing): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|(_, event)| stored.contains(&event.id()));
        run.count(Became::Known, known.len());
        run.settled.extend(known.into_iter().map(|(id, _)| id));
        for chunk in missing.chunks(SIDE_BY_SIDE) {
            let events: Vec<_> = chunk.iter().map(|(_, event)| event.clone()).collect();
            self.intake.publish(&events, self.clock.now()).await?;
            run.count(Became::Published, events.len());
            run.settled.extend(chunk.iter().map(|(id, _)| id.clone()));
        }
        Ok(())
    }

    /// The ids on `BILLING` among those that wait. An event was not stored before it happened.
    async fn stored(
        &self,
        source: &Source<'_>,
        waiting: &[(String, BillingEvent)],
    ) -> Result<HashSet<String>, StoredIdsError> {
        let mut by_account: BTreeMap<&str, (HashSet<String>, Timestamp)> = BTreeMap::new();
        for (_, event) in waiting {
            let at = event.occurred_at.as_ref().and_then(wire::instant);
            let at = at.unwrap_or(Timestamp::UNIX_EPOCH);
            let (ids, earliest) = by_account
                .entry(&event.account)
                .or_insert_with(|| (HashSet::new(), at));
            ids.insert(event.id());
            *earliest = at.min(*earliest);
        }
        let mut stored = HashSet::new();
        for (account, (ids, earliest)) in by_account {
            let filter = subjects::billing(source.provider.name(), account, "*");
            let since = earliest.checked_sub(OVERLAP).unwrap_or(earliest);
            let found = self
                .bus
                .stored_ids(subjects::BILLING, &filter, since, &ids)
                .await?;
            stored.extend(found);
        }
        Ok(stored)
    }
}

/// What a run over one account has read so far.
struct Run<'a> {
    source: &'a Source<'a>,
    /// The endpoint as a post of this account would meet it.
    endpoint: Endpoint,
    listed: HashSet<String>,
    waiting: Vec<(String, BillingEvent)>,
    settled: HashSet<String>,
    became: BTreeMap<&'static str, usize>,
}

impl<'a> Run<'a> {
    fn new(source: &'a Source<'a>) -> Self {
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

    fn read(&mut self, listed: &Listed, settled: Option<&HashSet<String>>) {
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

    fn count(&mut self, became: Became, events: usize) {
        measures::count(self.source.provider.name(), became, events);
        *self.became.entry(became.as_str()).or_default() += events;
    }

    fn tell(&self) {
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

fn cursor_key(source: &Source<'_>) -> String {
    format!("cursor.{}", source.name())
}

/// A key that is refused needs a person; the rest may pass.
fn tell(source: &Source<'_>, failed: &Failed) {
    let provider = source.provider.name();
    let endpoint = &source.endpoint.id;
    let account = &source.account;
    let chain = chain(failed);
    match failed.cause() {
        "unauthorized" => error!(
            provider,
            %endpoint,
            %account,
            "The API key of {provider}/{endpoint} is refused, and nothing is caught up: {chain}"
        ),
        _ => warn!(
            provider,
            %endpoint,
            %account,
            "Catching up {provider}/{endpoint} failed and begins anew at the next run: {chain}"
        ),
    }
}
