//! Money taken at the desk that names no debt.

use access_domain::billing::{BillingEventKind as Kind, Fact};

use crate::build::{Says, fact, minute};
use crate::debts::{desk, failed, open};

/// Taken at the desk when no debt was known.
fn desk_for_nothing(id: &str, when: i64, amount: i64) -> Fact {
    desk(id, when, amount).payment(id)
}

#[test]
fn money_from_the_desk_that_names_no_debt_pays_the_oldest_that_was_open_when_it_was_taken() {
    let second = |event: &str, when: i64| {
        fact(event, Kind::PaymentFailed, minute(when))
            .invoice("in_2")
            .amount(2000)
            .due(2000)
    };
    let rows: Vec<(&str, Vec<Fact>, Option<i64>)> = vec![
        (
            "nothing to pay",
            vec![desk_for_nothing("d1", 2, 3500)],
            None,
        ),
        (
            "what failed before it",
            vec![failed("e1", 1), desk_for_nothing("d1", 2, 3500)],
            None,
        ),
        (
            "and is retried in vain after it",
            vec![
                failed("e1", 1),
                desk_for_nothing("d1", 2, 3500),
                failed("e2", 9),
            ],
            None,
        ),
        (
            "not what fails after it",
            vec![desk_for_nothing("d1", 2, 3500), failed("e1", 3)],
            Some(3),
        ),
        (
            "one debt, the older",
            vec![
                failed("e1", 1),
                second("e2", 2),
                desk_for_nothing("d1", 3, 3500),
            ],
            Some(2),
        ),
        (
            "each pays the oldest that is left",
            vec![
                failed("e1", 1),
                second("e2", 2),
                desk_for_nothing("d1", 3, 3500),
                desk_for_nothing("d2", 4, 2000),
            ],
            None,
        ),
        (
            "a part settles nothing, two parts do",
            vec![
                failed("e1", 1),
                desk_for_nothing("d1", 3, 3000),
                desk_for_nothing("d2", 4, 500),
            ],
            None,
        ),
        (
            "not in another currency",
            vec![
                failed("e1", 1).currency("GBP"),
                desk_for_nothing("d1", 3, 3500).currency("EUR"),
            ],
            Some(1),
        ),
    ];
    for (name, facts, expected) in rows {
        let mut turned = facts.clone();
        turned.reverse();
        assert_eq!(open(facts), expected, "{name}");
        assert_eq!(open(turned), expected, "{name}, the other way round");
    }
}
