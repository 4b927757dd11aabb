//! Random stories: few people, few invoices and few instants, so that they meet and tie.

use jiff::civil::Date;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::story::{Contract, DUE, Day, Minute, Override, Said, Saying, Story};

/// Days of a story.
const DAYS: i32 = 16;
/// Things are said at these minutes of a day in UTC, often several in the same one.
const SLOT: Minute = 6 * 60;

/// Zones with the day of a change of their clocks: at midnight, around it, of half an hour, of a
/// whole day; forwards and backwards.
const CHANGES: [(&str, &str); 22] = [
    ("America/Havana", "2026-11-01"),
    ("America/Havana", "2026-03-08"),
    ("Atlantic/Azores", "2026-10-25"),
    ("Atlantic/Azores", "2026-03-29"),
    ("America/Asuncion", "2022-10-02"),
    ("America/Asuncion", "2023-03-26"),
    ("Africa/Cairo", "2026-04-24"),
    ("Africa/Cairo", "2026-10-30"),
    ("Asia/Beirut", "2026-03-29"),
    ("America/Santiago", "2026-09-06"),
    ("Pacific/Apia", "2011-12-30"),
    ("America/St_Johns", "2010-11-07"),
    ("America/St_Johns", "2010-03-14"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("America/Sao_Paulo", "2018-02-18"),
    ("Asia/Tehran", "2022-03-22"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Europe/London", "2026-03-29"),
    ("Europe/London", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Asia/Kathmandu", "2026-06-01"),
];

pub fn a_story() -> impl Strategy<Value = Story> {
    a_place().prop_flat_map(|(zone, first)| {
        (
            select(vec![0, 12 * 60, 3 * 1_440, 5 * 1_440 + 60]),
            any::<bool>(),
            vec(a_contract(first), 1..4),
            vec(an_override(first), 0..3),
        )
            .prop_map(
                move |(grace, debts_follow_the_payer, contracts, overrides)| Story {
                    zone: zone.clone(),
                    first,
                    days: DAYS,
                    grace,
                    debts_follow_the_payer,
                    contracts,
                    overrides,
                },
            )
    })
}

/// A zone, and the first day: shortly before its clocks change, or any since 1975.
fn a_place() -> impl Strategy<Value = (String, Day)> {
    let of_all: Vec<String> = jiff::tz::db()
        .available()
        .map(|name| name.to_string())
        .collect();
    prop_oneof![
        3 => (select(CHANGES.to_vec()), 2..12).prop_map(|((zone, changes), before)| {
            let changes: Date = changes.parse().expect("a date");
            let days = changes.since(jiff::civil::date(1970, 1, 1)).expect("a span");
            (zone.to_owned(), days.get_days() - before)
        }),
        1 => (select(of_all), 1_826..24_800),
    ]
}

fn a_contract(first: Day) -> impl Strategy<Value = Contract> {
    let day = move || (-4..DAYS).prop_map(move |day| first + day);
    // A recurring one, a trial or prepaid one, a day pass.
    let term = (
        -4..DAYS / 2,
        option::of(prop_oneof![2 => 1..DAYS, 1 => Just(0)]),
    );
    (
        (0..2_u8, 0..2_u8, option::weighted(0.3, day())),
        vec(0..3_u8, 1..3),
        option::weighted(0.4, 0..3_u8),
        term,
        proptest::bool::weighted(0.8),
        vec(a_saying(first), 0..9),
    )
        .prop_map(
            move |((plan, next, from), mut holders, payer, (starts, ends), names, mut said)| {
                holders.dedup();
                said.sort_by_key(|saying| (saying.at, saying.what.rank()));
                Contract {
                    plan,
                    holders,
                    payer,
                    starts: first + starts,
                    ends: ends.map(|days| first + starts + days),
                    next_plan: from.map(|from| (next, from)),
                    names_subscription: names,
                    said,
                }
            },
        )
}

fn an_instant(first: Day) -> impl Strategy<Value = Minute> {
    let slots = i64::from(DAYS) * 1_440 / SLOT;
    (0..slots).prop_map(move |slot| i64::from(first) * 1_440 + slot * SLOT)
}

fn an_override(first: Day) -> impl Strategy<Value = Override> {
    (
        0..3_u8,
        proptest::bool::weighted(0.3),
        an_instant(first),
        1..24_i64,
    )
        .prop_map(|(member, bars, from, slots)| Override {
            member,
            bars,
            from,
            until: from + slots * SLOT,
        })
}

fn a_saying(first: Day) -> impl Strategy<Value = Saying> {
    let late = prop_oneof![4 => Just(0), 1 => 1..16_i64];
    (an_instant(first), late, something(first)).prop_map(|(at, late, what)| {
        let late = if what.is_the_clubs() { 0 } else { late };
        Saying {
            at,
            heard: at + late * SLOT,
            what,
        }
    })
}

fn something(first: Day) -> impl Strategy<Value = Said> {
    let day = move || (-2..DAYS + 4).prop_map(move |day| first + day);
    let (invoice, payment, subscription) = (|| 0..2_u8, || 0..2_u8, || 0..2_u8);
    let amount = || select(vec![1_000, 2_000, 2_500, DUE, 0]);
    prop_oneof![
        5 => (0..2_u8, day(), option::of(1..10)).prop_map(|(id, from, length)| Said::Pause {
            id,
            from,
            until: length.map(|length| from + length),
        }),
        2 => option::of(0..2_u8).prop_map(|id| Said::Resume { id }),
        2 => option::of(day()).prop_map(|ends| Said::Cancel { ends }),
        1 => Just(Said::TakeBack),
        1 => Just(Said::NewReference),
        2 => (option::of(invoice()), amount()).prop_map(|(invoice, amount)| Said::Desk {
            invoice,
            amount,
        }),
        1 => (invoice(), any::<bool>())
            .prop_map(|(invoice, by_staff)| Said::Forgive { invoice, by_staff }),
        5 => (subscription(), option::of(an_instant(first)))
            .prop_map(|(subscription, until)| Said::Paused { subscription, until }),
        1 => subscription().prop_map(|subscription| Said::Resumed { subscription }),
        1 => subscription().prop_map(|subscription| Said::Cancelled { subscription }),
        6 => (invoice(), subscription())
            .prop_map(|(invoice, subscription)| Said::Failed { invoice, subscription }),
        5 => (
            invoice(),
            option::weighted(0.7, payment()),
            amount(),
            proptest::bool::weighted(0.3),
            subscription(),
        )
            .prop_map(|(invoice, payment, amount, settles, subscription)| Said::Paid {
                invoice,
                payment,
                amount,
                settles,
                subscription,
            }),
        3 => (invoice(), option::weighted(0.8, payment()))
            .prop_map(|(invoice, payment)| Said::Reversed { invoice, payment }),
        3 => (invoice(), payment())
            .prop_map(|(invoice, payment)| Said::Refunded { invoice, payment }),
        1 => (0..2_u8).prop_map(|debit| Said::DebitFailed { debit }),
        1 => (0..2_u8).prop_map(|debit| Said::DebitPaid { debit }),
        1 => (0..2_u8).prop_map(|debit| Said::DebitReversed { debit }),
        1 => (0..2_u8, any::<bool>()).prop_map(|(debit, pays)| match pays {
            true => Said::DeskForDebit { debit },
            false => Said::ForgiveDebit { debit },
        }),
    ]
}
