//! Realistic histories of each provider, in many orders: the end is the same.
//!
//! Each history is played several times, for people of their own: once as it happened, and in
//! orders that a seed chooses, partly twice, with the memberships themselves coming in somewhere
//! between. Many of a history's events have the same instant. What facts come to is for
//! `access-domain`; this is about links, parking and ties.

use std::collections::BTreeMap;

use contracts::billing::v1::BillingEvent;
use contracts::membership::v1 as wire;

use crate::random::Dice;
use crate::world::{ACCOUNT, GYM, World, event, on_both};

/// Histories of each provider.
const HISTORIES: u64 = 12;
/// Orders of each, the one in which it happened included.
const ORDERS: u64 = 4;

on_both! {
    async fn any_order_of_a_stripe_history_ends_alike(world: World) {
        play(world, "stripe").await;
    }

    async fn any_order_of_a_gocardless_history_ends_alike(world: World) {
        play(world, "gocardless").await;
    }

    async fn any_order_of_a_history_of_ones_own_sender_ends_alike(world: World) {
        play(world, "standard").await;
    }
}

/// One thing that reaches the service.
#[derive(Clone)]
enum Step {
    Membership(usize),
    Event(Box<BillingEvent>),
}

/// A person with two memberships of one customer, and the order in which things reach us.
struct Copy {
    history: u64,
    person: String,
    references: [Reference; 2],
    steps: Vec<Step>,
}

/// What a membership is put in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reference {
    Subscription,
    /// Nothing: the metadata alone link.
    Nothing,
}

async fn play(world: &mut World, provider: &str) {
    world
        .put_gym(|gym| gym.billing_accounts[0].provider = provider.into())
        .await;
    let mut copies = Vec::new();
    for history in 0..HISTORIES {
        for order in 0..ORDERS {
            let person = format!("p{history}o{order}");
            world.put_member(&person).await;
            copies.push(copy(provider, history, order, person));
        }
    }
    let longest = copies.iter().map(|copy| copy.steps.len()).max();
    for at in 0..longest.expect("copies") {
        for copy in &copies {
            match copy.steps.get(at) {
                Some(Step::Event(event)) => world.publish(event).await,
                Some(Step::Membership(nth)) => put(world, provider, copy, *nth).await,
                None => {}
            }
        }
        // One after the other for each person.
        world.until_billing_is_quiet().await;
    }
    assert_eq!(world.dead_letters().await, 0);
    let unmatched = unmatched(world).await;
    let mut closed = 0;
    for orders in copies.chunks(ORDERS as usize) {
        let mut ends = Vec::new();
        for copy in orders {
            let last = copy.person.clone();
            let state = world.published(&last).await.expect("a state");
            let parked = unmatched.get(&last).cloned().unwrap_or_default();
            ends.push((bare(state, &last), parked));
        }
        closed += usize::from(!ends[0].0.allowed);
        for (copy, end) in orders.iter().zip(&ends).skip(1) {
            assert_eq!(*end, ends[0], "{provider} {}:{}", copy.person, told(copy));
        }
    }
    assert!(closed > 1 && closed < HISTORIES as usize, "{closed} closed");
}

fn copy(provider: &str, history: u64, order: u64, person: String) -> Copy {
    // The same dice for the same history.
    let mut dice = Dice(history * 7_919 + 11);
    let references = [(); 2].map(|()| match dice.below(4) {
        0 => Reference::Nothing,
        _ => Reference::Subscription,
    });
    let mut history_of = History {
        provider,
        person: &person,
        references,
        minute: 0,
        told: Vec::new(),
    };
    for nth in 0..1 + dice.below(4) {
        for membership in 0..2 {
            match provider {
                "gocardless" => history_of.direct_debit(membership, nth, &mut dice),
                _ => history_of.invoice(membership, nth, &mut dice),
            }
        }
    }
    let mut steps = vec![Step::Membership(0), Step::Membership(1)];
    steps.extend(history_of.told.into_iter().map(Box::new).map(Step::Event));
    let mut dice = Dice(history * 104_729 + order);
    if order > 0 {
        let twice: Vec<Step> = steps[2..]
            .iter()
            .filter(|_| dice.below(5) == 0)
            .cloned()
            .collect();
        steps.extend(twice);
        for i in (1..steps.len()).rev() {
            steps.swap(i, dice.below(i as u64 + 1) as usize);
        }
    }
    Copy {
        history,
        person,
        references,
        steps,
    }
}

async fn put(world: &mut World, provider: &str, copy: &Copy, nth: usize) {
    let reference = copy.references[nth];
    let id = format!("{}m{nth}", copy.person);
    world
        .put_membership(&id, &copy.person, |put| {
            put.plan_id = format!("plan{nth}");
            put.billing.as_mut().expect("a reference").provider = provider.into();
            if reference == Reference::Nothing {
                put.billing = None;
            }
        })
        .await;
}

/// A person's history as it is made up.
struct History<'a> {
    provider: &'a str,
    person: &'a str,
    references: [Reference; 2],
    minute: u64,
    told: Vec<BillingEvent>,
}

impl History<'_> {
    /// Time goes on, or does not.
    fn later(&mut self, dice: &mut Dice) {
        self.minute += dice.below(3);
    }

    fn event(&mut self, kind: &str) -> &mut BillingEvent {
        let at = format!(
            "2026-03-09T{:02}:{:02}:00Z",
            self.minute / 60,
            self.minute % 60
        );
        let id = format!("{}e{}", self.person, self.told.len());
        let mut told = event(&id, kind, &at);
        told.provider = self.provider.into();
        told.subscription_id = None;
        self.told.push(told);
        self.told.last_mut().expect("just told")
    }

    /// One that names its subscription.
    fn of(&mut self, membership: usize, kind: &str) -> &mut BillingEvent {
        let (person, reference) = (self.person.to_owned(), self.references[membership]);
        let told = self.event(kind);
        told.subscription_id = Some(format!("sub_{person}m{membership}"));
        told.customer_id = Some(format!("cus_{person}"));
        if reference == Reference::Nothing {
            let name = format!("{person}m{membership}");
            told.metadata.insert("gymflow_membership_id".into(), name);
        }
        told
    }

    /// Stripe's ways, and those of a sender of one's own that knows invoices.
    fn invoice(&mut self, membership: usize, nth: u64, dice: &mut Dice) {
        let invoice = format!("in_{}m{membership}n{nth}", self.person);
        let payment = invoice.replacen("in_", "pi_", 1);
        if dice.below(4) == 0 {
            return self.pause(membership, dice);
        }
        let with_amounts = |told: &mut BillingEvent| {
            told.amount_minor = Some(4_000);
            told.currency = Some("GBP".into());
        };
        for _ in 0..dice.below(3) {
            let failed = self.of(membership, "payment_failed");
            failed.invoice_id = Some(invoice.clone());
            failed.amount_due_minor = Some(4_000);
            with_amounts(failed);
            self.later(dice);
        }
        if dice.below(4) == 0 {
            if dice.below(2) == 0 {
                let forgiven = self.of(membership, "invoice_forgiven");
                forgiven.invoice_id = Some(invoice);
            }
            return;
        }
        let paid = self.of(membership, "payment_succeeded");
        paid.invoice_id = Some(invoice.clone());
        paid.reason = Some("invoice_paid".into());
        with_amounts(paid);
        let link = self.event("payment_succeeded");
        link.invoice_id = Some(invoice);
        link.payment_id = Some(payment.clone());
        link.amount_due_minor = Some(4_000);
        with_amounts(link);
        self.later(dice);
        if dice.below(3) == 0 {
            let customer = format!("cus_{}", self.person);
            let refunded = self.event("payment_refunded");
            refunded.payment_id = Some(payment.clone());
            refunded.customer_id = Some(customer);
            with_amounts(refunded);
            self.later(dice);
        }
        if dice.below(2) == 0 {
            let reversed = self.event("payment_reversed");
            reversed.payment_id = Some(payment.clone());
            with_amounts(reversed);
            self.later(dice);
            if dice.below(2) == 0 {
                let won = self.event("payment_succeeded");
                won.payment_id = Some(payment);
                with_amounts(won);
            }
        }
    }

    /// GoCardless names payments alone; which subscription they are of is told once.
    fn direct_debit(&mut self, membership: usize, nth: u64, dice: &mut Dice) {
        let payment = format!("PM{}m{membership}n{nth}", self.person);
        if dice.below(4) == 0 {
            return self.pause(membership, dice);
        }
        let made = self.of(membership, "subscription_changed");
        made.customer_id = None;
        made.payment_id = Some(payment.clone());
        let kinds = [
            &["payment_failed", "payment_succeeded", "payment_succeeded"][..],
            &["payment_failed", "payment_failed"],
            &["payment_succeeded", "payment_reversed"],
            &["payment_succeeded", "payment_reversed", "payment_succeeded"],
            &["payment_succeeded", "payment_failed", "payment_reversed"],
            &["payment_failed", "invoice_forgiven"],
        ];
        for kind in kinds[dice.below(kinds.len() as u64) as usize] {
            self.later(dice);
            self.event(kind).payment_id = Some(payment.clone());
        }
    }

    fn pause(&mut self, membership: usize, dice: &mut Dice) {
        self.of(membership, "subscription_paused");
        self.later(dice);
        match dice.below(4) {
            0 => {}
            1 => {
                self.of(membership, "subscription_cancelled");
            }
            _ => {
                self.of(membership, "subscription_resumed");
            }
        }
        self.later(dice);
    }
}

/// What the state says, without what differs from order to order, and from person to person.
fn bare(state: wire::MembershipStatusChanged, person: &str) -> wire::MembershipStatusChanged {
    let mut state = wire::MembershipStatusChanged {
        member_id: String::new(),
        version: 0,
        decided_at: None,
        cause: None,
        ..state
    };
    for membership in &mut state.memberships {
        membership.membership_id = membership.membership_id.replacen(person, "", 1);
    }
    state
}

/// Events that wait, by person.
async fn unmatched(world: &World) -> BTreeMap<String, Vec<String>> {
    let request = wire::ListUnmatchedBillingRequest {
        gym_id: GYM.into(),
        page_size: 500,
        page_token: String::new(),
    };
    let answer = world.client().list_unmatched_billing(request).await;
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for parked in answer.expect("a list").into_inner().events {
        let event = parked.event.expect("an event");
        assert_eq!(event.account, ACCOUNT);
        let (person, nth) = event.event_id.split_once('e').expect("an id");
        all.entry(person.to_owned())
            .or_default()
            .push(nth.to_owned());
    }
    all.values_mut().for_each(|ids| ids.sort());
    all
}

/// The steps, for whoever reads a failure.
fn told(copy: &Copy) -> String {
    let line = |step: &Step| match step {
        Step::Membership(nth) => format!("\n  membership {nth} {:?}", copy.references[*nth]),
        Step::Event(event) => format!(
            "\n  {} {} at {:?}: invoice {:?} payment {:?} subscription {:?} customer {:?}",
            event.event_id,
            event.kind,
            event.occurred_at.as_ref().map(|at| at.seconds),
            event.invoice_id,
            event.payment_id,
            event.subscription_id,
            event.customer_id
        ),
    };
    let lines: String = copy.steps.iter().map(line).collect();
    format!(" history {}{lines}", copy.history)
}
