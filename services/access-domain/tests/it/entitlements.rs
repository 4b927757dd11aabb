//! Who gets in, row by row of the contract.

use access_domain::billing::{BillingEventKind as Kind, Fact};
use access_domain::entitlement::{Override, OverrideKind, entitle};
use access_domain::gym::OverdueScope;
use access_domain::ids::{OverrideId, PauseId, PlanId, SubscriptionId};
use access_domain::membership::{Cancellation, Membership, NextPlan, Pause, Status};
use jiff::{SignedDuration, Timestamp};

use crate::build::{
    Says, at, day, fact, facts, member, membership, minute, plans, plans_of, reasons, rules, with,
};

fn pause(from: &str, until: Option<&str>) -> Pause {
    Pause {
        id: PauseId::parse("p1").expect("an id"),
        from: day(from),
        until: until.map(day),
        resumed_at: None,
    }
}

fn debt() -> access_domain::billing::Fact {
    fact("e1", Kind::PaymentFailed, minute(0))
        .invoice("in_1")
        .due(3500)
}

#[test]
fn a_day_pass_opens_on_its_day_and_at_no_other_time() {
    let mut pass = membership("ms", "day", &["m"]);
    pass.starts_on = day("2026-03-01");
    pass.ends_on = Some(day("2026-03-01"));
    let facts = facts("m", vec![with(pass, [])]);
    let ends = at("2026-03-02T00:00:00Z");

    let before = entitle(&facts, &rules(), at("2026-02-28T23:59:59Z"));
    assert_eq!(reasons(&before), ["membership_not_started"]);
    assert_eq!(before.changes_at, Some(at("2026-03-01T00:00:00Z")));

    let on_the_day = entitle(&facts, &rules(), at("2026-03-01T00:00:00Z"));
    assert!(on_the_day.allowed);
    assert_eq!(
        on_the_day.plans[0].valid_until,
        Some(ends),
        "the door closes by itself"
    );
    assert_eq!(on_the_day.changes_at, Some(ends));

    let after = entitle(&facts, &rules(), ends);
    assert_eq!(reasons(&after), ["membership_ended"]);
    assert_eq!(after.changes_at, None);
}

#[test]
fn a_recurring_membership_has_no_end() {
    let facts = facts("m", vec![with(membership("ms", "gym", &["m"]), [])]);
    let now = entitle(&facts, &rules(), minute(0));
    assert!(now.allowed);
    assert_eq!(now.plans[0].valid_until, None);
    assert_eq!(now.changes_at, None);
}

/// The provider begins the new period at midnight and charges for it in the morning.
#[test]
fn between_a_renewal_and_its_charge_the_door_is_open() {
    let paid = |event: &str, invoice: &str, when| {
        let paid = fact(event, Kind::PaymentSucceeded, when).invoice(invoice);
        paid.subscription("sub_ms").amount(3500)
    };
    let midnight = at("2026-03-01T00:00:00Z");
    let morning = at("2026-03-01T08:30:00Z");
    let before = paid("e1", "in_1", at("2026-02-01T08:30:00Z"));
    let renewed = fact("e2", Kind::SubscriptionChanged, midnight).subscription("sub_ms");
    let known = |of: Vec<Fact>| facts("m", vec![with(membership("ms", "gym", &["m"]), of)]);
    let in_between = known(vec![before.clone(), renewed.clone()]);
    for now in [
        at("2026-02-28T23:59:59Z"),
        midnight,
        at("2026-03-01T03:00:00Z"),
        at("2026-03-01T08:29:59Z"),
    ] {
        let decided = entitle(&in_between, &rules(), now);
        assert_eq!(plans_of(&decided), ["gym"], "{now}");
        assert_eq!(decided.plans[0].valid_until, None, "{now}: no end at Kisi");
        assert_eq!(decided.changes_at, None, "{now}");
    }
    let charged = known(vec![before, renewed, paid("e3", "in_2", morning)]);
    assert_eq!(plans_of(&entitle(&charged, &rules(), morning)), ["gym"]);
}

#[test]
fn a_pause_closes_from_its_first_day_to_the_first_day_back() {
    let mut paused = membership("ms", "gym", &["m"]);
    paused.pauses = vec![pause("2026-03-10", Some("2026-03-20"))];
    let facts = facts("m", vec![with(paused, [])]);
    for (now, allowed, changes_at) in [
        ("2026-03-09T23:59:59Z", true, Some("2026-03-10T00:00:00Z")),
        ("2026-03-10T00:00:00Z", false, Some("2026-03-20T00:00:00Z")),
        ("2026-03-19T23:59:59Z", false, Some("2026-03-20T00:00:00Z")),
        ("2026-03-20T00:00:00Z", true, None),
    ] {
        let entitlement = entitle(&facts, &rules(), at(now));
        assert_eq!(entitlement.allowed, allowed, "{now}");
        assert_eq!(entitlement.changes_at, changes_at.map(at), "{now}");
        if !allowed {
            assert_eq!(reasons(&entitlement), ["membership_paused"], "{now}");
        }
    }
}

#[test]
fn a_resumed_pause_is_over_from_that_instant_on() {
    let mut paused = membership("ms", "gym", &["m"]);
    paused.pauses = vec![Pause {
        resumed_at: Some(minute(5)),
        ..pause("2026-03-01", None)
    }];
    let facts = facts("m", vec![with(paused, [])]);
    assert!(!entitle(&facts, &rules(), minute(4)).allowed);
    assert!(entitle(&facts, &rules(), minute(5)).allowed);
}

#[test]
fn a_providers_pause_closes_until_it_is_resumed_by_either_side() {
    let paused = fact("e1", Kind::SubscriptionPaused, minute(0)).subscription("sub_ms");
    let resumed = fact("e2", Kind::SubscriptionResumed, minute(9)).subscription("sub_ms");
    let held = membership("ms", "gym", &["m"]);

    let open = |facts: Vec<_>, held: &access_domain::membership::Membership, when| {
        entitle(
            &crate::build::facts("m", vec![with(held.clone(), facts)]),
            &rules(),
            when,
        )
        .allowed
    };
    assert!(!open(vec![paused.clone()], &held, minute(1)));
    assert!(open(
        vec![paused.clone(), resumed.clone()],
        &held,
        minute(10)
    ));
    assert!(
        open(vec![resumed, paused.clone()], &held, minute(10)),
        "in any order"
    );

    let mut by_club = held.clone();
    by_club.provider_pauses_ended_at = Some(minute(3));
    assert!(open(vec![paused.clone()], &by_club, minute(3)));
    let again = fact("e3", Kind::SubscriptionPaused, minute(6)).subscription("sub_ms");
    let resumed = fact("e2", Kind::SubscriptionResumed, minute(4)).subscription("sub_ms");
    assert!(
        !open(vec![paused, resumed, again], &by_club, minute(7)),
        "a new pause is a new pause"
    );
}

#[test]
fn only_the_current_subscriptions_cancellation_ends_the_membership() {
    let cancelled = fact("e1", Kind::SubscriptionCancelled, minute(0)).subscription("sub_old");
    let held = membership("ms", "gym", &["m"]);
    assert!(
        entitle(
            &facts("m", vec![with(held.clone(), [cancelled])]),
            &rules(),
            minute(1)
        )
        .allowed
    );
    let current = fact("e2", Kind::SubscriptionCancelled, minute(0)).subscription("sub_ms");
    let ended = entitle(
        &facts("m", vec![with(held, [current])]),
        &rules(),
        minute(1),
    );
    assert_eq!(reasons(&ended), ["membership_ended"]);
}

#[test]
fn a_membership_without_a_reference_follows_the_subscription_that_is_linked_to_it() {
    let mut held = membership("ms", "gym", &["m"]);
    held.current_subscription = None;
    let said = |id, kind, at, subscription| fact(id, kind, at).subscription(subscription);
    let at_minute = |held: &Membership, told: Vec<Fact>| {
        let whole = facts("m", vec![with(held.clone(), told)]);
        reasons(&entitle(&whole, &rules(), minute(9)))
    };

    let paused = said("e1", Kind::SubscriptionPaused, minute(1), "sub_a");
    assert_eq!(
        at_minute(&held, vec![paused.clone()]),
        ["membership_paused"]
    );
    let resumed = said("e2", Kind::SubscriptionResumed, minute(2), "sub_a");
    assert!(at_minute(&held, vec![paused, resumed]).is_empty());

    let ended = said("e3", Kind::SubscriptionCancelled, minute(5), "sub_a");
    assert_eq!(at_minute(&held, vec![ended.clone()]), ["membership_ended"]);
    let replaced = said("e4", Kind::PaymentSucceeded, minute(3), "sub_b");
    assert!(
        at_minute(&held, vec![ended.clone(), replaced]).is_empty(),
        "another one goes on, though it was heard of earlier"
    );

    held.former_subscriptions = [SubscriptionId::parse("sub_a").expect("an id")].into();
    assert!(
        at_minute(&held, vec![ended]).is_empty(),
        "an earlier reference ends nothing"
    );
}

#[test]
fn a_cancelled_membership_opens_until_its_last_day_and_can_be_taken_back() {
    let mut held = membership("ms", "gym", &["m"]);
    held.cancellation = Some(Cancellation {
        ends_on: Some(day("2026-03-05")),
        at: minute(0),
    });
    let cancelling = entitle(
        &facts("m", vec![with(held.clone(), [])]),
        &rules(),
        minute(1),
    );
    assert_eq!(cancelling.memberships[0].status, Status::Cancelling);
    assert_eq!(
        cancelling.plans[0].valid_until,
        Some(at("2026-03-06T00:00:00Z"))
    );
    held.cancellation = None;
    let taken_back = entitle(&facts("m", vec![with(held, [])]), &rules(), minute(1));
    assert_eq!(taken_back.memberships[0].status, Status::Active);
    assert_eq!(taken_back.plans[0].valid_until, None);
}

#[test]
fn a_debt_closes_at_once_without_grace_and_after_it_with() {
    let held = with(membership("ms", "gym", &["m"]), [debt()]);
    let facts = facts("m", vec![held]);
    assert_eq!(
        reasons(&entitle(&facts, &rules(), minute(0))),
        ["missed_payment"]
    );

    let mut graceful = rules();
    graceful.overdue_grace = SignedDuration::from_hours(48);
    let within = entitle(&facts, &graceful, minute(1));
    assert!(within.allowed);
    assert_eq!(within.memberships[0].status, Status::Overdue);
    let closes = minute(48 * 60);
    assert_eq!(within.changes_at, Some(closes));
    assert!(!entitle(&facts, &graceful, closes).allowed);
}

#[test]
fn a_debt_follows_its_payer_and_closes_only_the_indebted_membership_for_others() {
    // `p` pays for a family membership that `k` also holds, and for one of her own; `k` has one too.
    let family = membership("family", "classes", &["p", "k"]);
    let indebted = with(family, [debt()]);
    let own = with(membership("own", "gym", &["p"]), []);
    let childs = with(membership("childs", "gym", &["k"]), []);

    let payer = facts("p", vec![indebted.clone(), own.clone()]);
    let other = facts("k", vec![indebted.clone(), childs]);
    assert_eq!(plans(&payer, &rules(), minute(1)), Vec::<String>::new());
    assert_eq!(plans(&other, &rules(), minute(1)), ["gym"]);

    let mut confined = rules();
    confined.overdue_scope = OverdueScope::Membership;
    assert_eq!(plans(&payer, &confined, minute(1)), ["gym"]);
}

#[test]
fn a_debt_survives_the_membership_it_is_of() {
    let mut old = membership("old", "gym", &["m"]);
    old.cancellation = Some(Cancellation {
        ends_on: None,
        at: minute(1),
    });
    let bought_again = with(membership("new", "gym", &["m"]), []);
    let entitlement = entitle(
        &facts("m", vec![with(old, [debt()]), bought_again]),
        &rules(),
        minute(9),
    );
    assert!(!entitlement.allowed);
    assert!(reasons(&entitlement).contains(&"missed_payment"));
}

#[test]
fn another_membership_keeps_the_door_open() {
    let mut paused = membership("a", "gym", &["m"]);
    paused.pauses = vec![pause("2026-02-01", None)];
    let facts = facts(
        "m",
        vec![with(paused, []), with(membership("b", "gym", &["m"]), [])],
    );
    let entitlement = entitle(&facts, &rules(), minute(0));
    assert_eq!(plans_of(&entitlement), ["gym"]);
    assert!(
        entitlement.reasons.is_empty(),
        "of access no reason is given"
    );
    assert_eq!(entitlement.memberships[0].status, Status::Paused);
}

#[test]
fn a_changed_plan_opens_from_its_date_on() {
    let mut held = membership("ms", "gym", &["m"]);
    let next = PlanId::parse("classes").expect("an id");
    held.next_plan = Some(NextPlan {
        plan: next,
        from: day("2026-04-01"),
    });
    let facts = facts("m", vec![with(held, [])]);
    let now = entitle(&facts, &rules(), minute(0));
    assert_eq!(plans_of(&now), ["gym"]);
    assert_eq!(now.changes_at, Some(at("2026-04-01T00:00:00Z")));
    assert_eq!(
        plans(&facts, &rules(), at("2026-04-01T00:00:00Z")),
        ["classes"]
    );
}

#[test]
fn staff_let_in_despite_debt_and_bar_despite_good_standing_and_both_end_by_themselves() {
    let held = |kind, until| Override {
        id: OverrideId::parse("o1").expect("an id"),
        kind,
        from: minute(0),
        until,
    };
    let mut in_debt = facts("m", vec![with(membership("ms", "gym", &["m"]), [debt()])]);
    in_debt.overrides = vec![held(OverrideKind::LetIn, minute(60))];
    let let_in = entitle(&in_debt, &rules(), minute(1));
    assert_eq!(reasons(&let_in), ["let_in_by_staff"]);
    assert_eq!(
        let_in.plans[0].valid_until,
        Some(minute(60)),
        "the door closes by itself"
    );
    assert_eq!(let_in.changes_at, Some(minute(60)));
    assert!(!entitle(&in_debt, &rules(), minute(60)).allowed);

    let mut good = facts("m", vec![with(membership("ms", "gym", &["m"]), [])]);
    good.overrides = vec![held(OverrideKind::Bar, minute(60))];
    assert_eq!(
        reasons(&entitle(&good, &rules(), minute(1))),
        ["barred_by_staff"]
    );
    assert!(entitle(&good, &rules(), minute(60)).allowed);
}

#[test]
fn somebody_without_a_membership_is_told_so() {
    let nobody = facts("m", vec![]);
    assert_eq!(
        reasons(&entitle(&nobody, &rules(), minute(0))),
        ["no_membership"]
    );
    let payer_only = membership("ms", "gym", &["k"]);
    let mut payer_only = payer_only;
    payer_only.payer = Some(member("m"));
    let facts = facts("m", vec![with(payer_only, [])]);
    assert!(
        !entitle(&facts, &rules(), minute(0)).allowed,
        "a payer need hold no seat"
    );
}

#[test]
fn versions_grow_even_after_a_restore() {
    use access_domain::entitlement::next_version;
    let now = minute(0);
    assert_eq!(next_version(0, now), now.as_microsecond());
    let ahead = now.as_microsecond() + 10;
    assert_eq!(next_version(ahead, now), ahead + 1);
    assert_eq!(next_version(ahead, Timestamp::UNIX_EPOCH), ahead + 1);
}

#[test]
fn a_membership_that_follows_another_of_the_same_plan_leaves_no_end_between_them() {
    let mut march = membership("ms_1", "gym", &["m"]);
    march.ends_on = Some(day("2026-03-31"));
    let mut april = membership("ms_2", "gym", &["m"]);
    april.starts_on = day("2026-04-01");
    april.ends_on = Some(day("2026-04-30"));
    let now = at("2026-03-15T12:00:00Z");
    let until = |held: Vec<_>| entitle(&facts("m", held), &rules(), now).plans[0].valid_until;
    let (march, mut april) = (with(march, []), with(april, []));
    assert_eq!(
        until(vec![march.clone(), april.clone()]),
        Some(at("2026-05-01T00:00:00Z"))
    );
    april.membership.starts_on = day("2026-04-02");
    assert_eq!(
        until(vec![march.clone(), april.clone()]),
        Some(at("2026-04-01T00:00:00Z")),
        "a day between them is a day without access"
    );
    april.membership.starts_on = day("2026-04-01");
    april.membership.ends_on = None;
    assert_eq!(until(vec![march, april]), None);
}

#[test]
fn being_let_in_has_no_end_where_access_is_back_by_then() {
    let mut held = membership("ms_1", "gym", &["m"]);
    held.pauses = vec![pause("2026-03-01", Some("2026-03-10"))];
    let mut facts = facts("m", vec![with(held, [])]);
    let let_in = |until| Override {
        id: "o_1".parse().expect("an id"),
        kind: OverrideKind::LetIn,
        from: at("2026-03-08T00:00:00Z"),
        until: at(until),
    };
    for (until, expected) in [
        ("2026-03-09T12:00:00Z", Some(at("2026-03-09T12:00:00Z"))),
        ("2026-03-12T12:00:00Z", None),
    ] {
        facts.overrides = vec![let_in(until)];
        let decided = entitle(&facts, &rules(), at("2026-03-08T12:00:00Z"));
        assert_eq!(decided.plans[0].valid_until, expected, "{until}");
    }
}

#[test]
fn a_provider_that_pauses_again_after_staff_resumed_is_heard() {
    let paused = |event, when| fact(event, Kind::SubscriptionPaused, when).subscription("sub_ms_1");
    let mut held = membership("ms_1", "gym", &["m"]);
    held.provider_pauses_ended_at = Some(at("2026-03-05T00:00:00Z"));
    let said = [
        paused("e1", at("2026-03-01T00:00:00Z")),
        paused("e2", at("2026-03-09T00:00:00Z")),
    ];
    let facts = facts("m", vec![with(held, said)]);
    for (now, expected) in [
        ("2026-03-02T00:00:00Z", false),
        ("2026-03-06T00:00:00Z", true),
        ("2026-03-10T00:00:00Z", false),
    ] {
        assert_eq!(
            entitle(&facts, &rules(), at(now)).allowed,
            expected,
            "{now}"
        );
    }
}
