//! What happens to memberships at a payment provider, made up from a seed: the truth, in the order
//! in which it happened. [`crate::stripe_bodies`] tells of it in Stripe's words, and
//! [`crate::reference`] says what is to come of it; neither knows of the other.

use dev_stack::roster::Contract;
use rand::Rng;
use rand::rngs::StdRng;

/// A membership, and how the product comes to know of it.
#[derive(Clone, Debug)]
pub struct Signed {
    pub gym: &'static str,
    pub account: &'static str,
    pub contract: Contract,
    pub known: Known,
    /// Whether the provider's metadata name the membership.
    pub is_named: bool,
    /// Shapes of before 2025-03-31 (basil).
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
    /// A charge is declined.
    Failed {
        invoice: String,
        attempt: i64,
    },
    /// The bank wants to see the member first; nothing is collected.
    ActionRequired {
        invoice: String,
        attempt: i64,
    },
    /// The provider tries no more; it is owed all the same.
    GivenUp {
        invoice: String,
        attempt: i64,
    },
    /// Voided, or written off by a person.
    Forgiven {
        invoice: String,
        is_voided: bool,
    },
    /// The whole of it.
    Paid {
        invoice: String,
        payment: String,
        told: Told,
    },
    /// A part, which settles nothing.
    PaidInPart {
        invoice: String,
        payment: String,
    },
    /// Given back by the gym; opens no debt.
    Refunded {
        payment: String,
        is_whole: bool,
    },
    /// The bank asks; no money moves.
    Inquiry {
        payment: String,
    },
    /// The bank takes the money back.
    Disputed {
        payment: String,
    },
    /// And gives it to the gym again.
    DisputeWon {
        payment: String,
    },
    DisputeLost {
        payment: String,
    },
    Paused(PauseOf),
    Resumed(PauseOf),
    /// The subscription is over.
    Ended,
    /// Says nothing about doors, or is not for us at all.
    Noise(Noise),
}

/// By which events a payment is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Once,
    /// By `invoice.paid` and by its twin.
    Twice,
    /// Money taken elsewhere: no payment of the provider's.
    OutOfBand,
}

/// Stripe has two kinds of pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseOf {
    Collection,
    Subscription,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    PastDue,
    CancelScheduled,
    InvoiceCreated,
    PaymentIntent,
    TestMode,
    Thin,
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
    for membership in 0..memberships.len() {
        if all.len() >= enough {
            break;
        }
        let mut story = Story {
            membership,
            at: begin + dice.random_range(0..5 * DAY),
            pauses: if dice.random() {
                PauseOf::Collection
            } else {
                PauseOf::Subscription
            },
            invoices: 0,
            told: Vec::new(),
        };
        for _ in 0..dice.random_range(1..=4) {
            story.period(dice);
            story.later(dice.random_range(2..6) * DAY, dice);
        }
        if dice.random_bool(0.12) {
            story.end(dice);
        }
        all.extend(story.told);
    }
    // The provider's one clock for all.
    all.sort_by_key(|happening| happening.at);
    all
}

/// One membership's history as it is made up.
struct Story {
    membership: usize,
    at: i64,
    pauses: PauseOf,
    invoices: usize,
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

    fn names(&mut self) -> (String, String) {
        self.invoices += 1;
        let key = format!("{}x{}", self.membership, self.invoices);
        (format!("in_{key}"), format!("pi_{key}"))
    }

    /// A billing period: mostly an invoice, sometimes a pause, and noise about it.
    fn period(&mut self, dice: &mut StdRng) {
        if dice.random_bool(0.3) {
            let all = [
                Noise::CancelScheduled,
                Noise::InvoiceCreated,
                Noise::PaymentIntent,
                Noise::TestMode,
                Noise::Thin,
            ];
            self.tell(What::Noise(all[dice.random_range(0..all.len())]));
        }
        if dice.random_bool(0.2) {
            return self.pause(dice);
        }
        let (invoice, payment) = self.names();
        match dice.random_range(0..10) {
            0..3 => self.paid(&invoice, &payment, dice),
            3..6 => {
                self.failures(&invoice, dice);
                // A member who pays in the app the moment she is told: the same second.
                if dice.random_bool(0.8) {
                    self.later(DAY / 4, dice);
                }
                self.paid(&invoice, &payment, dice);
            }
            6 => {
                let attempt = self.failures(&invoice, dice);
                if dice.random() {
                    self.later(DAY, dice);
                    self.tell(What::GivenUp { invoice, attempt });
                }
            }
            7 => {
                self.failures(&invoice, dice);
                self.later(DAY, dice);
                let is_voided = dice.random();
                self.tell(What::Forgiven { invoice, is_voided });
            }
            8 => {
                self.failures(&invoice, dice);
                self.later(DAY, dice);
                self.tell(What::PaidInPart { invoice, payment });
            }
            _ => self.disputed(&invoice, &payment, dice),
        }
    }

    /// The first attempt and some of the four retries; how many there were.
    fn failures(&mut self, invoice: &str, dice: &mut StdRng) -> i64 {
        let attempts = dice.random_range(1..=5);
        let waits = [0, 1, 2, 3, 7];
        for attempt in 1..=attempts {
            if attempt > 1 {
                self.later(waits[attempt as usize - 1] * DAY, dice);
            }
            let invoice = invoice.to_owned();
            if attempt == 1 && dice.random_bool(0.2) {
                let invoice = invoice.clone();
                self.tell(What::ActionRequired { invoice, attempt });
            }
            self.tell(What::Failed { invoice, attempt });
            if attempt == 1 && dice.random_bool(0.4) {
                self.tell(What::Noise(Noise::PastDue));
            }
        }
        attempts
    }

    fn paid(&mut self, invoice: &str, payment: &str, dice: &mut StdRng) {
        let told = [Told::Once, Told::Twice, Told::Twice, Told::OutOfBand];
        let told = told[dice.random_range(0..told.len())];
        self.tell(What::Paid {
            invoice: invoice.to_owned(),
            payment: payment.to_owned(),
            told,
        });
        if told != Told::OutOfBand && dice.random_bool(0.25) {
            self.later(DAY, dice);
            self.tell(What::Refunded {
                payment: payment.to_owned(),
                is_whole: dice.random(),
            });
            if dice.random_bool(0.3) {
                // The bank asks nobody whether the gym has given it back already.
                self.later(DAY, dice);
                let payment = payment.to_owned();
                self.tell(What::Disputed { payment });
            }
        }
    }

    fn disputed(&mut self, invoice: &str, payment: &str, dice: &mut StdRng) {
        let payment = || payment.to_owned();
        if dice.random() {
            self.failures(invoice, dice);
            self.later(DAY, dice);
        }
        self.tell(What::Paid {
            invoice: invoice.to_owned(),
            payment: payment(),
            told: Told::Twice,
        });
        self.later(DAY, dice);
        if dice.random_bool(0.3) {
            self.tell(What::Inquiry { payment: payment() });
            return;
        }
        self.tell(What::Disputed { payment: payment() });
        self.later(3 * DAY, dice);
        match dice.random_range(0..3) {
            0 => self.tell(What::DisputeWon { payment: payment() }),
            1 => self.tell(What::DisputeLost { payment: payment() }),
            _ => {}
        }
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
