//! A failed payment is tried again, four times: 1, 2, 3 and 7 days after the attempt before.

use access_domain::billing::{BillingEventKind as Kind, Fact};

use crate::build::{Says, fact, minute};
use crate::debts::{desk, failed, open};

const DAY: i64 = 24 * 60;
/// The first attempt and its four repeats: the 1st, 2nd, 4th, 7th and 14th of a month.
const ATTEMPTS: [i64; 5] = [0, DAY, 3 * DAY, 6 * DAY, 13 * DAY];

fn failures(attempts: usize) -> Vec<Fact> {
    (0..attempts)
        .map(|attempt| {
            // Each attempt is a payment of its own.
            failed(&format!("e{attempt}"), ATTEMPTS[attempt]).payment(&format!("pi_{attempt}"))
        })
        .collect()
}

#[test]
fn attempts_that_fail_add_facts_and_leave_the_debt_as_old_as_the_first() {
    for attempts in 1..=ATTEMPTS.len() {
        let mut facts = failures(attempts);
        assert_eq!(open(facts.clone()), Some(ATTEMPTS[0]), "{attempts}");
        // Whatever order they are heard in, and how often.
        facts.reverse();
        facts.extend(failures(attempts));
        assert_eq!(
            open(facts),
            Some(ATTEMPTS[0]),
            "{attempts}, backwards and twice"
        );
    }
}

#[test]
fn the_attempt_that_succeeds_settles_all_of_them() {
    for attempts in 1..=ATTEMPTS.len() {
        let when = ATTEMPTS[attempts - 1] + DAY;
        let paid = fact("paid", Kind::PaymentSucceeded, minute(when))
            .invoice("in_1")
            .payment("pi_paid")
            .amount(3500)
            .due(3500);
        let at_the_desk = desk("desk", when, 3500).invoice("in_1");
        for settling in [paid, at_the_desk] {
            let mut facts = failures(attempts);
            facts.push(settling);
            assert_eq!(open(facts.clone()), None, "{attempts}");
            // An attempt that was made before, and is heard of after it.
            facts.rotate_right(1);
            assert_eq!(open(facts), None, "{attempts}, paid heard first");
        }
    }
}
