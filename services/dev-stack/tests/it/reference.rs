//! What is to come of a history: slow, plain, and apart from the product's own code.
//!
//! It reads the truth in the order in which it happened, one thing after the other, as somebody
//! with a pencil would. The product sees the same in any order, in pieces and repeated, and has to
//! come to the same end.

use std::collections::{BTreeMap, BTreeSet};

use dev_stack::roster::Roster;

use crate::history::{Card, Debit, DirectDebit, Happening, Signed, What};

/// A member of a gym.
pub type Member = (String, String);

/// What is to be seen of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub allowed: bool,
    pub plans: BTreeSet<String>,
    pub reasons: BTreeSet<String>,
    pub memberships: BTreeMap<String, SeenMembership>,
}

/// What is to be seen of one membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenMembership {
    pub status: String,
    pub reasons: BTreeSet<String>,
    pub gives_access: bool,
    /// Unix seconds.
    pub overdue_since: Option<i64>,
}

/// One invoice, as of the last thing that happened to it.
#[derive(Debug, Default)]
struct Invoice {
    has_failed: bool,
    is_forgiven: bool,
    is_paid: bool,
    is_taken_back: bool,
    owed_since: Option<i64>,
}

/// One membership, as of the last thing that happened to it.
#[derive(Debug, Default)]
struct Standing {
    invoices: BTreeMap<String, Invoice>,
    /// Which invoice each payment paid.
    payments: BTreeMap<String, String>,
    /// Since when each direct debit is owed, if it is.
    debits: BTreeMap<String, Option<i64>>,
    is_paused: bool,
    has_ended: bool,
}

impl Standing {
    /// Since when its oldest debt is open.
    fn owed_since(&self) -> Option<i64> {
        let invoices = self.invoices.values().filter_map(|it| it.owed_since);
        let debits = self.debits.values().filter_map(|since| *since);
        invoices.chain(debits).min()
    }

    fn see(&mut self, happening: &Happening) {
        match &happening.what {
            What::Card(card) => self.see_card(card, happening.at),
            What::DirectDebit(DirectDebit::Payment { payment, step, .. }) => {
                self.see_debit(payment, *step, happening.at);
            }
            // A mandate closes nothing by itself; what falls with it is told as well.
            What::DirectDebit(DirectDebit::Mandate(_) | DirectDebit::Noise(_)) => {}
            What::Paused(_) => self.is_paused = true,
            What::Resumed(_) => self.is_paused = false,
            What::Ended => self.has_ended = true,
        }
    }

    fn see_card(&mut self, card: &Card, at: i64) {
        match card {
            Card::Failed { invoice, .. }
            | Card::ActionRequired { invoice, .. }
            | Card::GivenUp { invoice, .. } => {
                self.invoice(invoice, at, |it| it.has_failed = true);
            }
            Card::Forgiven { invoice, .. } => {
                self.invoice(invoice, at, |it| it.is_forgiven = true);
            }
            Card::Paid {
                invoice, payment, ..
            } => {
                self.payments.insert(payment.clone(), invoice.clone());
                self.invoice(invoice, at, |it| it.is_paid = true);
            }
            Card::Disputed { payment } | Card::DisputeLost { payment } => {
                let invoice = self.payments[payment].clone();
                self.invoice(&invoice, at, |it| it.is_taken_back = true);
            }
            Card::DisputeWon { payment } => {
                let invoice = self.payments[payment].clone();
                self.invoice(&invoice, at, |it| it.is_taken_back = false);
            }
            Card::PaidInPart { .. }
            | Card::Refunded { .. }
            | Card::Inquiry { .. }
            | Card::Noise(_) => {}
        }
    }

    /// Of a direct debit the latest word counts, and nothing is summed: no word has an amount.
    fn see_debit(&mut self, payment: &str, step: Debit, at: i64) {
        let owed_since = self.debits.entry(payment.to_owned()).or_default();
        if is_collected(step) {
            *owed_since = None;
        } else if is_refused(step) {
            owed_since.get_or_insert(at);
        }
    }

    fn invoice(&mut self, id: &str, at: i64, change: impl FnOnce(&mut Invoice)) {
        let invoice = self.invoices.entry(id.to_owned()).or_default();
        change(invoice);
        let is_owed = if invoice.is_forgiven {
            false
        } else if invoice.is_paid {
            invoice.is_taken_back
        } else {
            invoice.has_failed
        };
        invoice.owed_since = match (is_owed, invoice.owed_since) {
            (false, _) => None,
            (true, Some(since)) => Some(since),
            (true, None) => Some(at),
        };
    }
}

fn is_collected(step: Debit) -> bool {
    matches!(
        step,
        Debit::Confirmed | Debit::PaidOut | Debit::ChargebackCancelled | Debit::CalledOff
    )
}

fn is_refused(step: Debit) -> bool {
    matches!(
        step,
        Debit::Failed { .. }
            | Debit::ChargedBack
            | Debit::LateFailureSettled
            | Debit::FallenWithMandate
            | Debit::ApprovalDenied
    )
}

/// Of what happened in one second this counts as the last: the clock of cards ticks no finer, and
/// closed is the safe side.
fn is_the_worse(what: &What) -> bool {
    match what {
        What::Paused(_) => true,
        What::DirectDebit(DirectDebit::Payment { step, .. }) => is_refused(*step),
        _ => false,
    }
}

/// Everybody of both gyms.
pub fn outcome(
    rosters: &[Roster; 2],
    memberships: &[Signed],
    history: &[Happening],
) -> BTreeMap<Member, Seen> {
    let mut standings: Vec<Standing> = memberships.iter().map(|_| Standing::default()).collect();
    let mut history = history.to_vec();
    history.sort_by_key(|it| (it.at, is_the_worse(&it.what)));
    for happening in &history {
        standings[happening.membership].see(happening);
    }
    let mut everybody = BTreeMap::new();
    for roster in rosters {
        for person in &roster.people {
            let mine: Vec<(&Signed, &Standing)> = memberships
                .iter()
                .zip(&standings)
                .filter(|(signed, _)| signed.gym == roster.gym_id)
                .collect();
            let member = (roster.gym_id.to_owned(), person.member_id.clone());
            everybody.insert(member, seen(&person.member_id, &mine));
        }
    }
    everybody
}

fn seen(member: &str, memberships: &[(&Signed, &Standing)]) -> Seen {
    let pays = |signed: &Signed| signed.contract.holders[0] == member;
    // A debt follows its payer over all that she pays for.
    let own_debt = memberships
        .iter()
        .filter(|(signed, _)| pays(signed))
        .filter_map(|(_, standing)| standing.owed_since())
        .min();
    let mut seen = Seen::default();
    for (signed, standing) in memberships {
        if !signed.contract.holders.iter().any(|it| it == member) {
            continue;
        }
        let follows = if pays(signed) { own_debt } else { None };
        let overdue_since = [standing.owed_since(), follows].into_iter().flatten().min();
        let mut reasons = BTreeSet::new();
        let mut status = "active";
        if overdue_since.is_some() {
            reasons.insert("missed_payment".to_owned());
            status = "overdue";
        }
        if standing.is_paused {
            reasons.insert("membership_paused".to_owned());
            status = "paused";
        }
        if standing.has_ended {
            reasons.insert("membership_ended".to_owned());
            status = "ended";
        }
        let gives_access = reasons.is_empty();
        if gives_access {
            seen.allowed = true;
            seen.plans.insert(signed.contract.plan_id.to_owned());
        }
        seen.reasons.extend(reasons.iter().cloned());
        let membership = SeenMembership {
            status: status.to_owned(),
            reasons,
            gives_access,
            overdue_since,
        };
        let id = signed.contract.membership_id.clone();
        seen.memberships.insert(id, membership);
    }
    if seen.allowed {
        // Reasons are given for a refusal.
        seen.reasons.clear();
    }
    seen
}
