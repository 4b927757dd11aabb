//! What payment providers said, taken in: one transaction per event, with the inbox row, the link,
//! the decisions of everybody concerned and their outbox rows.
//!
//! Events that wait together share one transaction, and with it the disk flush that is most of what
//! one costs ([`together`]); a lone one does not wait. Each is acked after the commit.
//!
//! The inbox row's key is the provider's own and is kept for good, so that a repeat days later
//! changes nothing. Facts join in any order; nothing here compares arrival times.

mod together;

use std::collections::BTreeSet;
use std::time::Duration;

use access_domain::billing::{BillingEventKind, Fact};
use contracts::billing::v1::BillingEvent;
use contracts::message::BusMessage;
use contracts::{subjects, wire};
use event_bus::backoff::Backoff;
use event_bus::{Bus, ConsumerConfig, Delivery, Disposition, Ordering};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::SERVICE;
use crate::cause::CauseOf;
use crate::error::Error;
use crate::lanes::{Lanes, Work};
use crate::linking::{self, Touched};
use crate::store::billing::{self, Held, Keys};
use crate::store::entity::billing_events;
use crate::store::locks;
use crate::unit::Decisions;

/// Billing events by what became of them.
pub const EVENTS: &str = "membership_events_billing_events_total";
/// The values of its label `outcome`.
pub const OUTCOMES: [&str; 4] = ["applied", "parked", "duplicate", "rejected"];

/// Events handled at once in one process, most of which wait for a lane. Facts commute, so there is
/// no order to keep.
const CONCURRENCY: usize = 128;

/// While the database is down, events wait this long; when it is back they should not wait much
/// longer.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Linked; decisions were made again.
    Applied,
    /// Kept, and nothing claims it yet.
    Parked,
    /// Known already.
    Duplicate,
}

impl Taken {
    fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Parked => "parked",
            Self::Duplicate => "duplicate",
        }
    }
}

/// How an event came.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// When the provider's post reached us.
    pub received_at: Timestamp,
    /// The trace it belongs to.
    pub traceparent: Option<String>,
}

/// The consumer of `BILLING`.
pub fn consumer(bus: &Bus) -> event_bus::Consumer {
    bus.consumer(
        ConsumerConfig::new(subjects::BILLING, SERVICE, subjects::BILLING_ALL)
            .concurrency(CONCURRENCY)
            .backoff(BACKOFF)
            .ordering(Ordering::None),
    )
}

/// Consumes `BILLING` until `shutdown`.
pub async fn run(
    consumer: event_bus::Consumer,
    decisions: Decisions,
    shutdown: CancellationToken,
) -> Result<(), event_bus::OpenError> {
    let count = decisions.store().lanes();
    let lanes = Lanes::new(decisions, count);
    consumer
        .run(
            move |event: BillingEvent, delivery: Delivery| {
                let lanes = lanes.clone();
                async move { handle(&lanes, event, delivery).await }
            },
            shutdown,
        )
        .await
}

/// An event to take in.
#[derive(Debug)]
struct Item {
    event: BillingEvent,
    /// What it says.
    fact: Fact,
    arrival: Arrival,
}

impl Work for Item {
    type Means = Decisions;
    type Done = Taken;
    const MOST: usize = 32;

    /// Its invoice, payment, subscription, customer, mandate and named membership.
    fn names(&self) -> BTreeSet<String> {
        let mut names = linking::lock_names(&Keys::of_event(&self.event));
        names.insert(self.event.id());
        names
    }

    fn fits(&self, _: &Self) -> bool {
        true
    }

    /// # Errors
    /// [`Error::Contradiction`] for an event that says something else than what is held; nothing
    /// was changed then.
    async fn alone(&self, decisions: &Decisions) -> Result<Taken, Error> {
        decisions.retrying(|| take_once(decisions, self)).await
    }

    async fn together(decisions: &Decisions, group: &[Self]) -> Vec<Option<Result<Taken, Error>>> {
        together::take(decisions, group).await
    }
}

async fn handle(lanes: &Lanes<Item>, event: BillingEvent, delivery: Delivery) -> Disposition {
    let taken = match wire::fact(&event) {
        Ok(fact) => {
            let arrival = Arrival {
                received_at: delivery.stored_at,
                traceparent: delivery.envelope.traceparent,
            };
            let item = Item {
                event,
                fact,
                arrival,
            };
            lanes.take(item).await
        }
        Err(error) => Err(Error::Contradiction(error.to_string())),
    };
    match taken {
        Ok(taken) => {
            metrics::counter!(EVENTS, "outcome" => taken.as_str()).increment(1);
            Disposition::Done
        }
        Err(error) => {
            let disposition = error.into_disposition();
            if matches!(disposition, Disposition::Reject { .. }) {
                metrics::counter!(EVENTS, "outcome" => "rejected").increment(1);
            }
            disposition
        }
    }
}

fn cause_of(item: &Item) -> CauseOf {
    CauseOf::BillingEvent {
        id: item.event.id(),
        provider: item.event.provider.clone(),
        occurred_at: item.fact.occurred_at,
        received_at: item.arrival.received_at,
        traceparent: item.arrival.traceparent.clone(),
    }
}

async fn take_once(decisions: &Decisions, item: &Item) -> Result<Taken, Error> {
    let Item { event, arrival, .. } = item;
    let keys = Keys::of_event(event);
    let mut unit = decisions.begin(cause_of(item)).await?;
    locks::take(
        unit.db(),
        linking::lock_names(&keys),
        [linking::account_lock(&event.provider, &event.account)].into(),
    )
    .await?;
    let json = serde_json::to_string(event).map_err(Error::Json)?;
    if !billing::insert(unit.db(), event, json, arrival.received_at).await? {
        let held =
            billing::find(unit.db(), &event.provider, &event.account, &event.event_id).await?;
        return match held {
            Some(held) => same_as_held(event, &held),
            None => Ok(Taken::Duplicate),
        };
    }
    let tied = billing::list_tied(unit.db(), &keys, &event.event_id).await?;
    check_against(event, &tied)?;
    let mut touched = Touched::new();
    let (now, id) = (unit.now(), &event.event_id);
    let waits = linking::settle_new(unit.db(), id, tied, now, &mut touched).await?;
    linking::decide_touched(&mut unit, &touched).await?;
    let versions = unit.commit().await?;
    if let Some(why) = waits {
        info!(
            event.id = %event.event_id, event.kind = %event.kind, parked.why = why,
            "Billing event {} is parked: {why}", event.event_id
        );
        return Ok(Taken::Parked);
    }
    debug!(
        event.id = %event.event_id, event.kind = %event.kind, members = versions.len(),
        "Billing event {} is applied", event.event_id
    );
    Ok(Taken::Applied)
}

/// A repeat must say what was said before; where it does not, a person has to look.
fn same_as_held(event: &BillingEvent, held: &billing_events::Model) -> Result<Taken, Error> {
    if is_same(event, held) {
        return Ok(Taken::Duplicate);
    }
    warn!(
        event.id = %event.event_id,
        "Billing event {} came again and says something else", event.event_id
    );
    Err(Error::Contradiction(
        "an event with this id is held, and says something else".to_owned(),
    ))
}

fn is_same(event: &BillingEvent, held: &billing_events::Model) -> bool {
    serde_json::from_str::<BillingEvent>(&held.event).is_ok_and(|held| {
        held.kind == event.kind
            && held.invoice_id == event.invoice_id
            && held.payment_id == event.payment_id
            && held.currency == event.currency
            && held.amount_minor == event.amount_minor
    })
}

/// One invoice or payment has one currency, and one payment one amount, over all that is said of
/// it.
pub(crate) fn check_against(event: &BillingEvent, tied: &[Held]) -> Result<(), Error> {
    let others: Vec<BillingEvent> = tied
        .iter()
        .filter(|held| held.row.event_id != event.event_id)
        .filter_map(|held| serde_json::from_str(&held.row.event).ok())
        .collect();
    if let Some(currency) = &event.currency {
        let other = others
            .iter()
            .filter_map(|other| other.currency.as_ref())
            .find(|other| !other.eq_ignore_ascii_case(currency));
        if let Some(other) = other {
            return Err(Error::Contradiction(format!(
                "the same invoice or payment is held in {other}, this says {currency}"
            )));
        }
    }
    if let Some(amount) = amount_of_payment(event) {
        let other = others
            .iter()
            .filter(|other| other.payment_id == event.payment_id)
            .filter_map(amount_of_payment)
            .find(|other| *other != amount);
        if let Some(other) = other {
            return Err(Error::Contradiction(format!(
                "the same payment is held with an amount of {other}, this says {amount}"
            )));
        }
    }
    Ok(())
}

/// What a payment that succeeded came to. What comes back with a won dispute or a refund that
/// failed may be a part of it: those name no invoice.
fn amount_of_payment(event: &BillingEvent) -> Option<i64> {
    let is_payment = event.kind == BillingEventKind::PaymentSucceeded.as_str()
        && event.payment_id.is_some()
        && event.invoice_id.is_some();
    event.amount_minor.filter(|_| is_payment)
}
