//! Deciders that are wrong in one point each.

use access_domain::billing::{BillingEventKind as Kind, Fact};
use access_domain::entitlement::{Entitlement, OverrideKind, PlanAccess};
use access_domain::gym::OverdueScope;
use access_domain::membership::{Membership, Status};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::told::{Decider, Told, decide};

pub const MUTANTS: [(&str, Decider); 18] = [
    ("the last event of an invoice wins", last_event_wins),
    ("any membership opens everything", any_membership_opens),
    ("grace restarts with every failure", grace_restarts),
    (
        "a pause by the club ends the provider's",
        club_ends_the_providers_pause,
    ),
    (
        "the debt of a former reference is forgotten",
        former_debts_are_forgotten,
    ),
    (
        "a repeated midnight counts when it comes again",
        repeated_midnight_counts_late,
    ),
    ("days begin in UTC", days_begin_in_utc),
    ("an override never ends", overrides_never_end),
    (
        "staff let in who is no longer a member",
        let_in_after_the_end,
    ),
    ("the last day is without access", ends_on_is_exclusive),
    ("a part payment settles", part_payments_settle),
    (
        "one payment that is told twice is two",
        payments_are_summed_by_event,
    ),
    ("a refund opens a debt", refunds_open_debts),
    (
        "other holders are barred by the payer's debts",
        debts_reach_other_holders,
    ),
    ("a debt never follows its payer", debts_stay),
    (
        "a replaced subscription ends it",
        replaced_subscriptions_end,
    ),
    ("a cancellation cannot be seen", cancelling_is_active),
    ("time changes nothing", time_changes_nothing),
];

fn with_facts(told: &Told, change: impl Fn(&Membership, &mut Vec<Fact>)) -> Told {
    let mut told = told.clone();
    for (membership, facts) in &mut told.gym {
        change(membership, facts);
    }
    told
}

fn last_event_wins(told: &Told, now: Timestamp) -> Entitlement {
    let told = with_facts(told, |_, facts| {
        let newest = facts.clone();
        facts.retain(|fact| {
            fact.invoice.is_none()
                || !newest.iter().any(|other| {
                    other.invoice == fact.invoice
                        && (other.occurred_at, other.key()) > (fact.occurred_at, fact.key())
                })
        });
    });
    decide(&told, now)
}

fn any_membership_opens(told: &Told, now: Timestamp) -> Entitlement {
    let mut decided = decide(told, now);
    if let Some(one) = decided.plans.first().cloned() {
        for view in &decided.memberships {
            if decided.plans.iter().all(|access| access.plan != view.plan) {
                decided.plans.push(PlanAccess {
                    plan: view.plan.clone(),
                    ..one.clone()
                });
            }
        }
    }
    decided
}

fn grace_restarts(told: &Told, now: Timestamp) -> Entitlement {
    let told = with_facts(told, |_, facts| {
        let all = facts.clone();
        facts.retain(|fact| {
            fact.kind != Kind::PaymentFailed
                || !all.iter().any(|other| {
                    other.kind == Kind::PaymentFailed && other.occurred_at > fact.occurred_at
                })
        });
    });
    decide(&told, now)
}

fn club_ends_the_providers_pause(told: &Told, now: Timestamp) -> Entitlement {
    let mut told = told.clone();
    for (membership, _) in &mut told.gym {
        let begun = membership
            .pauses
            .iter()
            .map(|pause| told.rules.begins(pause.from));
        let last = begun.filter(|from| *from <= now).max();
        membership.provider_pauses_ended_at = membership.provider_pauses_ended_at.max(last);
    }
    decide(&told, now)
}

fn former_debts_are_forgotten(told: &Told, now: Timestamp) -> Entitlement {
    let told = with_facts(told, |membership, facts| {
        facts.retain(|fact| {
            let of_former = |of| membership.former_subscriptions.contains(of);
            !fact.subscription.as_ref().is_some_and(of_former)
        });
    });
    decide(&told, now)
}

/// Between a midnight and its repetition it is still the day before.
fn repeated_midnight_counts_late(told: &Told, now: Timestamp) -> Entitlement {
    let zone = &told.rules.time_zone;
    let date = zone.to_datetime(now).date();
    for date in [Ok(date), date.tomorrow()].into_iter().flatten() {
        let midnight = zone.to_ambiguous_timestamp(date.to_datetime(jiff::civil::Time::midnight()));
        if let AmbiguousOffset::Fold { .. } = midnight.offset() {
            let (first, again) = (midnight.earlier(), midnight.later());
            let (first, again) = (first.expect("an instant"), again.expect("an instant"));
            if (first..again).contains(&now) {
                return decide(told, first - SignedDuration::from_secs(1));
            }
        }
    }
    decide(told, now)
}

fn days_begin_in_utc(told: &Told, now: Timestamp) -> Entitlement {
    let mut told = told.clone();
    told.rules.time_zone = TimeZone::UTC;
    decide(&told, now)
}

fn overrides_never_end(told: &Told, now: Timestamp) -> Entitlement {
    let mut told = told.clone();
    for held in &mut told.overrides {
        held.until = now.max(held.until) + SignedDuration::from_hours(24);
    }
    decide(&told, now)
}

fn let_in_after_the_end(told: &Told, now: Timestamp) -> Entitlement {
    let is_let_in = told
        .overrides
        .iter()
        .any(|held| held.kind == OverrideKind::LetIn && (held.from..held.until).contains(&now));
    let mut told = told.clone();
    for (membership, _) in &mut told.gym {
        if is_let_in {
            membership.ends_on = None;
            membership.cancellation = None;
        }
    }
    decide(&told, now)
}

fn ends_on_is_exclusive(told: &Told, now: Timestamp) -> Entitlement {
    let mut told = told.clone();
    for (membership, _) in &mut told.gym {
        membership.ends_on = membership.ends_on.and_then(|day| day.yesterday().ok());
    }
    decide(&told, now)
}

fn part_payments_settle(told: &Told, now: Timestamp) -> Entitlement {
    let told = with_facts(told, |_, facts| {
        for fact in facts {
            fact.settles |= fact.kind == Kind::PaymentSucceeded;
        }
    });
    decide(&told, now)
}

fn payments_are_summed_by_event(told: &Told, now: Timestamp) -> Entitlement {
    let told = with_facts(told, |_, facts| {
        for fact in facts.iter_mut().filter(|fact| !fact.is_by_staff()) {
            if fact.kind == Kind::PaymentSucceeded && fact.invoice.is_some() {
                fact.payment = fact.event_id.as_str().parse().ok();
            }
        }
    });
    decide(&told, now)
}

fn refunds_open_debts(told: &Told, now: Timestamp) -> Entitlement {
    let told = with_facts(told, |_, facts| {
        for fact in facts
            .iter_mut()
            .filter(|fact| fact.kind == Kind::PaymentRefunded)
        {
            fact.kind = Kind::PaymentReversed;
        }
    });
    decide(&told, now)
}

/// Whatever the payer owes elsewhere closes the doors of all whom she pays for.
fn debts_reach_other_holders(told: &Told, now: Timestamp) -> Entitlement {
    let mut told = told.clone();
    let all = told.gym.clone();
    for (membership, facts) in &mut told.gym {
        for (other, owed) in &all {
            if other.payer() == membership.payer() && other.id != membership.id {
                facts.extend(
                    owed.iter()
                        .filter(|fact| fact.subscription.is_none())
                        .cloned(),
                );
                let of_money = |fact: &&Fact| fact.kind == Kind::PaymentFailed;
                facts.extend(owed.iter().filter(of_money).cloned());
            }
        }
    }
    decide(&told, now)
}

fn debts_stay(told: &Told, now: Timestamp) -> Entitlement {
    let mut told = told.clone();
    told.rules.overdue_scope = OverdueScope::Membership;
    decide(&told, now)
}

fn replaced_subscriptions_end(told: &Told, now: Timestamp) -> Entitlement {
    let told = with_facts(told, |membership, facts| {
        for fact in facts.iter_mut() {
            if fact.kind == Kind::SubscriptionCancelled && membership.current_subscription.is_some()
            {
                fact.subscription = membership.current_subscription.clone();
            }
        }
    });
    decide(&told, now)
}

fn cancelling_is_active(told: &Told, now: Timestamp) -> Entitlement {
    let mut decided = decide(told, now);
    for view in &mut decided.memberships {
        if view.status == Status::Cancelling {
            view.status = Status::Active;
        }
    }
    decided
}

fn time_changes_nothing(told: &Told, now: Timestamp) -> Entitlement {
    let mut decided = decide(told, now);
    decided.changes_at = None;
    decided
}
