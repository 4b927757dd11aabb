//! Since when one debt is open, from its facts.
//!
//! Where a provider names invoices (Stripe), the facts of one invoice form a lattice and need no
//! order: paid beats forgiven beats failed, and only a reversal is ordered, against the success of
//! its own payment. Where it names payments alone (GoCardless), a payment can fail after it was
//! confirmed, and the latest state by the provider's time decides. A sender that names neither is
//! read like that too, by subscription.
//!
//! In the same instant the failure or the reversal stands: closed is the safe side, and staff can
//! open. Every function takes the facts of one debt, sorted by time.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{BillingEventKind as Kind, EventId, Fact, PaymentId, ProviderId};

/// What the debt asks for in all: what is said of it, else the most that failed to be collected,
/// else the most that was taken back.
pub(super) fn due(facts: &[&Fact]) -> Option<i64> {
    let most = |kind| of(facts, kind).filter_map(|fact| fact.amount_minor).max();
    let said = facts.iter().filter_map(|fact| fact.amount_due_minor).max();
    said.or_else(|| most(Kind::PaymentFailed))
        .or_else(|| most(Kind::PaymentReversed))
}

fn of<'a>(facts: &[&'a Fact], kind: Kind) -> impl Iterator<Item = &'a Fact> {
    facts.iter().copied().filter(move |fact| fact.kind == kind)
}

/// Since when an invoice is open: the beginning of the last stretch in which it was, so that a
/// payment undone later makes a debt as old as its undoing, and a part payment undone none younger.
pub(super) fn invoice_open(facts: &[&Fact]) -> Option<Timestamp> {
    let mut since = None;
    for (index, fact) in facts.iter().enumerate() {
        let next = facts.get(index + 1);
        if next.is_some_and(|next| next.occurred_at == fact.occurred_at) {
            continue;
        }
        since = if is_open(&facts[..=index]) {
            since.or(Some(fact.occurred_at))
        } else {
            None
        };
    }
    since
}

/// Whether an invoice is open by these facts and no others.
fn is_open(facts: &[&Fact]) -> bool {
    let payments = Payments::of(facts);
    let is_owed = of(facts, Kind::PaymentFailed).next().is_some() || payments.last_undone.is_some();
    let is_forgiven = of(facts, Kind::InvoiceForgiven).next().is_some();
    is_owed && !is_forgiven && !payments.settle(due(facts))
}

/// One payment: by the provider's id, by the id under which staff took it, or not named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Named<'a> {
    Payment(&'a PaymentId),
    AtTheDesk(&'a EventId),
    Not,
}

impl<'a> Named<'a> {
    fn by(fact: &'a Fact) -> Self {
        if fact.is_by_staff() {
            return Self::AtTheDesk(&fact.event_id);
        }
        fact.payment.as_ref().map_or(Self::Not, Self::Payment)
    }
}

/// The payments of an invoice that stand, and the last one undone.
struct Payments<'a> {
    standing: Vec<&'a Fact>,
    last_undone: Option<Timestamp>,
}

impl<'a> Payments<'a> {
    fn of(facts: &[&'a Fact]) -> Self {
        let succeeded = |reversal: &Fact| {
            let named = Named::by(reversal);
            of(facts, Kind::PaymentSucceeded)
                .filter(|fact| fact.provider == reversal.provider && Named::by(fact) == named)
                .any(|fact| fact.occurred_at > reversal.occurred_at)
        };
        let undone: Vec<&Fact> = of(facts, Kind::PaymentReversed)
            .filter(|reversal| !succeeded(reversal))
            .collect();
        let stands = |fact: &Fact| {
            let named = Named::by(fact);
            !undone.iter().any(|reversal| {
                let its_own = match (Named::by(reversal), named) {
                    (_, Named::AtTheDesk(_)) => false,
                    // Where one of them does not say which payment, it is the invoice's.
                    (Named::Not, _) | (_, Named::Not) => true,
                    (reversed, named) => reversed == named && reversal.provider == fact.provider,
                };
                its_own && reversal.occurred_at >= fact.occurred_at
            })
        };
        Self {
            standing: of(facts, Kind::PaymentSucceeded)
                .filter(|fact| stands(fact))
                .collect(),
            last_undone: undone.iter().map(|fact| fact.occurred_at).max(),
        }
    }

    /// Whether they settle what is `due`.
    fn settle(&self, due: Option<i64>) -> bool {
        let as_a_fact = |fact: &&Fact| fact.settles || fact.amount_minor.is_none();
        if self.standing.iter().any(as_a_fact) {
            return true;
        }
        match due {
            Some(due) => !self.standing.is_empty() && self.amount() >= due,
            None => !self.standing.is_empty(),
        }
    }

    /// What was paid. The events of one payment tell one amount, and an event that names no payment
    /// tells again what those of its provider that do have told: amounts are never summed by event.
    fn amount(&self) -> i64 {
        let mut by_provider: BTreeMap<&ProviderId, BTreeMap<Named<'_>, i64>> = BTreeMap::new();
        for fact in &self.standing {
            let payments = by_provider.entry(&fact.provider).or_default();
            let amount = payments.entry(Named::by(fact)).or_default();
            *amount = (*amount).max(fact.amount_minor.unwrap_or(0));
        }
        let add = |sum: i64, amount: i64| sum.saturating_add(amount);
        by_provider
            .into_values()
            .map(|mut payments| {
                let unnamed = payments.remove(&Named::Not).unwrap_or(0);
                payments.into_values().fold(0, add).max(unnamed)
            })
            .fold(0, add)
    }
}

/// Since when a payment without an invoice is open. What staff took or wrote off for it settles it
/// for good: a provider's retry in vain after that opens nothing.
pub(super) fn payment_open(facts: &[&Fact]) -> Option<Timestamp> {
    let (by_staff, by_provider): (Vec<&Fact>, Vec<&Fact>) =
        facts.iter().partition(|fact| fact.is_by_staff());
    let desk = Payments::of(&by_staff);
    let is_forgiven = of(&by_staff, Kind::InvoiceForgiven).next().is_some();
    if is_forgiven || desk.settle(due(facts)) {
        return None;
    }
    latest_word(&by_provider)
}

/// Since when a subscription whose invoices and payments are not named is open. It is many debts
/// over time, so that money from staff, too, settles only what is owed by then.
pub(super) fn subscription_open(facts: &[&Fact]) -> Option<Timestamp> {
    latest_word(facts)
}

/// Since when the last run of failures and reversals goes on.
fn latest_word(facts: &[&Fact]) -> Option<Timestamp> {
    let is_bad = |fact: &Fact| matches!(fact.kind, Kind::PaymentFailed | Kind::PaymentReversed);
    let mut facts = facts.to_vec();
    facts.sort_by_key(|fact| (fact.occurred_at, is_bad(fact)));
    let mut since = None;
    let mut due = None;
    // Of several payments at the desk each may be a part.
    let mut at_the_desk = 0_i64;
    for fact in facts {
        let settles = match fact.kind {
            Kind::InvoiceForgiven => true,
            Kind::PaymentSucceeded => {
                let mut amount = fact.amount_minor;
                if let (true, Some(part)) = (fact.is_by_staff(), fact.amount_minor) {
                    at_the_desk = at_the_desk.saturating_add(part);
                    amount = Some(at_the_desk);
                }
                let covers = amount.zip(due).is_none_or(|(amount, due)| amount >= due);
                fact.settles || covers
            }
            _ => {
                since = since.or(Some(fact.occurred_at));
                if fact.kind == Kind::PaymentFailed {
                    due = fact.amount_due_minor.or(fact.amount_minor).or(due);
                }
                false
            }
        };
        if settles {
            since = None;
            due = None;
            at_the_desk = 0;
        }
    }
    since
}
