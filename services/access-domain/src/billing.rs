//! Billing facts: what providers and staff said of invoices, payments and subscriptions.
//!
//! Facts join, they do not overwrite: a [`Ledger`] is the set of them, by event id, and its
//! [`BillingState`] is a function of that set, so any order and any number of arrivals gives the
//! same state. How the facts of one debt are read is in [`reading`].

mod debt;
mod reading;
mod subscription;

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

pub use debt::{Debt, DebtKey};
pub use subscription::{ProviderPause, SubscriptionState};

use crate::gym::GymRules;
use crate::ids::{
    AccountId, CustomerId, EventId, InvoiceId, MandateId, PaymentId, ProviderId, SubscriptionId,
};
use crate::words::words;

words! {
    /// What an event of a provider becomes.
    BillingEventKind {
        PaymentFailed = "payment_failed",
        PaymentSucceeded = "payment_succeeded",
        /// A chargeback, a late failure: the payment is undone and the debt stands again.
        PaymentReversed = "payment_reversed",
        /// Given back in full by the gym; opens no debt.
        PaymentRefunded = "payment_refunded",
        /// Voided or written off.
        InvoiceForgiven = "invoice_forgiven",
        SubscriptionPaused = "subscription_paused",
        SubscriptionResumed = "subscription_resumed",
        SubscriptionCancelled = "subscription_cancelled",
        SubscriptionChanged = "subscription_changed",
        /// Closes nothing by itself.
        MandateFailed = "mandate_failed",
    }
}

/// `reason` of a success by which the provider holds the whole invoice settled.
pub const INVOICE_PAID: &str = "invoice_paid";

/// The provider of facts that staff make: money taken at the desk, debts written off. Their event
/// ids are the caller's.
pub const STAFF: &str = "gymflow";

/// A fact's identity, for good.
pub type FactKey = (ProviderId, AccountId, EventId);

/// One thing that a provider, or staff, said.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    pub provider: ProviderId,
    pub account: AccountId,
    pub event_id: EventId,
    pub kind: BillingEventKind,
    /// The provider's own time.
    pub occurred_at: Timestamp,
    pub invoice: Option<InvoiceId>,
    pub payment: Option<PaymentId>,
    pub subscription: Option<SubscriptionId>,
    pub customer: Option<CustomerId>,
    pub mandate: Option<MandateId>,
    pub new_mandate: Option<MandateId>,
    /// In the currency's smallest unit.
    pub amount_minor: Option<i64>,
    /// What the invoice asks for in all.
    pub amount_due_minor: Option<i64>,
    /// ISO 4217, upper case.
    pub currency: Option<String>,
    pub attempt_count: Option<i32>,
    pub next_attempt_at: Option<Timestamp>,
    pub ends_at: Option<Timestamp>,
    pub reason: Option<String>,
    /// A link to pay. Whoever holds it sees the invoice, so it is not printed.
    pub payment_url: Option<String>,
    /// The provider holds the invoice settled, whatever the amount.
    pub settles: bool,
}

impl Fact {
    /// A fact with its identity and nothing else said.
    pub fn new(key: FactKey, kind: BillingEventKind, occurred_at: Timestamp) -> Self {
        let (provider, account, event_id) = key;
        Self {
            provider,
            account,
            event_id,
            kind,
            occurred_at,
            invoice: None,
            payment: None,
            subscription: None,
            customer: None,
            mandate: None,
            new_mandate: None,
            amount_minor: None,
            amount_due_minor: None,
            currency: None,
            attempt_count: None,
            next_attempt_at: None,
            ends_at: None,
            reason: None,
            payment_url: None,
            settles: false,
        }
    }

    /// Whether staff said it, and no provider.
    pub fn is_by_staff(&self) -> bool {
        self.provider.as_str() == STAFF
    }

    /// Its identity.
    pub fn key(&self) -> FactKey {
        (
            self.provider.clone(),
            self.account.clone(),
            self.event_id.clone(),
        )
    }
}

impl fmt::Debug for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fact")
            .field("provider", &self.provider)
            .field("account", &self.account)
            .field("event_id", &self.event_id)
            .field("kind", &self.kind)
            .field("occurred_at", &self.occurred_at)
            .field("invoice", &self.invoice)
            .field("payment", &self.payment)
            .field("subscription", &self.subscription)
            .field("customer", &self.customer)
            .field("mandate", &self.mandate)
            .field("new_mandate", &self.new_mandate)
            .field("amount_minor", &self.amount_minor)
            .field("amount_due_minor", &self.amount_due_minor)
            .field("currency", &self.currency)
            .field("attempt_count", &self.attempt_count)
            .field("next_attempt_at", &self.next_attempt_at)
            .field("ends_at", &self.ends_at)
            .field("reason", &self.reason)
            .field("payment_url", &self.payment_url.as_ref().map(|_| Secret))
            .field("settles", &self.settles)
            .finish()
    }
}

/// Stands in print for what must not be printed.
struct Secret;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// The set of facts about one membership's billing references, current and former.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    facts: BTreeMap<FactKey, Fact>,
}

impl Ledger {
    /// All of `facts`, in any order, repeats included.
    pub fn from_facts(facts: impl IntoIterator<Item = Fact>) -> Self {
        let mut ledger = Self::default();
        for fact in facts {
            ledger.join(fact);
        }
        ledger
    }

    /// Adds one. A repeat of an event id changes nothing; should two bodies of one id differ, the
    /// same one is kept whichever came first.
    pub fn join(&mut self, fact: Fact) {
        let key = fact.key();
        match self.facts.get(&key) {
            Some(held) if *held <= fact => {}
            _ => {
                self.facts.insert(key, fact);
            }
        }
    }

    /// The facts, by identity.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.facts.values()
    }

    /// What they come to.
    pub fn state(&self) -> BillingState {
        let (debts, unmatched) = debt::read(self.facts.values());
        BillingState {
            debts,
            subscriptions: subscription::read(self.facts.values()),
            unmatched,
        }
    }
}

/// What the facts of one membership come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BillingState {
    /// Every debt ever named, settled ones included, by key.
    pub debts: BTreeMap<DebtKey, Debt>,
    pub subscriptions: BTreeMap<SubscriptionId, SubscriptionState>,
    /// Reversals of payments that no fact ties to an invoice yet.
    pub unmatched: Vec<FactKey>,
}

impl BillingState {
    /// Debts that are open, oldest first.
    pub fn open_debts(&self) -> Vec<(&DebtKey, &Debt)> {
        let mut open: Vec<_> = self
            .debts
            .iter()
            .filter(|(_, debt)| debt.open_since.is_some())
            .collect();
        open.sort_by_key(|(key, debt)| (debt.open_since, (*key).clone()));
        open
    }

    /// Since when the oldest open debt is open.
    pub fn oldest_open(&self) -> Option<Timestamp> {
        self.debts.values().filter_map(|debt| debt.open_since).min()
    }

    /// When the debts close access: the oldest open one, and the gym's grace after it.
    pub fn closes_at(&self, rules: &GymRules) -> Option<Timestamp> {
        let grace = rules.overdue_grace.max(SignedDuration::ZERO);
        self.oldest_open()
            .map(|since| since.checked_add(grace).unwrap_or(Timestamp::MAX))
    }
}
