//! Short ways to say a fact, a membership, a gym.

use access_domain::billing::{BillingEventKind, Fact, Ledger};
use access_domain::entitlement::{Entitlement, MemberFacts, MembershipFacts, entitle};
use access_domain::gym::GymRules;
use access_domain::ids::{
    AccountId, EventId, InvoiceId, MemberId, MembershipId, PaymentId, PlanId, ProviderId,
    SubscriptionId,
};
use access_domain::membership::Membership;
use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};

pub fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

/// `minutes` after the beginning of all stories.
pub fn minute(minutes: i64) -> Timestamp {
    at("2026-03-01T12:00:00Z")
        .checked_add(minutes.minutes())
        .expect("an instant")
}

pub fn day(text: &str) -> Date {
    text.parse().expect("a date")
}

pub fn rules() -> GymRules {
    GymRules::new(TimeZone::UTC)
}

pub fn member(id: &str) -> MemberId {
    MemberId::parse(id).expect("an id")
}

pub fn fact(event: &str, kind: BillingEventKind, when: Timestamp) -> Fact {
    let key = (
        ProviderId::parse("stripe").expect("an id"),
        AccountId::parse("acct_1").expect("an id"),
        EventId::parse(event).expect("an id"),
    );
    Fact::new(key, kind, when)
}

pub trait Says: Sized {
    fn invoice(self, id: &str) -> Self;
    fn payment(self, id: &str) -> Self;
    fn subscription(self, id: &str) -> Self;
    fn amount(self, minor: i64) -> Self;
    fn due(self, minor: i64) -> Self;
    fn settles(self) -> Self;
    fn currency(self, code: &str) -> Self;
}

impl Says for Fact {
    fn invoice(mut self, id: &str) -> Self {
        self.invoice = Some(InvoiceId::parse(id).expect("an id"));
        self
    }

    fn payment(mut self, id: &str) -> Self {
        self.payment = Some(PaymentId::parse(id).expect("an id"));
        self
    }

    fn subscription(mut self, id: &str) -> Self {
        self.subscription = Some(SubscriptionId::parse(id).expect("an id"));
        self
    }

    fn amount(mut self, minor: i64) -> Self {
        self.amount_minor = Some(minor);
        self
    }

    fn due(mut self, minor: i64) -> Self {
        self.amount_due_minor = Some(minor);
        self
    }

    fn currency(mut self, code: &str) -> Self {
        self.currency = Some(code.to_owned());
        self
    }

    fn settles(mut self) -> Self {
        self.settles = true;
        self
    }
}

/// An open-ended membership of `plan`, in force since January, billed by `sub_{id}`.
pub fn membership(id: &str, plan: &str, holders: &[&str]) -> Membership {
    Membership {
        id: MembershipId::parse(id).expect("an id"),
        plan: PlanId::parse(plan).expect("an id"),
        holders: holders.iter().map(|id| member(id)).collect(),
        payer: None,
        starts_on: day("2026-01-05"),
        ends_on: None,
        cancellation: None,
        next_plan: None,
        pauses: Vec::new(),
        provider_pauses_ended_at: None,
        current_subscription: Some(SubscriptionId::parse(&format!("sub_{id}")).expect("an id")),
        former_subscriptions: Default::default(),
    }
}

pub fn with(membership: Membership, facts: impl IntoIterator<Item = Fact>) -> MembershipFacts {
    MembershipFacts {
        membership,
        billing: Ledger::from_facts(facts).state(),
    }
}

pub fn facts(id: &str, memberships: Vec<MembershipFacts>) -> MemberFacts {
    MemberFacts {
        member: member(id),
        memberships,
        overrides: Vec::new(),
    }
}

/// Whether the member gets in, and by which plans.
pub fn plans(facts: &MemberFacts, rules: &GymRules, now: Timestamp) -> Vec<String> {
    plans_of(&entitle(facts, rules, now))
}

pub fn plans_of(entitlement: &Entitlement) -> Vec<String> {
    entitlement
        .plans
        .iter()
        .map(|access| access.plan.to_string())
        .collect()
}

pub fn reasons(entitlement: &Entitlement) -> Vec<&'static str> {
    entitlement
        .reasons
        .iter()
        .map(|reason| reason.as_str())
        .collect()
}
