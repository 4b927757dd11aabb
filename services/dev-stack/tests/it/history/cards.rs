//! Stories of memberships paid by card: invoices that fail, are tried again, paid, disputed,
//! forgiven.

use rand::Rng;
use rand::rngs::StdRng;

use super::{DAY, Story, What};

/// What happens to an invoice or its payment.
#[derive(Clone, Debug)]
pub enum Card {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    PastDue,
    CancelScheduled,
    InvoiceCreated,
    PaymentIntent,
    TestMode,
    Thin,
}

impl Story {
    fn card(&mut self, card: Card) {
        self.tell(What::Card(card));
    }

    /// A billing period: mostly an invoice, sometimes a pause, and noise about it.
    pub(super) fn billing_period(&mut self, dice: &mut StdRng) {
        if dice.random_bool(0.3) {
            let all = [
                Noise::CancelScheduled,
                Noise::InvoiceCreated,
                Noise::PaymentIntent,
                Noise::TestMode,
                Noise::Thin,
            ];
            self.card(Card::Noise(all[dice.random_range(0..all.len())]));
        }
        if dice.random_bool(0.2) {
            return self.pause(dice);
        }
        let key = self.next_bill();
        let (invoice, payment) = (format!("in_{key}"), format!("pi_{key}"));
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
                    self.card(Card::GivenUp { invoice, attempt });
                }
            }
            7 => {
                self.failures(&invoice, dice);
                self.later(DAY, dice);
                let is_voided = dice.random();
                self.card(Card::Forgiven { invoice, is_voided });
            }
            8 => {
                self.failures(&invoice, dice);
                self.later(DAY, dice);
                self.card(Card::PaidInPart { invoice, payment });
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
                self.card(Card::ActionRequired { invoice, attempt });
            }
            self.card(Card::Failed { invoice, attempt });
            if attempt == 1 && dice.random_bool(0.4) {
                self.card(Card::Noise(Noise::PastDue));
            }
        }
        attempts
    }

    fn paid(&mut self, invoice: &str, payment: &str, dice: &mut StdRng) {
        let told = [Told::Once, Told::Twice, Told::Twice, Told::OutOfBand];
        let told = told[dice.random_range(0..told.len())];
        self.card(Card::Paid {
            invoice: invoice.to_owned(),
            payment: payment.to_owned(),
            told,
        });
        if told != Told::OutOfBand && dice.random_bool(0.25) {
            self.later(DAY, dice);
            self.card(Card::Refunded {
                payment: payment.to_owned(),
                is_whole: dice.random(),
            });
            if dice.random_bool(0.3) {
                // The bank asks nobody whether the gym has given it back already.
                self.later(DAY, dice);
                let payment = payment.to_owned();
                self.card(Card::Disputed { payment });
            }
        }
    }

    fn disputed(&mut self, invoice: &str, payment: &str, dice: &mut StdRng) {
        let payment = || payment.to_owned();
        if dice.random() {
            self.failures(invoice, dice);
            self.later(DAY, dice);
        }
        self.card(Card::Paid {
            invoice: invoice.to_owned(),
            payment: payment(),
            told: Told::Twice,
        });
        self.later(DAY, dice);
        if dice.random_bool(0.3) {
            self.card(Card::Inquiry { payment: payment() });
            return;
        }
        self.card(Card::Disputed { payment: payment() });
        self.later(3 * DAY, dice);
        match dice.random_range(0..3) {
            0 => self.card(Card::DisputeWon { payment: payment() }),
            1 => self.card(Card::DisputeLost { payment: payment() }),
            _ => {}
        }
    }
}
