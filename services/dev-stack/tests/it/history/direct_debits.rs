//! Stories of memberships paid by direct debit: payments that fail days later, are tried again under
//! their own id, fail after they were confirmed, are claimed back; and mandates.

use rand::Rng;
use rand::rngs::StdRng;

use super::{DAY, Story, What};

/// What happens at a provider of direct debits.
#[derive(Clone, Debug)]
pub enum DirectDebit {
    Payment {
        payment: String,
        /// Whether the payment's own metadata name the membership.
        is_named: bool,
        step: Debit,
    },
    Mandate(Mandate),
    /// Says nothing about doors, or is not for us at all.
    Noise(MoreNoise),
}

/// A step of one payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debit {
    /// By the subscription, which ties the two.
    Made,
    /// Sent to the bank; in progress.
    Submitted,
    Failed {
        is_tried_again: bool,
    },
    Resubmitted,
    /// Long enough without an error.
    Confirmed,
    PaidOut,
    /// The books follow a failure that came after the confirmation.
    LateFailureSettled,
    ChargedBack,
    ChargebackSettled,
    /// The member withdraws the claim.
    ChargebackCancelled,
    /// The gym wants it no more.
    CalledOff,
    /// Nobody will collect it, and it is owed all the same.
    FallenWithMandate,
    /// The member does not let it be collected.
    ApprovalDenied,
}

/// What happens to the mandate; it closes nothing by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mandate {
    Failed,
    Cancelled,
    Expired,
    Blocked,
    Reinstated,
    Replaced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoreNoise {
    PauseScheduled,
    Amended,
    /// All payments are made, which is not the end.
    Finished,
    MandateTransferred,
    Refund,
    /// An organisation that the endpoint takes and no gym has, naming one of our memberships.
    OfNobodysAccount,
    /// An organisation that the endpoint does not take.
    OfAnotherAccount,
    SomethingNew,
}

/// One payment as it is told of.
struct Payment {
    id: String,
    is_named: bool,
}

impl Story {
    fn debit(&mut self, payment: &Payment, step: Debit) {
        self.tell(What::DirectDebit(DirectDebit::Payment {
            payment: payment.id.clone(),
            is_named: payment.is_named,
            step,
        }));
    }

    fn mandate(&mut self, what: Mandate) {
        self.tell(What::DirectDebit(DirectDebit::Mandate(what)));
    }

    fn more_noise(&mut self, noise: MoreNoise) {
        self.tell(What::DirectDebit(DirectDebit::Noise(noise)));
    }

    /// A month: mostly a payment, sometimes a pause, and noise about it.
    pub(super) fn debit_period(&mut self, dice: &mut StdRng) {
        if dice.random_bool(0.3) {
            let all = [
                MoreNoise::PauseScheduled,
                MoreNoise::Amended,
                MoreNoise::Finished,
                MoreNoise::MandateTransferred,
                MoreNoise::Refund,
                MoreNoise::OfNobodysAccount,
                MoreNoise::OfAnotherAccount,
                MoreNoise::SomethingNew,
            ];
            self.more_noise(all[dice.random_range(0..all.len())]);
        }
        if dice.random_bool(0.15) {
            self.trouble_with_the_mandate(dice);
        }
        if dice.random_bool(0.15) {
            return self.pause(dice);
        }
        let payment = self.sent_to_the_bank(dice);
        match dice.random_range(0..12) {
            0..2 => self.collected(&payment, dice),
            2..5 => {
                self.refused(&payment, dice);
                self.tried_again(&payment, dice);
                self.collected(&payment, dice);
            }
            5 => self.refused(&payment, dice),
            6..8 => self.late_failure(&payment, dice),
            8..10 => self.charged_back(&payment, dice),
            10 => {
                if dice.random() {
                    self.refused(&payment, dice);
                    self.later(DAY, dice);
                }
                self.debit(&payment, Debit::CalledOff);
            }
            _ => self.debit(&payment, Debit::ApprovalDenied),
        }
    }

    /// A new payment: of the subscription, or one that names the membership itself, or both.
    fn sent_to_the_bank(&mut self, dice: &mut StdRng) -> Payment {
        let id = format!("PM00{}", self.next_bill().to_uppercase());
        let is_named = self.is_named && dice.random();
        let payment = Payment { id, is_named };
        if !is_named || dice.random() {
            self.debit(&payment, Debit::Made);
            self.later(DAY, dice);
        }
        self.debit(&payment, Debit::Submitted);
        self.later(2 * DAY, dice);
        payment
    }

    /// In vain, perhaps several times.
    fn refused(&mut self, payment: &Payment, dice: &mut StdRng) {
        let is_tried_again = true;
        for _ in 0..dice.random_range(0..3) {
            self.debit(payment, Debit::Failed { is_tried_again });
            self.tried_again(payment, dice);
        }
        let is_tried_again = false;
        self.debit(payment, Debit::Failed { is_tried_again });
    }

    fn tried_again(&mut self, payment: &Payment, dice: &mut StdRng) {
        self.debit(payment, Debit::Resubmitted);
        self.later(3 * DAY, dice);
    }

    fn collected(&mut self, payment: &Payment, dice: &mut StdRng) {
        self.debit(payment, Debit::Confirmed);
        if dice.random_bool(0.8) {
            // Now and then in the same second.
            if dice.random_bool(0.8) {
                self.later(DAY, dice);
            }
            self.debit(payment, Debit::PaidOut);
        }
    }

    /// Confirmed, perhaps paid out, and failed all the same; sometimes collected after all.
    fn late_failure(&mut self, payment: &Payment, dice: &mut StdRng) {
        self.collected(payment, dice);
        if dice.random_bool(0.9) {
            self.later(DAY, dice);
        }
        let is_tried_again = dice.random_bool(0.4);
        self.debit(payment, Debit::Failed { is_tried_again });
        if dice.random_bool(0.7) {
            self.later(DAY, dice);
            self.debit(payment, Debit::LateFailureSettled);
        }
        if is_tried_again {
            self.tried_again(payment, dice);
            self.collected(payment, dice);
        }
    }

    fn charged_back(&mut self, payment: &Payment, dice: &mut StdRng) {
        self.collected(payment, dice);
        self.later(DAY, dice);
        self.debit(payment, Debit::ChargedBack);
        if dice.random() {
            self.later(DAY, dice);
            self.debit(payment, Debit::ChargebackSettled);
        }
        match dice.random_range(0..10) {
            // Of both in one second the claim counts.
            0 => {
                self.later(DAY, dice);
                self.debit(payment, Debit::ChargebackCancelled);
                self.debit(payment, Debit::ChargedBack);
            }
            1..6 => {
                self.later(2 * DAY, dice);
                self.debit(payment, Debit::ChargebackCancelled);
            }
            _ => {}
        }
    }

    fn trouble_with_the_mandate(&mut self, dice: &mut StdRng) {
        let all = [
            Mandate::Failed,
            Mandate::Cancelled,
            Mandate::Expired,
            Mandate::Blocked,
            Mandate::Replaced,
        ];
        let what = all[dice.random_range(0..all.len())];
        self.mandate(what);
        if what != Mandate::Replaced && dice.random() {
            self.later(DAY, dice);
            self.mandate(Mandate::Reinstated);
        }
    }

    /// The subscription ends; mostly because its mandate did, and a payment on its way with it.
    pub(super) fn end_of_mandate(&mut self, dice: &mut StdRng) {
        if dice.random_bool(0.3) {
            return self.end(dice);
        }
        let payment = dice.random_bool(0.5).then(|| self.sent_to_the_bank(dice));
        self.mandate(Mandate::Cancelled);
        if let Some(payment) = payment {
            self.debit(&payment, Debit::FallenWithMandate);
        }
        self.tell(What::Ended);
    }
}
