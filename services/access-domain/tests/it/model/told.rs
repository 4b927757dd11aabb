//! A story in `access-domain`'s words, as membership-events would keep what was heard of it.

use access_domain::billing::{BillingEventKind as Kind, Fact, Ledger, STAFF};
use access_domain::entitlement::{
    Entitlement, MemberFacts, MembershipFacts, Override, OverrideKind, entitle,
};
use access_domain::gym::{GymRules, OverdueScope};
use access_domain::ids::{MemberId, OverrideId, PauseId, PlanId};
use access_domain::membership::{Cancellation, Membership, NextPlan, Pause};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::story::{Answer, Contract, DUE, Day, Held, Minute, Said, Saying, Story};
use crate::build::{self, Says, membership};

/// All that decides about one member, and the rest of her gym, which must not.
#[derive(Clone)]
pub struct Told {
    pub member: MemberId,
    pub gym: Vec<(Membership, Vec<Fact>)>,
    pub overrides: Vec<Override>,
    pub rules: GymRules,
}

/// What decides: `access-domain`, or a mutant.
pub type Decider = fn(&Told, Timestamp) -> Entitlement;

/// As membership-events has it decided.
pub fn decide(told: &Told, now: Timestamp) -> Entitlement {
    let concerns = |membership: &Membership| {
        membership.is_held_by(&told.member) || membership.payer() == Some(&told.member)
    };
    let memberships = told
        .gym
        .iter()
        .filter(|(membership, _)| concerns(membership))
        .map(|(membership, facts)| MembershipFacts {
            membership: membership.clone(),
            billing: Ledger::from_facts(facts.iter().cloned()).state(),
        })
        .collect();
    let facts = MemberFacts {
        member: told.member.clone(),
        memberships,
        overrides: told.overrides.clone(),
    };
    entitle(&facts, &told.rules, now)
}

impl Told {
    /// What is known of a member at `now`.
    pub fn at(story: &Story, member: u8, now: Minute) -> Self {
        let zone = TimeZone::get(&story.zone).expect("a zone");
        let mut rules = GymRules::new(zone);
        rules.overdue_grace = SignedDuration::from_mins(story.grace);
        if !story.debts_follow_the_payer {
            rules.overdue_scope = OverdueScope::Membership;
        }
        let gym = (0..).zip(&story.contracts);
        let gym = gym
            .map(|(number, contract)| known(number, contract, &rules, now))
            .collect();
        let overrides = (0..)
            .zip(&story.overrides)
            .filter(|(_, held)| held.member == member)
            .map(|(number, held): (u8, _)| Override {
                id: OverrideId::parse(&format!("o{number}")).expect("an id"),
                kind: match held.bars {
                    true => OverrideKind::Bar,
                    false => OverrideKind::LetIn,
                },
                from: instant(held.from),
                until: instant(held.until),
            })
            .collect();
        Self {
            member: build::member(&format!("m{member}")),
            gym,
            overrides,
            rules,
        }
    }
}

pub fn instant(minute: Minute) -> Timestamp {
    Timestamp::from_second(minute * 60).expect("an instant")
}

fn minute(instant: Timestamp) -> Minute {
    assert_eq!(instant.as_second() % 60, 0, "{instant}");
    instant.as_second() / 60
}

fn date(day: Day) -> Date {
    let first = jiff::civil::date(1970, 1, 1);
    first.checked_add(day.days()).expect("a date")
}

fn day(date: Date) -> Day {
    let days = date.since(jiff::civil::date(1970, 1, 1)).expect("a span");
    days.get_days()
}

fn plan(number: u8) -> PlanId {
    PlanId::parse(&format!("p{number}")).expect("an id")
}

fn known(
    number: u8,
    contract: &Contract,
    rules: &GymRules,
    now: Minute,
) -> (Membership, Vec<Fact>) {
    let holders: Vec<String> = contract.holders.iter().map(|m| format!("m{m}")).collect();
    let holders: Vec<&str> = holders.iter().map(String::as_str).collect();
    let mut held = membership(&format!("c{number}"), "p0", &holders);
    held.plan = plan(contract.plan);
    held.payer = contract.payer.map(|m| build::member(&format!("m{m}")));
    held.starts_on = date(contract.starts);
    held.ends_on = contract.ends.map(date);
    held.next_plan = contract.next_plan.map(|(next, from)| NextPlan {
        plan: plan(next),
        from: date(from),
    });
    held.current_subscription = None;
    if contract.names_subscription {
        held.current_subscription = Some("sub_0".parse().expect("an id"));
    }
    let mut facts = Vec::new();
    let mut reference = 0;
    for (nth, saying) in contract.said.iter().enumerate() {
        if saying.heard > now {
            continue;
        }
        if saying.what == Said::NewReference && contract.names_subscription {
            reference += 1;
            let former = held.current_subscription.take().expect("one");
            held.former_subscriptions.insert(former);
            let current = format!("sub_{reference}").parse();
            held.current_subscription = Some(current.expect("an id"));
        }
        write(&mut held, saying, rules);
        facts.extend(fact(number, nth, saying));
    }
    (held, facts)
}

/// What membership-events keeps of a call.
fn write(held: &mut Membership, saying: &Saying, rules: &GymRules) {
    let at = instant(saying.at);
    match &saying.what {
        Said::Pause { id, from, until } => {
            let new = Pause {
                id: pause_id(*id),
                from: date(*from),
                until: until.map(date),
                resumed_at: None,
            };
            match held.pauses.iter_mut().find(|pause| pause.id == new.id) {
                None => held.pauses.push(new),
                // Refused.
                Some(pause)
                    if pause.resumed_at.is_none()
                        && rules.begins(pause.from) <= at
                        && pause.from != new.from => {}
                Some(pause) => *pause = new,
            }
        }
        Said::Resume { id: Some(id) } => {
            let id = pause_id(*id);
            for pause in held.pauses.iter_mut().filter(|pause| pause.id == id) {
                pause.resumed_at = Some(at);
            }
        }
        Said::Resume { id: None } => {
            for pause in &mut held.pauses {
                if rules.begins(pause.from) <= at && pause.resumed_at.is_none_or(|end| end > at) {
                    pause.resumed_at = Some(at);
                }
            }
            held.provider_pauses_ended_at = held.provider_pauses_ended_at.max(Some(at));
        }
        Said::Cancel { ends } => {
            let ends_on = ends.map(date);
            let is_held = held.cancellation.as_ref();
            if is_held.is_none_or(|cancelled| cancelled.ends_on != ends_on) {
                held.cancellation = Some(Cancellation { ends_on, at });
            }
        }
        Said::TakeBack => held.cancellation = None,
        _ => {}
    }
}

fn pause_id(id: u8) -> PauseId {
    PauseId::parse(&format!("pause_{id}")).expect("an id")
}

/// What is kept of money and subscriptions.
fn fact(number: u8, nth: usize, saying: &Saying) -> Option<Fact> {
    let id = format!("e{number}_{nth}");
    let invoice_id = |invoice: &u8| format!("in_{number}_{invoice}");
    let payment_id = |invoice: &u8, payment: &u8| format!("pi_{number}_{invoice}_{payment}");
    let debit_id = |debit: &u8| format!("PM_{number}_{debit}");
    let says = |kind| build::fact(&id, kind, instant(saying.at));
    let mut said = match &saying.what {
        Said::Failed { invoice, .. } => says(Kind::PaymentFailed)
            .invoice(&invoice_id(invoice))
            .amount(DUE)
            .due(DUE),
        Said::Paid {
            invoice,
            payment,
            amount,
            settles,
            ..
        } => {
            let mut said = says(Kind::PaymentSucceeded)
                .invoice(&invoice_id(invoice))
                .amount(*amount)
                .due(DUE);
            said.settles = *settles;
            match payment {
                Some(payment) => said.payment(&payment_id(invoice, payment)),
                None => said,
            }
        }
        Said::Reversed { invoice, payment } => {
            let said = says(Kind::PaymentReversed).amount(DUE);
            match payment {
                Some(payment) => said.payment(&payment_id(invoice, payment)),
                None => said.invoice(&invoice_id(invoice)),
            }
        }
        Said::Refunded { invoice, payment } => says(Kind::PaymentRefunded)
            .payment(&payment_id(invoice, payment))
            .amount(DUE),
        Said::Forgive { invoice, .. } => says(Kind::InvoiceForgiven).invoice(&invoice_id(invoice)),
        Said::Desk { invoice, amount } => {
            let said = says(Kind::PaymentSucceeded).amount(*amount);
            match invoice {
                Some(invoice) => said.invoice(&invoice_id(invoice)),
                None => said,
            }
            .payment(&id)
        }
        Said::DeskForDebit { debit } => says(Kind::PaymentSucceeded)
            .payment(&debit_id(debit))
            .amount(DUE),
        Said::ForgiveDebit { debit } => says(Kind::InvoiceForgiven).payment(&debit_id(debit)),
        Said::DebitFailed { debit } => says(Kind::PaymentFailed).payment(&debit_id(debit)),
        Said::DebitPaid { debit } => says(Kind::PaymentSucceeded).payment(&debit_id(debit)),
        Said::DebitReversed { debit } => says(Kind::PaymentReversed).payment(&debit_id(debit)),
        Said::Paused { until, .. } => {
            let mut said = says(Kind::SubscriptionPaused);
            said.ends_at = until.map(instant);
            said
        }
        Said::Resumed { .. } => says(Kind::SubscriptionResumed),
        Said::Cancelled { .. } => says(Kind::SubscriptionCancelled),
        Said::Pause { .. }
        | Said::Resume { .. }
        | Said::Cancel { .. }
        | Said::TakeBack
        | Said::NewReference => return None,
    };
    if saying.what.is_the_clubs() {
        said.provider = STAFF.parse().expect("an id");
    }
    if let Some(of) = saying.what.subscription() {
        said = said.subscription(&format!("sub_{of}"));
    }
    Some(said)
}

/// A decision in the reference's words, and when time changes it.
pub fn answer(entitlement: &Entitlement) -> (Answer, Option<Minute>) {
    let number = |id: &str| id[1..].parse().expect("a number");
    let words = |reasons: &[access_domain::membership::Reason]| {
        let mut words: Vec<&'static str> = reasons.iter().map(|reason| reason.as_str()).collect();
        words.sort_unstable();
        words
    };
    assert_eq!(entitlement.allowed, !entitlement.plans.is_empty());
    let held = entitlement.memberships.iter().map(|view| Held {
        contract: usize::from(number(view.membership.as_str())),
        plan: number(view.plan.as_str()),
        status: view.status.as_str(),
        reasons: words(&view.reasons),
        opens: view.gives_access,
        starts: day(view.starts_on),
        ends: view.ends_on.map(day),
        paused_until: view.paused_until.map(minute),
        overdue_since: view.overdue_since.map(minute),
    });
    let plans = entitlement.plans.iter().map(|access| {
        assert_eq!(access.valid_from, None);
        (number(access.plan.as_str()), access.valid_until.map(minute))
    });
    let answer = Answer {
        plans: plans.collect(),
        reasons: words(&entitlement.reasons),
        held: held.collect(),
    };
    (answer, entitlement.changes_at.map(minute))
}
