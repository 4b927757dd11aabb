//! The debts that the facts name, and since when each is open.
//!
//! A debt is known by the best that its facts say: an invoice, else a payment, else a subscription.
//! How the facts of one debt are read is in [`super::reading`].

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use super::reading::{invoice_open, payment_open, subscription_open};
use super::{BillingEventKind as Kind, Fact, FactKey, Secret};
use crate::ids::{InvoiceId, PaymentId, ProviderId, SubscriptionId};

/// What a debt is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DebtKey {
    Invoice(InvoiceId),
    /// The provider names no invoice.
    Payment(PaymentId),
    /// The sender names neither.
    Subscription(SubscriptionId),
}

/// One invoice, or what stands for one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Debt {
    /// Since when it is open: its first failure, or the reversal that reopened it. `None`: settled,
    /// forgiven, or never failed.
    pub open_since: Option<Timestamp>,
    pub amount_due_minor: Option<i64>,
    pub currency: Option<String>,
    /// The newest link to pay. Whoever holds it sees the invoice, so it is not printed.
    pub payment_url: Option<String>,
    pub next_attempt_at: Option<Timestamp>,
    pub attempt_count: Option<i32>,
}

impl fmt::Debug for Debt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Debt")
            .field("open_since", &self.open_since)
            .field("amount_due_minor", &self.amount_due_minor)
            .field("currency", &self.currency)
            .field("payment_url", &self.payment_url.as_ref().map(|_| Secret))
            .field("next_attempt_at", &self.next_attempt_at)
            .field("attempt_count", &self.attempt_count)
            .finish()
    }
}

/// Every debt, and the reversals that no debt is known for.
pub(super) fn read<'a>(
    facts: impl Iterator<Item = &'a Fact> + Clone,
) -> (BTreeMap<DebtKey, Debt>, Vec<FactKey>) {
    let invoices = Ties::of(facts.clone());
    let mut by_debt: BTreeMap<DebtKey, Vec<&Fact>> = BTreeMap::new();
    for fact in facts.filter(|fact| concerns_money(fact.kind)) {
        if let Some(key) = key_of(fact, &invoices) {
            by_debt.entry(key).or_default().push(fact);
        }
    }
    let mut unmatched = Vec::new();
    let mut at_the_desk = Vec::new();
    by_debt.retain(|key, facts| {
        let is_payment = matches!(key, DebtKey::Payment(_));
        if is_payment && waits_for_its_invoice(facts) {
            unmatched.extend(facts.iter().map(|fact| fact.key()));
            return false;
        }
        if is_payment && facts.iter().all(|fact| names_no_debt(fact)) {
            at_the_desk.append(facts);
            return false;
        }
        facts.sort_by_key(|fact| (fact.occurred_at, fact.key()));
        true
    });
    unmatched.sort();
    let mut open: BTreeMap<DebtKey, Option<Timestamp>> = by_debt
        .iter()
        .map(|(key, facts)| (key.clone(), open_since(key, facts)))
        .collect();
    at_the_desk.sort_by_key(|fact| (fact.occurred_at, fact.key()));
    for payment in at_the_desk {
        pay_oldest(payment, &mut by_debt, &mut open);
    }
    let debts = by_debt
        .into_iter()
        .map(|(key, facts)| {
            let open_since = open.remove(&key).flatten();
            (key, describe(&facts, open_since))
        })
        .collect();
    (debts, unmatched)
}

fn open_since(key: &DebtKey, facts: &[&Fact]) -> Option<Timestamp> {
    match key {
        DebtKey::Invoice(_) => invoice_open(facts),
        DebtKey::Payment(_) => payment_open(facts),
        DebtKey::Subscription(_) => subscription_open(facts),
    }
}

/// Money taken at the desk when no debt was known: nothing but its own id says what it is for.
fn names_no_debt(fact: &Fact) -> bool {
    let its_own = |id: &PaymentId| id.as_str() == fact.event_id.as_str();
    fact.kind == Kind::PaymentSucceeded
        && fact.is_by_staff()
        && fact.payment.as_ref().is_some_and(its_own)
}

/// Counts money from the desk towards the oldest debt that was open when it was taken, though the
/// provider told of it only later. It pays nothing that failed after it.
fn pay_oldest<'a>(
    payment: &'a Fact,
    by_debt: &mut BTreeMap<DebtKey, Vec<&'a Fact>>,
    open: &mut BTreeMap<DebtKey, Option<Timestamp>>,
) {
    let in_its_currency = |facts: &[&Fact]| {
        facts
            .iter()
            .all(|fact| fact.currency.is_none() || fact.currency == payment.currency)
    };
    let oldest = by_debt
        .iter_mut()
        .filter_map(|(key, facts)| {
            let since = open.get(key).copied().flatten()?;
            (since <= payment.occurred_at && in_its_currency(facts)).then_some((since, key, facts))
        })
        .min_by_key(|(since, key, _)| (*since, (*key).clone()));
    if let Some((_, key, facts)) = oldest {
        facts.push(payment);
        facts.sort_by_key(|fact| (fact.occurred_at, fact.key()));
        open.insert(key.clone(), open_since(key, facts));
    }
}

fn concerns_money(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::PaymentFailed
            | Kind::PaymentSucceeded
            | Kind::PaymentReversed
            | Kind::InvoiceForgiven
    )
}

/// Nothing but a reversal, with an amount and without a subscription, comes from a provider of
/// invoices: whose it is, a link to come will say.
fn waits_for_its_invoice(facts: &[&Fact]) -> bool {
    facts.iter().all(|fact| fact.kind == Kind::PaymentReversed)
        && facts.iter().any(|fact| fact.amount_minor.is_some())
        && facts.iter().all(|fact| fact.subscription.is_none())
}

/// Which invoice each payment is for. Two providers may use one id for two payments.
struct Ties<'a>(BTreeMap<&'a PaymentId, BTreeMap<&'a ProviderId, &'a InvoiceId>>);

impl<'a> Ties<'a> {
    /// A payment tied to several invoices stays with the least id, whatever the order of arrival.
    fn of(facts: impl Iterator<Item = &'a Fact>) -> Self {
        let mut ties: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for fact in facts {
            if let (Some(payment), Some(invoice)) = (&fact.payment, &fact.invoice) {
                let held = ties
                    .entry(payment)
                    .or_default()
                    .entry(&fact.provider)
                    .or_insert(invoice);
                *held = invoice.min(*held);
            }
        }
        Self(ties)
    }

    /// The invoice of a payment as `fact` names it: staff name the payments of providers.
    fn invoice(&self, fact: &Fact, payment: &PaymentId) -> Option<&'a InvoiceId> {
        let by_provider = self.0.get(payment)?;
        match by_provider.get(&fact.provider) {
            Some(invoice) => Some(invoice),
            None if fact.is_by_staff() => by_provider.values().next().copied(),
            None => None,
        }
    }
}

fn key_of(fact: &Fact, invoices: &Ties<'_>) -> Option<DebtKey> {
    if let Some(invoice) = &fact.invoice {
        return Some(DebtKey::Invoice(invoice.clone()));
    }
    if let Some(payment) = &fact.payment {
        return Some(match invoices.invoice(fact, payment) {
            Some(invoice) => DebtKey::Invoice(invoice.clone()),
            None => DebtKey::Payment(payment.clone()),
        });
    }
    fact.subscription.clone().map(DebtKey::Subscription)
}

fn describe(facts: &[&Fact], open_since: Option<Timestamp>) -> Debt {
    let newest_first = || facts.iter().rev();
    Debt {
        open_since,
        amount_due_minor: super::reading::due(facts),
        currency: newest_first().find_map(|fact| fact.currency.clone()),
        payment_url: newest_first().find_map(|fact| fact.payment_url.clone()),
        next_attempt_at: newest_first()
            .find(|fact| fact.kind == Kind::PaymentFailed)
            .and_then(|fact| fact.next_attempt_at),
        attempt_count: facts.iter().filter_map(|fact| fact.attempt_count).max(),
    }
}
