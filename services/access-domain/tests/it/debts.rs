//! What keeps a debt open, and what settles it.

use access_domain::billing::{BillingEventKind as Kind, Fact, Ledger};

use crate::build::{Says, fact, minute};

pub fn failed(event: &str, when: i64) -> Fact {
    fact(event, Kind::PaymentFailed, minute(when))
        .invoice("in_1")
        .amount(3500)
        .due(3500)
}

fn succeeded(event: &str, when: i64, payment: &str) -> Fact {
    fact(event, Kind::PaymentSucceeded, minute(when))
        .invoice("in_1")
        .payment(payment)
        .due(3500)
}

fn reversed(event: &str, when: i64, payment: &str) -> Fact {
    fact(event, Kind::PaymentReversed, minute(when))
        .payment(payment)
        .amount(3500)
}

/// Taken or written off by staff; its event id is the caller's.
pub fn desk(event: &str, when: i64, amount: i64) -> Fact {
    let mut taken = fact(event, Kind::PaymentSucceeded, minute(when)).amount(amount);
    taken.provider = access_domain::billing::STAFF.parse().expect("an id");
    taken
}

/// Since which minute the oldest debt is open.
pub fn open(facts: Vec<Fact>) -> Option<i64> {
    Ledger::from_facts(facts)
        .state()
        .oldest_open()
        .map(|since| since.duration_since(minute(0)).as_secs() / 60)
}

#[test]
fn invoices_are_open_from_their_first_failure_until_they_are_settled() {
    let rows: Vec<(&str, Vec<Fact>, Option<i64>)> = vec![
        ("nothing is said", vec![], None),
        ("failed", vec![failed("e1", 1)], Some(1)),
        (
            "failed again: as old as the first",
            vec![failed("e1", 1), failed("e2", 9)],
            Some(1),
        ),
        (
            "paid in full",
            vec![failed("e1", 1), succeeded("e2", 2, "pi_1").amount(3500)],
            None,
        ),
        (
            "paid before it is said to have failed",
            vec![succeeded("e2", 1, "pi_1").amount(3500), failed("e1", 5)],
            None,
        ),
        (
            "a part payment settles nothing",
            vec![failed("e1", 1), succeeded("e2", 2, "pi_1").amount(1000)],
            Some(1),
        ),
        (
            "twins are one payment, not two",
            vec![
                failed("e1", 1),
                succeeded("e2", 2, "pi_1").amount(2000),
                succeeded("e3", 2, "pi_1").amount(2000),
            ],
            Some(1),
        ),
        (
            "two payments add up",
            vec![
                failed("e1", 1),
                succeeded("e2", 2, "pi_1").amount(2000),
                succeeded("e3", 3, "pi_2").amount(1500),
            ],
            None,
        ),
        (
            "the provider holds it settled, whatever the amount",
            vec![
                failed("e1", 1),
                succeeded("e2", 2, "pi_1").amount(0).settles(),
            ],
            None,
        ),
        (
            "forgiven",
            vec![
                failed("e1", 1),
                fact("e2", Kind::InvoiceForgiven, minute(2)).invoice("in_1"),
            ],
            None,
        ),
        (
            "forgiven, and then told to have failed before",
            vec![
                fact("e2", Kind::InvoiceForgiven, minute(2)).invoice("in_1"),
                failed("e1", 3),
            ],
            None,
        ),
        (
            "a mandate that fails closes nothing",
            vec![fact("e1", Kind::MandateFailed, minute(1))],
            None,
        ),
        (
            "a refund by the gym opens nothing",
            vec![
                succeeded("e1", 1, "pi_1").amount(3500),
                fact("e2", Kind::PaymentRefunded, minute(2))
                    .payment("pi_1")
                    .amount(3500),
            ],
            None,
        ),
        (
            "a chargeback reopens, from then on",
            vec![
                failed("e1", 1),
                succeeded("e2", 2, "pi_1").amount(3500),
                reversed("e3", 7, "pi_1"),
            ],
            Some(7),
        ),
        (
            "a chargeback of what never failed opens",
            vec![
                succeeded("e2", 2, "pi_1").amount(3500),
                reversed("e3", 7, "pi_1"),
            ],
            Some(7),
        ),
        (
            "a chargeback won by the gym settles again",
            vec![
                succeeded("e2", 2, "pi_1").amount(3500),
                reversed("e3", 7, "pi_1"),
                fact("e4", Kind::PaymentSucceeded, minute(9))
                    .payment("pi_1")
                    .amount(3500),
            ],
            None,
        ),
        (
            "a reversal undoes its own payment alone",
            vec![
                failed("e1", 1),
                succeeded("e2", 2, "pi_1").amount(3500),
                succeeded("e3", 8, "pi_2").amount(3500),
                reversed("e4", 7, "pi_1"),
            ],
            None,
        ),
        (
            "paid without naming the payment, then reversed by it",
            vec![
                fact("e1", Kind::PaymentSucceeded, minute(2))
                    .invoice("in_1")
                    .amount(3500)
                    .settles(),
                succeeded("e2", 2, "pi_1").amount(3500),
                reversed("e3", 7, "pi_1"),
            ],
            Some(7),
        ),
        (
            "a part payment that is reversed does not make the debt younger",
            vec![
                failed("e1", 1),
                succeeded("e2", 2, "pi_1").amount(1000),
                reversed("e3", 7, "pi_1"),
            ],
            Some(1),
        ),
        (
            "reversed, paid again, reversed again: as old as the last time",
            vec![
                succeeded("e1", 2, "pi_1").amount(3500),
                reversed("e2", 7, "pi_1"),
                succeeded("e3", 8, "pi_2").amount(3500),
                reversed("e4", 12, "pi_2"),
            ],
            Some(12),
        ),
        (
            "a part payment told once with and once without its id is one payment",
            vec![
                failed("e1", 1),
                succeeded("e2", 2, "pi_1").amount(2000),
                fact("e3", Kind::PaymentSucceeded, minute(2))
                    .invoice("in_1")
                    .amount(2000),
            ],
            Some(1),
        ),
        (
            "a part at the desk and the rest by a payment whose id is not said",
            vec![
                failed("e1", 1),
                desk("e2", 2, 1500).invoice("in_1"),
                fact("e3", Kind::PaymentSucceeded, minute(3))
                    .invoice("in_1")
                    .amount(2000),
            ],
            None,
        ),
        (
            "a payment at the desk is not the provider's payment of the same name",
            vec![
                failed("e1", 1),
                succeeded("e2", 2, "1").amount(3500),
                reversed("e3", 7, "1"),
                desk("1", 9, 3500).invoice("in_1").payment("1"),
                reversed("e5", 11, "1"),
            ],
            None,
        ),
        (
            "a reversal that names the invoice alone undoes what was paid before",
            vec![
                succeeded("e2", 2, "pi_1").amount(3500),
                fact("e3", Kind::PaymentReversed, minute(7)).invoice("in_1"),
            ],
            Some(7),
        ),
        (
            "a part of what was charged back, of which nothing else is known",
            vec![
                fact("e1", Kind::PaymentReversed, minute(7))
                    .invoice("in_1")
                    .amount(3500),
                desk("e2", 8, 1000).invoice("in_1"),
            ],
            Some(7),
        ),
        (
            "written off, paid all the same and charged back: still written off",
            vec![
                failed("e1", 1),
                fact("e2", Kind::InvoiceForgiven, minute(2)).invoice("in_1"),
                succeeded("e3", 3, "pi_1").amount(3500),
                reversed("e4", 7, "pi_1"),
            ],
            None,
        ),
    ];
    for (story, facts, expected) in rows {
        assert_eq!(open(facts), expected, "{story}");
    }
}

#[test]
fn two_failed_invoices_one_paid_is_still_a_debt() {
    let facts = vec![
        failed("e1", 1),
        fact("e2", Kind::PaymentFailed, minute(3))
            .invoice("in_2")
            .due(3500),
        succeeded("e3", 5, "pi_1").amount(3500),
    ];
    assert_eq!(open(facts), Some(3));
}

#[test]
fn a_payment_without_an_invoice_is_what_its_latest_word_says() {
    let word = |event, kind, when| fact(event, kind, minute(when)).payment("PM1");
    let rows = vec![
        ("failed", vec![word("e1", Kind::PaymentFailed, 1)], Some(1)),
        (
            "retried and confirmed",
            vec![
                word("e1", Kind::PaymentFailed, 1),
                word("e2", Kind::PaymentSucceeded, 4),
            ],
            None,
        ),
        (
            "failed after it was confirmed",
            vec![
                word("e1", Kind::PaymentSucceeded, 1),
                word("e2", Kind::PaymentFailed, 4),
            ],
            Some(4),
        ),
        (
            "charged back",
            vec![
                word("e1", Kind::PaymentSucceeded, 1),
                word("e2", Kind::PaymentReversed, 4),
            ],
            Some(4),
        ),
        (
            "the claim withdrawn",
            vec![
                word("e1", Kind::PaymentSucceeded, 1),
                word("e2", Kind::PaymentReversed, 4),
                word("e3", Kind::PaymentSucceeded, 6),
            ],
            None,
        ),
        (
            "failed and confirmed in one instant: closed is safe",
            vec![
                word("e1", Kind::PaymentSucceeded, 1),
                word("e2", Kind::PaymentFailed, 1),
            ],
            Some(1),
        ),
        (
            "the settlement of a late failure",
            vec![
                word("e1", Kind::PaymentSucceeded, 1),
                word("e2", Kind::PaymentFailed, 4),
                word("e3", Kind::PaymentReversed, 5),
            ],
            Some(4),
        ),
        (
            "a part at the desk settles nothing",
            vec![
                word("e1", Kind::PaymentFailed, 1).amount(3500),
                desk("d1", 2, 1000).payment("PM1"),
            ],
            Some(1),
        ),
        (
            "two parts at the desk add up",
            vec![
                word("e1", Kind::PaymentFailed, 1).amount(3500),
                desk("d1", 2, 1000).payment("PM1"),
                desk("d2", 3, 2500).payment("PM1"),
            ],
            None,
        ),
        (
            "paid at the desk, then retried in vain: paid",
            vec![
                word("e1", Kind::PaymentFailed, 1),
                desk("d1", 2, 3500).payment("PM1"),
                word("e2", Kind::PaymentFailed, 4),
            ],
            None,
        ),
        (
            "settled at the desk by its id, before it was known whose invoice it is",
            vec![
                word("e1", Kind::PaymentFailed, 1).amount(3500),
                desk("d1", 2, 3500).payment("PM1"),
                word("e2", Kind::PaymentFailed, 4).invoice("in_1"),
            ],
            None,
        ),
        (
            "charged back, of a subscription that is known",
            vec![
                word("e1", Kind::PaymentReversed, 4)
                    .amount(3500)
                    .subscription("sub_1"),
            ],
            Some(4),
        ),
    ];
    for (story, facts, expected) in rows {
        assert_eq!(open(facts), expected, "{story}");
    }
}

#[test]
fn a_reversal_of_an_unknown_payment_waits_and_bites_when_the_link_comes() {
    let reversal = reversed("e1", 5, "pi_9");
    let state = Ledger::from_facts([reversal.clone()]).state();
    assert_eq!(state.oldest_open(), None);
    assert_eq!(state.unmatched, vec![reversal.key()]);

    let link = succeeded("e2", 2, "pi_9").amount(3500);
    let state = Ledger::from_facts([reversal, link]).state();
    assert_eq!(state.oldest_open(), Some(minute(5)));
    assert!(state.unmatched.is_empty());
}

#[test]
fn a_sender_that_names_neither_invoice_nor_payment_is_read_by_subscription() {
    let word = |event, kind, when| fact(event, kind, minute(when)).subscription("sub_1");
    let rows = vec![
        (
            "paid each month but the last",
            vec![
                word("e1", Kind::PaymentFailed, 1).amount(3500),
                word("e2", Kind::PaymentSucceeded, 2).amount(3500),
                word("e3", Kind::PaymentFailed, 9).amount(3500),
            ],
            Some(9),
        ),
        (
            "a part payment settles nothing",
            vec![
                word("e1", Kind::PaymentFailed, 1).amount(3500),
                word("e2", Kind::PaymentSucceeded, 2).amount(1000),
            ],
            Some(1),
        ),
        (
            "written off by staff: what is owed by then, and not what comes after",
            vec![
                word("e1", Kind::PaymentFailed, 1).amount(3500),
                word("e2", Kind::InvoiceForgiven, 2),
                word("e3", Kind::PaymentFailed, 9).amount(3500),
            ],
            Some(9),
        ),
    ];
    for (story, facts, expected) in rows {
        assert_eq!(open(facts), expected, "{story}");
    }
}

#[test]
fn a_pay_link_is_not_printed_with_the_fact_or_the_debt() {
    let mut said = failed("e1", 1);
    said.payment_url = Some("https://pay.example/secret".to_owned());
    let state = Ledger::from_facts([said.clone()]).state();
    for printed in [format!("{said:?}"), format!("{state:?}")] {
        assert!(!printed.contains("secret"), "{printed}");
        assert!(printed.contains("payment_url: Some(..)"), "{printed}");
    }
}
