//! A history in GoCardless's words: the events that GoCardless makes of each happening. Written from
//! the facts about GoCardless, and not from the product's reading of them. In which bodies it posts
//! them is in [`packing`].

mod packing;

use jiff::Timestamp;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::history::{Debit, DirectDebit, Happening, Mandate, MoreNoise, Provider, Signed, What};
use crate::post::{FactId, Post, fact_id};

/// An organisation that the endpoint takes, and that is no gym's.
pub const NOBODYS_ACCOUNT: &str = "OR00NOBODY";
/// An organisation that the endpoint does not take.
const ANOTHER_ACCOUNT: &str = "OR00ANOTHER";

/// One event, ready to be posted.
#[derive(Clone)]
struct Event {
    at: i64,
    json: Value,
    fact: Option<FactId>,
}

/// The bodies that tell of all of `history` that GoCardless collects for.
pub fn tell(memberships: &[Signed], history: &[Happening], dice: &mut StdRng) -> Vec<Post> {
    let mut events = Vec::new();
    for happening in history {
        let signed = &memberships[happening.membership];
        if signed.provider != Provider::GoCardless {
            continue;
        }
        for draft in drafts(signed, &happening.what) {
            let number = events.len();
            events.push(draft.event(signed, happening.at, number, dice));
        }
    }
    packing::into_bodies(events, dice)
}

/// An event before it has its envelope.
struct Draft {
    resource: &'static str,
    action: &'static str,
    details: Value,
    links: Value,
    account: Option<&'static str>,
    is_named: bool,
    is_fact: bool,
}

fn fact(resource: &'static str, action: &'static str, cause: &str, links: Value) -> Draft {
    Draft {
        resource,
        action,
        details: json!({ "origin": "gocardless", "cause": cause, "description": "In words." }),
        links,
        account: None,
        is_named: false,
        is_fact: true,
    }
}

fn no_fact(resource: &'static str, action: &'static str, cause: &str, links: Value) -> Draft {
    Draft {
        is_fact: false,
        ..fact(resource, action, cause, links)
    }
}

impl Draft {
    fn event(mut self, signed: &Signed, at: i64, number: usize, dice: &mut StdRng) -> Event {
        let id = format!("EV00{number:06}");
        let account = self.account.unwrap_or(signed.account);
        // The endpoint's own organisation need not be named.
        if signed.gym != dev_stack::roster::GYM || self.account.is_some() || dice.random() {
            self.links["organisation"] = account.into();
        }
        if dice.random() {
            self.details["scheme"] = "bacs".into();
            self.details["reason_code"] = "ARUDD-0".into();
        }
        let at_text = Timestamp::from_second(at).expect("an instant");
        let mut json = json!({
            "id": id, "created_at": format!("{at_text:.3}"), "resource_type": self.resource,
            "action": self.action, "details": self.details, "links": self.links, "metadata": {},
        });
        if self.is_named {
            let name = json!({ "gymflow_membership_id": signed.contract.membership_id });
            // The resource's own, or what the call carried that made the event.
            let place = ["resource_metadata", "metadata"][dice.random_range(0..2)];
            json[place] = name;
        }
        Event {
            at,
            json,
            fact: self
                .is_fact
                .then(|| fact_id(Provider::GoCardless, account, &id)),
        }
    }
}

fn drafts(signed: &Signed, what: &What) -> Vec<Draft> {
    let subscription = || json!({ "subscription": signed.contract.subscription_id });
    let of_subscription = |action, cause| Draft {
        is_named: signed.is_named,
        ..fact("subscriptions", action, cause, subscription())
    };
    match what {
        What::Paused(_) => vec![of_subscription("paused", "subscription_paused")],
        What::Resumed(_) => vec![of_subscription("resumed", "subscription_resumed")],
        What::Ended => vec![of_subscription("cancelled", "subscription_cancelled")],
        What::DirectDebit(DirectDebit::Payment {
            payment,
            is_named,
            step,
        }) => {
            let mut drafts = payment_drafts(payment, *step);
            for draft in &mut drafts {
                draft.is_named = *is_named;
            }
            if *step == Debit::Made {
                let mut made = of_subscription("payment_created", "payment_created");
                made.links["payment"] = payment.as_str().into();
                drafts.push(made);
            }
            drafts
        }
        What::DirectDebit(DirectDebit::Mandate(what)) => vec![mandate_draft(signed, *what)],
        What::DirectDebit(DirectDebit::Noise(noise)) => vec![match noise {
            MoreNoise::PauseScheduled => of_subscription("scheduled_pause", "scheduled_pause"),
            MoreNoise::Amended => of_subscription("amended", "subscription_amended"),
            MoreNoise::Finished => of_subscription("finished", "subscription_finished"),
            MoreNoise::MandateTransferred => {
                let links = json!({ "mandate": signed.mandate });
                no_fact("mandates", "transferred", "bank_account_transferred", links)
            }
            MoreNoise::Refund => {
                let links = json!({ "refund": "RF00NOISE" });
                no_fact("refunds", "created", "refund_created", links)
            }
            MoreNoise::OfNobodysAccount => Draft {
                account: Some(NOBODYS_ACCOUNT),
                is_named: true,
                ..failed_noise(true)
            },
            MoreNoise::OfAnotherAccount => Draft {
                account: Some(ANOTHER_ACCOUNT),
                is_named: true,
                ..failed_noise(false)
            },
            MoreNoise::SomethingNew => {
                no_fact("something_new", "failed", "something_new", json!({}))
            }
        }],
        What::Card(_) => unreachable!("Stripe's"),
    }
}

fn failed_noise(is_fact: bool) -> Draft {
    let links = json!({ "payment": "PM00NOISE" });
    Draft {
        is_fact,
        ..fact("payments", "failed", "insufficient_funds", links)
    }
}

fn payment_drafts(payment: &str, step: Debit) -> Vec<Draft> {
    let links = || json!({ "payment": payment });
    let fact = |action, cause| fact("payments", action, cause, links());
    let no_fact = |action, cause| no_fact("payments", action, cause, links());
    match step {
        Debit::Made => vec![no_fact("created", "payment_created")],
        Debit::Submitted => vec![no_fact("submitted", "payment_submitted")],
        Debit::Failed { is_tried_again } => {
            let mut failed = fact("failed", "insufficient_funds");
            failed.details["origin"] = "bank".into();
            failed.details["will_attempt_retry"] = is_tried_again.into();
            vec![failed]
        }
        Debit::Resubmitted => vec![no_fact("resubmission_requested", "payment_autoretried")],
        Debit::Confirmed => vec![fact("confirmed", "payment_confirmed")],
        Debit::PaidOut => {
            let payout = json!({ "payout": payment.replacen("PM", "PO", 1) });
            vec![
                fact("paid_out", "payment_paid_out"),
                self::no_fact("payouts", "paid", "payout_paid", payout),
            ]
        }
        Debit::LateFailureSettled => vec![fact("late_failure_settled", "late_failure_settled")],
        Debit::ChargedBack => vec![fact("charged_back", "authorisation_disputed")],
        Debit::ChargebackSettled => vec![no_fact("chargeback_settled", "chargeback_settled")],
        Debit::ChargebackCancelled => vec![fact("chargeback_cancelled", "payment_confirmed")],
        Debit::CalledOff => vec![fact("cancelled", "payment_cancelled")],
        Debit::FallenWithMandate => vec![fact("cancelled", "mandate_cancelled")],
        Debit::ApprovalDenied => vec![fact("customer_approval_denied", "customer_approval_denied")],
    }
}

fn mandate_draft(signed: &Signed, what: Mandate) -> Draft {
    let mut links = json!({ "mandate": signed.mandate });
    let (action, cause) = match what {
        Mandate::Failed => ("failed", "invalid_bank_details"),
        Mandate::Cancelled => ("cancelled", "mandate_cancelled"),
        Mandate::Expired => ("expired", "mandate_expired"),
        Mandate::Blocked => ("blocked", "mandate_blocked"),
        Mandate::Reinstated => ("reinstated", "mandate_reinstated"),
        Mandate::Replaced => {
            let mandate = signed.mandate.as_deref().unwrap_or_default();
            links["new_mandate"] = format!("{mandate}B").into();
            ("replaced", "scheme_identifier_changed")
        }
    };
    Draft {
        is_named: signed.is_named,
        ..fact("mandates", action, cause, links)
    }
}
