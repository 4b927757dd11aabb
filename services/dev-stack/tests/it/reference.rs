//! What is to come of a history: slow, plain, and apart from the product's own code.
//!
//! It reads the truth in the order in which it happened, one thing after the other, as somebody
//! with a pencil would. The product sees the same in any order, in pieces and repeated, and has to
//! come to the same end.

use std::collections::{BTreeMap, BTreeSet};

use dev_stack::roster::Roster;

use crate::history::{Happening, Signed, What};

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
    is_paused: bool,
    has_ended: bool,
}

impl Standing {
    /// Since when its oldest debt is open.
    fn owed_since(&self) -> Option<i64> {
        self.invoices
            .values()
            .filter_map(|invoice| invoice.owed_since)
            .min()
    }

    fn see(&mut self, happening: &Happening) {
        match &happening.what {
            What::Failed { invoice, .. }
            | What::ActionRequired { invoice, .. }
            | What::GivenUp { invoice, .. } => {
                self.invoice(invoice, happening.at, |it| it.has_failed = true);
            }
            What::Forgiven { invoice, .. } => {
                self.invoice(invoice, happening.at, |it| it.is_forgiven = true);
            }
            What::Paid {
                invoice, payment, ..
            } => {
                self.payments.insert(payment.clone(), invoice.clone());
                self.invoice(invoice, happening.at, |it| it.is_paid = true);
            }
            What::Disputed { payment } | What::DisputeLost { payment } => {
                let invoice = self.payments[payment].clone();
                self.invoice(&invoice, happening.at, |it| it.is_taken_back = true);
            }
            What::DisputeWon { payment } => {
                let invoice = self.payments[payment].clone();
                self.invoice(&invoice, happening.at, |it| it.is_taken_back = false);
            }
            What::Paused(_) => self.is_paused = true,
            What::Resumed(_) => self.is_paused = false,
            What::Ended => self.has_ended = true,
            What::PaidInPart { .. }
            | What::Refunded { .. }
            | What::Inquiry { .. }
            | What::Noise(_) => {}
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

/// Everybody of both gyms.
pub fn outcome(
    rosters: [&Roster; 2],
    memberships: &[Signed],
    history: &[Happening],
) -> BTreeMap<Member, Seen> {
    let mut standings: Vec<Standing> = memberships.iter().map(|_| Standing::default()).collect();
    let mut history = history.to_vec();
    // The clock ticks in seconds. Of a pause and a resume in one, the pause counts.
    history.sort_by_key(|it| (it.at, matches!(it.what, What::Paused(_))));
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
