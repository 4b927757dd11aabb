//! How the facts of one debt are read.
//!
//! Where a provider names invoices (Stripe), the facts of one invoice form a lattice and need no
//! order: paid beats forgiven beats failed, and only a reversal is ordered, against the success of
//! its own payment. Where it names payments alone (GoCardless), a payment can fail after it was
//! confirmed, and the latest state by the provider's time decides. A sender that names neither is
//! read like a payment per subscription.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{BillingEventKind as Kind, Fact, FactKey};
use crate::ids::{InvoiceId, PaymentId, SubscriptionId};

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Debt {
    /// Since when it is open: its first failure, or the reversal that reopened it. `None`: settled,
    /// forgiven, or never failed.
    pub open_since: Option<Timestamp>,
    pub amount_due_minor: Option<i64>,
    pub currency: Option<String>,
    /// The newest link to pay.
    pub payment_url: Option<String>,
    pub next_attempt_at: Option<Timestamp>,
    pub attempt_count: Option<i32>,
}

/// Every debt, and the reversals that no debt is known for.
pub(super) fn read<'a>(
    facts: impl Iterator<Item = &'a Fact> + Clone,
) -> (BTreeMap<DebtKey, Debt>, Vec<FactKey>) {
    let invoice_of = invoices_by_payment(facts.clone());
    let mut by_debt: BTreeMap<DebtKey, Vec<&Fact>> = BTreeMap::new();
    for fact in facts.filter(|fact| concerns_money(fact.kind)) {
        if let Some(key) = key_of(fact, &invoice_of) {
            by_debt.entry(key).or_default().push(fact);
        }
    }
    let mut unmatched = Vec::new();
    let mut debts = BTreeMap::new();
    for (key, mut facts) in by_debt {
        facts.sort_by_key(|fact| (fact.occurred_at, fact.key()));
        let is_invoice = matches!(key, DebtKey::Invoice(_));
        let only_reversed = facts.iter().all(|fact| fact.kind == Kind::PaymentReversed);
        if !is_invoice && only_reversed && facts.iter().any(|fact| fact.amount_minor.is_some()) {
            // With an amount it comes from a provider of invoices: the link is still to come.
            unmatched.extend(facts.iter().map(|fact| fact.key()));
            continue;
        }
        let open_since = if is_invoice {
            invoice_open(&facts)
        } else {
            payment_open(&facts)
        };
        debts.insert(key, describe(&facts, open_since));
    }
    unmatched.sort();
    (debts, unmatched)
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

/// A payment that several facts tie to different invoices stays with the least id, whatever the
/// order of arrival.
fn invoices_by_payment<'a>(
    facts: impl Iterator<Item = &'a Fact>,
) -> BTreeMap<&'a PaymentId, &'a InvoiceId> {
    let mut ties = BTreeMap::new();
    for fact in facts {
        if let (Some(payment), Some(invoice)) = (&fact.payment, &fact.invoice) {
            let held = ties.entry(payment).or_insert(invoice);
            *held = invoice.min(*held);
        }
    }
    ties
}

fn key_of(fact: &Fact, invoice_of: &BTreeMap<&PaymentId, &InvoiceId>) -> Option<DebtKey> {
    if let Some(invoice) = &fact.invoice {
        return Some(DebtKey::Invoice(invoice.clone()));
    }
    if let Some(payment) = &fact.payment {
        return Some(match invoice_of.get(payment) {
            Some(invoice) => DebtKey::Invoice((*invoice).clone()),
            None => DebtKey::Payment(payment.clone()),
        });
    }
    fact.subscription.clone().map(DebtKey::Subscription)
}

/// Since when an invoice is open. `facts` are its own, by time.
fn invoice_open(facts: &[&Fact]) -> Option<Timestamp> {
    let reversals = standing_reversals(facts);
    let reversed: BTreeSet<&PaymentId> = reversals
        .iter()
        .filter_map(|fact| fact.payment.as_ref())
        .collect();
    let last_reversal = reversals.iter().map(|fact| fact.occurred_at).max();

    let due = facts
        .iter()
        .filter_map(|fact| fact.amount_due_minor)
        .max()
        .or_else(|| failures(facts).filter_map(|fact| fact.amount_minor).max());
    // By payment, the most that any of its events says: twins are one payment.
    let mut paid: BTreeMap<Option<&PaymentId>, i64> = BTreeMap::new();
    let mut settled = false;
    for fact in facts
        .iter()
        .filter(|fact| fact.kind == Kind::PaymentSucceeded)
    {
        let stands = match &fact.payment {
            Some(payment) => !reversed.contains(payment),
            // Which payment is not said: a later reversal of the invoice undoes it.
            None => last_reversal.is_none_or(|at| at < fact.occurred_at),
        };
        if !stands {
            continue;
        }
        settled |= fact.settles || fact.amount_minor.is_none() || due.is_none();
        let amount = paid.entry(fact.payment.as_ref()).or_default();
        *amount = (*amount).max(fact.amount_minor.unwrap_or(0));
    }
    let total = paid
        .values()
        .fold(0_i64, |sum, amount| sum.saturating_add(*amount));
    settled |= !paid.is_empty() && due.is_some_and(|due| total >= due);
    let forgiven = facts
        .iter()
        .filter(|fact| fact.kind == Kind::InvoiceForgiven)
        .any(|fact| last_reversal.is_none_or(|at| at <= fact.occurred_at));
    if settled || forgiven {
        return None;
    }
    let first_failure = failures(facts).map(|fact| fact.occurred_at).min();
    let first_reversal = reversals.iter().map(|fact| fact.occurred_at).min();
    // Settled once and reversed since: the debt is as old as the reversal.
    let was_settled = facts.iter().any(|fact| fact.kind == Kind::PaymentSucceeded);
    match (first_failure, first_reversal) {
        (_, Some(reversed)) if was_settled => Some(reversed),
        (Some(failed), Some(reversed)) => Some(failed.min(reversed)),
        (failed, reversed) => failed.or(reversed),
    }
}

fn failures<'a>(facts: &'a [&'a Fact]) -> impl Iterator<Item = &'a &'a Fact> {
    facts.iter().filter(|fact| fact.kind == Kind::PaymentFailed)
}

/// The reversals that no later success of the same payment undid. In the same instant the reversal
/// stands: closed is the safe side.
fn standing_reversals<'a>(facts: &[&'a Fact]) -> Vec<&'a Fact> {
    let undone = |reversal: &Fact| {
        facts.iter().any(|fact| {
            fact.kind == Kind::PaymentSucceeded
                && fact.payment.is_some()
                && fact.payment == reversal.payment
                && fact.occurred_at > reversal.occurred_at
        })
    };
    facts
        .iter()
        .filter(|fact| fact.kind == Kind::PaymentReversed && !undone(fact))
        .copied()
        .collect()
}

/// Since when a payment without an invoice is open: the start of the failures after its last
/// success. In the same instant the failure stands.
fn payment_open(facts: &[&Fact]) -> Option<Timestamp> {
    let settled_at = facts
        .iter()
        .filter(|fact| matches!(fact.kind, Kind::PaymentSucceeded | Kind::InvoiceForgiven))
        .map(|fact| fact.occurred_at)
        .max();
    facts
        .iter()
        .filter(|fact| matches!(fact.kind, Kind::PaymentFailed | Kind::PaymentReversed))
        .map(|fact| fact.occurred_at)
        .filter(|at| settled_at.is_none_or(|settled| *at >= settled))
        .min()
}

fn describe(facts: &[&Fact], open_since: Option<Timestamp>) -> Debt {
    let newest_first = || facts.iter().rev();
    let due = facts.iter().filter_map(|fact| fact.amount_due_minor).max();
    let failed = failures(facts).filter_map(|fact| fact.amount_minor).max();
    Debt {
        open_since,
        amount_due_minor: due.or(failed),
        currency: newest_first().find_map(|fact| fact.currency.clone()),
        payment_url: newest_first().find_map(|fact| fact.payment_url.clone()),
        next_attempt_at: newest_first()
            .find(|fact| fact.kind == Kind::PaymentFailed)
            .and_then(|fact| fact.next_attempt_at),
        attempt_count: facts.iter().filter_map(|fact| fact.attempt_count).max(),
    }
}
