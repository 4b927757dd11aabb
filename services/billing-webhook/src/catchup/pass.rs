//! One run: every endpoint with a key, account by account. List, translate as a post would be,
//! leave out what is on `BILLING`, publish the rest under the same ids.
//!
//! A run over an account counts as completed only when its list was read to the end and everything
//! in it is on disk; only then does its cursor move. A page that fails ends it, and the next run
//! begins where the last completed one did.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use contracts::billing::v1::BillingEvent;
use contracts::message::BusMessage;
use contracts::{subjects, wire};
use event_bus::{Bucket, BucketError, Bus, PublishError, StoredIdsError};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use service_runtime::clock::Clock;
use service_runtime::lifecycle::chain;
use tracing::{error, warn};

use super::api::{Api, ApiError, goes_round};
use super::listing::Page;
use super::measures::{self, Became};
use super::run::{Run, Source};
use crate::catchup::CatchUpSettings;
use crate::endpoints::{Endpoint, Endpoints};
use crate::intake::Intake;
use crate::provider;

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
    ) -> Result<Page, ApiError> {
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
