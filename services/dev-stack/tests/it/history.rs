//! What happens to memberships at their payment providers, made up from a seed: the truth, in the
//! order in which it happened. [`crate::stripe_bodies`] and [`crate::gocardless_bodies`] tell of it
//! in the providers' words, and [`crate::reference`] says what is to come of it; none of them knows
//! of the others.

mod cards;
mod direct_debits;

use dev_stack::roster::Contract;
use rand::Rng;
use rand::rngs::StdRng;

pub use cards::{Card, Noise, Told};
pub use direct_debits::{Debit, DirectDebit, Mandate, MoreNoise};

/// Who collects for a membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    /// Invoices, by card.
    Stripe,
    /// Payments, by direct debit.
    GoCardless,
}

impl Provider {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::GoCardless => "gocardless",
        }
    }
}

/// A membership, and how the product comes to know of it.
#[derive(Clone, Debug)]
pub struct Signed {
    pub gym: &'static str,
    pub provider: Provider,
    pub account: &'static str,
    pub contract: Contract,
    /// GoCardless's alone.
    pub mandate: Option<String>,
    pub known: Known,
    /// Whether the provider's metadata name the membership.
    pub is_named: bool,
    /// Stripe's shapes of before 2025-03-31 (basil).
    pub has_old_shapes: bool,
}

/// How the product comes to know of a membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// With its billing reference, before anything happens.
    FromTheStart,
    /// With its billing reference, while events are on their way: those wait for it.
    Late,
    /// Without a billing reference: the metadata alone link.
    ByName,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Happening {
    /// Provider's time, Unix seconds. Stripe tells no finer one.
    pub at: i64,
    /// Its place in the list of memberships.
    pub membership: usize,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Card(Card),
    DirectDebit(DirectDebit),
    Paused(PauseOf),
    Resumed(PauseOf),
    /// The subscription is over.
    Ended,
}

/// Stripe has two kinds of pause, GoCardless the second alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseOf {
    Collection,
    Subscription,
}

const DAY: i64 = 86_400;

/// Histories of the `memberships`, one after the other until they hold `enough` happenings; the
/// memberships that are left have none. All of it lies within 140 days from `begin`.
pub fn make_up(
    memberships: &[Signed],
    enough: usize,
    begin: i64,
    dice: &mut StdRng,
) -> Vec<Happening> {
    let mut all = Vec::new();
    for (membership, signed) in memberships.iter().enumerate() {
        if all.len() >= enough {
            break;
        }
        let pauses = match signed.provider {
            Provider::Stripe if dice.random() => PauseOf::Collection,
            _ => PauseOf::Subscription,
        };
        let mut story = Story {
            membership,
            is_named: signed.is_named,
            at: begin + dice.random_range(0..5 * DAY),
            pauses,
            bills: 0,
            told: Vec::new(),
        };
        for _ in 0..dice.random_range(1..=5) {
            match signed.provider {
                Provider::Stripe => story.billing_period(dice),
                Provider::GoCardless => story.debit_period(dice),
            }
            story.later(dice.random_range(2..6) * DAY, dice);
        }
        if dice.random_bool(0.12) {
            match signed.provider {
                Provider::Stripe => story.end(dice),
                Provider::GoCardless => story.end_of_mandate(dice),
            }
        }
        all.extend(story.told);
    }
    // One clock for all.
    all.sort_by_key(|happening| happening.at);
    all
}

/// One membership's history as it is made up.
struct Story {
    membership: usize,
    is_named: bool,
    at: i64,
    pauses: PauseOf,
    /// Invoices or payments so far.
    bills: usize,
    told: Vec<Happening>,
}

impl Story {
    fn tell(&mut self, what: What) {
        self.told.push(Happening {
            at: self.at,
            membership: self.membership,
            what,
        });
    }

    fn later(&mut self, about: i64, dice: &mut StdRng) {
        self.at += about + dice.random_range(1..3_600);
    }

    /// A key of its own for the next invoice or payment.
    fn next_bill(&mut self) -> String {
        self.bills += 1;
        format!("{}x{}", self.membership, self.bills)
    }

    fn pause(&mut self, dice: &mut StdRng) {
        let of = self.pauses;
        self.tell(What::Paused(of));
        match dice.random_range(0..10) {
            // Of both in one second the pause counts.
            0 => self.tell(What::Resumed(of)),
            1..8 => {
                self.later(2 * DAY, dice);
                self.tell(What::Resumed(of));
            }
            _ => {}
        }
    }

    fn end(&mut self, dice: &mut StdRng) {
        if dice.random_bool(0.3) {
            self.tell(What::Paused(self.pauses));
        }
        self.tell(What::Ended);
    }
}
