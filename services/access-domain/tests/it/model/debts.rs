//! The reference's debts: each invoice and each direct debit, from what was heard of it.

use std::collections::{BTreeMap, BTreeSet};

use super::story::{DUE, Minute, Said, Saying};

/// One debt. Invoices come before direct debits of the same age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Debt {
    Invoice(u8),
    Debit(u8),
}

/// Since when the oldest open debt is open, by what was `heard`, in the order in which it happened.
pub fn oldest_open(heard: &[&Saying]) -> Option<Minute> {
    let mut by_debt: BTreeMap<Debt, Vec<&Saying>> = BTreeMap::new();
    let mut for_nothing = Vec::new();
    for saying in heard {
        match debt_of(&saying.what, heard) {
            Some(debt) => by_debt.entry(debt).or_default().push(saying),
            None if matches!(saying.what, Said::Desk { .. }) => for_nothing.push(*saying),
            None => {}
        }
    }
    // Money that names no debt goes to the oldest one still open that was open when it was taken.
    for money in for_nothing {
        let oldest = by_debt
            .iter()
            .filter_map(|(debt, of_it)| Some((open_since(*debt, of_it)?, *debt)))
            .filter(|(since, _)| *since <= money.at)
            .min();
        if let Some((_, debt)) = oldest {
            let of_it = by_debt.get_mut(&debt).expect("a debt");
            of_it.push(money);
            of_it.sort_by_key(|saying| saying.at);
        }
    }
    let open = by_debt
        .iter()
        .filter_map(|(debt, of_it)| open_since(*debt, of_it));
    open.min()
}

fn debt_of(what: &Said, heard: &[&Saying]) -> Option<Debt> {
    match what {
        Said::Failed { invoice, .. }
        | Said::Paid { invoice, .. }
        | Said::Forgive { invoice, .. }
        | Said::Desk {
            invoice: Some(invoice),
            ..
        }
        | Said::Reversed {
            invoice,
            payment: None,
        } => Some(Debt::Invoice(*invoice)),
        // Whose payment it is, only a success tells.
        Said::Reversed {
            invoice,
            payment: Some(reversed),
        } => heard
            .iter()
            .any(|saying| {
                matches!(saying.what, Said::Paid { invoice: of, payment: Some(paid), .. }
                    if of == *invoice && paid == *reversed)
            })
            .then_some(Debt::Invoice(*invoice)),
        Said::DebitFailed { debit }
        | Said::DebitPaid { debit }
        | Said::DebitReversed { debit }
        | Said::ForgiveDebit { debit }
        | Said::DeskForDebit { debit } => Some(Debt::Debit(*debit)),
        _ => None,
    }
}

fn open_since(debt: Debt, of_it: &[&Saying]) -> Option<Minute> {
    match debt {
        Debt::Invoice(_) => invoice_open_since(of_it),
        Debt::Debit(_) => debit_open_since(of_it),
    }
}

/// Steps through the minutes in which something was said: open at the end of one and not at the
/// end of the one before is open since then.
fn invoice_open_since(of_it: &[&Saying]) -> Option<Minute> {
    let minutes: BTreeSet<Minute> = of_it.iter().map(|saying| saying.at).collect();
    let mut since = None;
    for minute in minutes {
        let so_far: Vec<&&Saying> = of_it.iter().filter(|saying| saying.at <= minute).collect();
        since = match is_open(&so_far) {
            true => since.or(Some(minute)),
            false => None,
        };
    }
    since
}

fn is_open(of_it: &[&&Saying]) -> bool {
    let mut is_owed = false;
    let mut is_forgiven = false;
    // What was paid, by payment, at each time that it was told; what was undone, and when.
    let mut paid: Vec<(Option<u8>, Minute, i64, bool)> = Vec::new();
    let mut undone: BTreeMap<Option<u8>, Minute> = BTreeMap::new();
    let mut at_the_desk = 0;
    let mut in_order = of_it.to_vec();
    // In one minute the reversal stands.
    in_order.sort_by_key(|said| (said.at, matches!(said.what, Said::Reversed { .. })));
    for saying in in_order {
        match &saying.what {
            Said::Failed { .. } => is_owed = true,
            Said::Forgive { .. } => is_forgiven = true,
            Said::Desk { amount, .. } => at_the_desk += amount,
            Said::Paid {
                payment,
                amount,
                settles,
                ..
            } => {
                // Paid after all: what had undone this payment did not.
                if undone.get(payment).is_some_and(|at| *at < saying.at) {
                    undone.remove(payment);
                }
                paid.push((*payment, saying.at, *amount, *settles));
            }
            Said::Reversed { payment, .. } => {
                let at = undone.entry(*payment).or_insert(saying.at);
                *at = saying.at.max(*at);
            }
            _ => {}
        }
    }
    paid.retain(|(payment, at, ..)| {
        !undone.iter().any(|(undone, when)| {
            let may_be_it = undone.is_none() || payment.is_none() || undone == payment;
            may_be_it && when >= at
        })
    });
    let mut amounts: BTreeMap<Option<u8>, i64> = BTreeMap::new();
    for (payment, _, amount, _) in &paid {
        let told = amounts.entry(*payment).or_default();
        *told = (*told).max(*amount);
    }
    // What names no payment tells again what those that do have told.
    let unnamed = amounts.remove(&None).unwrap_or(0);
    let by_provider = amounts.values().sum::<i64>().max(unnamed);
    let is_settled = paid.iter().any(|(.., settles)| *settles) || by_provider + at_the_desk >= DUE;
    (is_owed || !undone.is_empty()) && !is_forgiven && !is_settled
}

/// The latest word counts, and the last run of bad ones since its first; staff settle for good.
fn debit_open_since(of_it: &[&Saying]) -> Option<Minute> {
    let by_staff = |saying: &&&Saying| saying.what.is_the_clubs();
    if of_it.iter().any(|saying| by_staff(&saying)) {
        return None;
    }
    let mut in_order = of_it.to_vec();
    in_order.sort_by_key(|said| (said.at, !matches!(said.what, Said::DebitPaid { .. })));
    let mut since = None;
    for saying in in_order {
        since = match saying.what {
            Said::DebitPaid { .. } => None,
            _ => since.or(Some(saying.at)),
        };
    }
    since
}
