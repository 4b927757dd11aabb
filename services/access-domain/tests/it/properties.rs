//! Properties over made-up histories and worlds.

use std::collections::BTreeSet;

use access_domain::billing::{BillingEventKind as Kind, Fact, Ledger, STAFF};
use access_domain::entitlement::{entitle, outlook};
use access_domain::grant::{DesiredGrants, Holder, ObservedGrant, ObservedGrants, Window};
use access_domain::ids::{GroupId, PlanId};
use access_domain::membership::Pause;
use access_domain::plan::{Plan, Policy, Step, Unmanaged, plan};
use jiff::ToSpan;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::build::{Says, day, fact, facts, member, membership, minute, plans_of, rules, with};

/// A fact of few invoices, payments and instants, so that histories meet and tie.
fn a_fact() -> impl Strategy<Value = Fact> {
    let kinds = proptest::sample::select(Kind::ALL);
    let invoice = option::of(0..3_u8);
    let payment = option::of(0..3_u8);
    let amount = option::of(proptest::sample::select(vec![0_i64, 1000, 3500]));
    let due = option::of(Just(3500_i64));
    (
        0..1000_u32,
        kinds,
        0..6_i64,
        invoice,
        payment,
        amount,
        due,
        any::<bool>(),
        proptest::bool::weighted(0.2),
    )
        .prop_map(
            |(event, kind, when, invoice, payment, amount, due, settles, by_staff)| {
                let mut said = fact(&format!("e{event}"), kind, minute(when)).subscription("sub_a");
                if let Some(invoice) = invoice {
                    said = said.invoice(&format!("in_{invoice}"));
                }
                if let Some(payment) = payment {
                    said = said.payment(&format!("pi_{payment}"));
                }
                said.amount_minor = amount;
                said.amount_due_minor = due;
                if by_staff {
                    said.provider = STAFF.parse().expect("an id");
                }
                said.settles = settles && kind == Kind::PaymentSucceeded;
                said
            },
        )
}

fn a_world() -> impl Strategy<Value = (DesiredGrants, ObservedGrants)> {
    let window = proptest::sample::select(vec![
        Window::ALWAYS,
        Window {
            from: None,
            until: Some(minute(60)),
        },
        Window {
            from: Some(minute(-60)),
            until: None,
        },
        Window {
            from: Some(minute(30)),
            until: Some(minute(90)),
        },
        Window {
            from: None,
            until: Some(minute(-30)),
        },
    ]);
    let desired = btree_map((0..5_u8, 0..3_i64), window.clone(), 0..8);
    let rows = vec((0..7_u8, 0..3_i64, window, any::<bool>()), 0..14);
    (desired, rows, vec(any::<bool>(), 3)).prop_map(|(wanted, rows, complete)| {
        let mut desired = DesiredGrants::default();
        for ((who, group), window) in wanted {
            desired.insert(member(&format!("m{who}")), GroupId(group), window);
        }
        let grants = rows
            .into_iter()
            .zip(100..)
            .map(|((who, group, window, ours), assignment)| ObservedGrant {
                assignment,
                holder: match who {
                    0..5 => Holder::Member(member(&format!("m{who}"))),
                    other => Holder::Stranger(i64::from(other)),
                },
                group: GroupId(group),
                window,
                ours,
                plain: true,
            })
            .collect();
        let groups = (0..3)
            .filter(|group| complete[*group as usize])
            .map(GroupId)
            .collect();
        (desired, ObservedGrants { grants, groups })
    })
}

/// What Kisi would hold once the plan is applied.
fn apply(plan: &Plan, observed: &ObservedGrants) -> ObservedGrants {
    let mut grants = observed.grants.clone();
    let mut next = 10_000;
    for step in &plan.steps {
        match step {
            Step::Grant {
                member,
                group,
                window,
            } => {
                next += 1;
                grants.push(ObservedGrant {
                    assignment: next,
                    holder: Holder::Member(member.clone()),
                    group: *group,
                    window: *window,
                    ours: true,
                    plain: true,
                });
            }
            Step::Revoke { assignment, .. } | Step::RemoveDuplicate { assignment, .. } => {
                grants.retain(|row| row.assignment != *assignment);
            }
            Step::ChangeWindow {
                assignment, window, ..
            } => {
                for row in grants
                    .iter_mut()
                    .filter(|row| row.assignment == *assignment)
                {
                    row.window = *window;
                }
            }
            Step::Adopt { assignment, .. } => {
                for row in grants
                    .iter_mut()
                    .filter(|row| row.assignment == *assignment)
                {
                    row.ours = true;
                }
            }
            Step::LeaveUnmanaged { .. } => {}
        }
    }
    ObservedGrants {
        grants,
        groups: observed.groups.clone(),
    }
}

fn policies() -> impl Strategy<Value = Policy> {
    proptest::sample::select(vec![Unmanaged::Leave, Unmanaged::Adopt])
        .prop_map(|unmanaged| Policy { unmanaged })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn facts_give_the_same_state_in_any_order_and_any_number(
        (history, shuffled) in vec(a_fact(), 0..9).prop_flat_map(|history| {
            let twice = [history.clone(), history.clone()].concat();
            (Just(history), Just(twice).prop_shuffle())
        })
    ) {
        let straight = Ledger::from_facts(history).state();
        prop_assert_eq!(Ledger::from_facts(shuffled).state(), straight);
    }

    #[test]
    fn any_subset_followed_by_the_rest_gives_the_same_state(
        history in vec(a_fact(), 0..9), chosen in vec(any::<bool>(), 9)
    ) {
        let straight = Ledger::from_facts(history.clone()).state();
        let mut ledger = Ledger::default();
        for early in [true, false] {
            for (said, first) in history.iter().zip(&chosen) {
                if *first == early {
                    ledger.join(said.clone());
                }
            }
            // Read in between, as a service would.
            let _ = ledger.state();
        }
        prop_assert_eq!(ledger.state(), straight);
    }

    #[test]
    fn applying_a_plan_gives_the_desired_side_and_planning_again_nothing(
        (desired, observed) in a_world(), policy in policies()
    ) {
        let now = minute(0);
        let is_past = |window: Window| window.until.is_some_and(|until| until <= now);
        let after = apply(&plan(&desired, &observed, policy, now), &observed);
        for group in &observed.groups {
            let ours: Vec<_> = after.grants.iter()
                .filter(|row| row.ours && row.group == *group)
                .collect();
            let open: Vec<_> = ours.iter().filter(|row| !is_past(row.window)).collect();
            let holders: BTreeSet<_> = open.iter().map(|row| row.holder.clone()).collect();
            prop_assert_eq!(holders.len(), open.len(), "no doubles of ours");
            for row in &ours {
                let Holder::Member(of) = &row.holder else {
                    return Err(TestCaseError::fail("a row of ours for nobody"));
                };
                let wanted = desired.window(of, *group);
                let agrees = wanted.is_some_and(|wanted| {
                    wanted.opens_like(&row.window, now) || (is_past(wanted) && is_past(row.window))
                });
                prop_assert!(agrees, "{row:?}");
            }
            for (of, _, window) in desired.iter().filter(|(_, wanted, _)| wanted == group) {
                if is_past(window) {
                    continue;
                }
                let open = after.grants.iter().any(|row| {
                    row.group == *group
                        && row.holder == Holder::Member(of.clone())
                        && row.window.opens_like(&window, now)
                });
                prop_assert!(open, "{of} lacks {group}");
            }
        }
        let again = plan(&desired, &after, policy, now);
        prop_assert!(again.is_in_sync(), "planned again:\n{again}");
    }

    #[test]
    fn an_unmanaged_grant_is_never_touched(
        (desired, observed) in a_world(), policy in policies()
    ) {
        let after = apply(&plan(&desired, &observed, policy, minute(0)), &observed);
        for row in observed.grants.iter().filter(|row| !row.ours) {
            let still = after.grants.iter().find(|kept| kept.assignment == row.assignment);
            match policy.unmanaged {
                Unmanaged::Leave => prop_assert_eq!(still, Some(row)),
                Unmanaged::Adopt => prop_assert!(still.is_some()),
            }
        }
    }

    #[test]
    fn rows_of_an_incomplete_listing_are_never_touched(
        (desired, observed) in a_world(), policy in policies()
    ) {
        let plan = plan(&desired, &observed, policy, minute(0));
        let after = apply(&plan, &observed);
        let of = |side: &ObservedGrants| -> Vec<_> {
            side.grants.iter().filter(|row| !side.groups.contains(&row.group)).cloned().collect()
        };
        prop_assert_eq!(of(&after), of(&observed));
    }

    #[test]
    fn without_debt_access_through_any_one_membership_is_access(
        pauses in vec(option::of((0..20_i64, option::of(1..20_i64))), 1..5),
        ends in vec(option::of(0..30_i64), 5),
        when in 0..40_i64,
    ) {
        let first = day("2026-03-01");
        let date = |days: i64| first.checked_add(days.days()).expect("a date");
        let held: Vec<_> = pauses.iter().zip(&ends).enumerate().map(|(index, (pause, ends))| {
            let mut held = membership(&format!("ms{index}"), &format!("plan{index}"), &["m"]);
            held.ends_on = ends.map(date);
            held.pauses = pause.iter().map(|(from, length)| Pause {
                id: access_domain::ids::PauseId::parse("p").expect("an id"),
                from: date(*from),
                until: length.map(|length| date(*from + length)),
                resumed_at: None,
            }).collect();
            with(held, [])
        }).collect();
        let now = rules().begins(date(when));
        let together = entitle(&facts("m", held.clone()), &rules(), now);
        let mut alone = BTreeSet::new();
        for one in held {
            alone.extend(plans_of(&entitle(&facts("m", vec![one]), &rules(), now)));
        }
        prop_assert_eq!(together.allowed, !alone.is_empty());
        prop_assert_eq!(plans_of(&together).into_iter().collect::<BTreeSet<_>>(), alone);
    }

    #[test]
    fn a_plan_opens_until_its_end_and_not_at_it(
        terms in vec((0..12_i64, option::of(0..8_i64), 0..2_u8), 1..6), when in 0..20_i64,
    ) {
        let first = day("2026-03-01");
        let date = |days: i64| first.checked_add(days.days()).expect("a date");
        let held = terms.iter().enumerate().map(|(index, (start, length, plan))| {
            let mut held = membership(&format!("ms{index}"), &format!("plan{plan}"), &["m"]);
            held.starts_on = date(*start);
            held.ends_on = length.map(|length| date(start + length));
            with(held, [])
        }).collect();
        let facts = facts("m", held);
        let opens = |plan: &PlanId, days: i64| {
            let decided = entitle(&facts, &rules(), rules().begins(date(days)));
            decided.plans.iter().any(|access| access.plan == *plan)
        };
        for access in entitle(&facts, &rules(), rules().begins(date(when))).plans {
            // Day by day, slow and obvious; by day 40 whatever ends has ended.
            let end = (when..40).find(|days| !opens(&access.plan, *days));
            prop_assert_eq!(access.valid_until, end.map(|days| rules().begins(date(days))));
        }
    }

    #[test]
    fn nothing_changes_before_changes_at_and_something_does_at_it(
        history in vec(a_fact(), 0..6), pause in option::of((0..9_i64, option::of(1..9_i64))),
        ends in option::of(0..12_i64), grace_minutes in 0..5_i64, when in -5..40_i64,
    ) {
        let first = day("2026-02-27");
        let date = |days: i64| first.checked_add(days.days()).expect("a date");
        let mut held = membership("a", "gym", &["m"]);
        held.ends_on = ends.map(date);
        held.pauses = pause.iter().map(|(from, length)| Pause {
            id: access_domain::ids::PauseId::parse("p").expect("an id"),
            from: date(*from),
            until: length.map(|length| date(*from + length)),
            resumed_at: None,
        }).collect();
        let mut rules = rules();
        rules.overdue_grace = jiff::SignedDuration::from_mins(grace_minutes);
        let facts = facts("m", vec![with(held, history)]);
        let now = minute(when);
        let decided = entitle(&facts, &rules, now);
        let strip = |mut entitlement: access_domain::entitlement::Entitlement| {
            entitlement.changes_at = None;
            entitlement
        };
        // Minute by minute, slow and obvious, for two weeks at most.
        let horizon = decided.changes_at.unwrap_or_else(|| minute(when + 14 * 24 * 60));
        let mut probe = now;
        while probe < horizon {
            prop_assert_eq!(strip(entitle(&facts, &rules, probe)), strip(decided.clone()));
            probe = probe.checked_add(17.minutes()).expect("an instant").min(
                horizon.checked_sub(1.nanoseconds()).expect("an instant").max(probe),
            );
            if probe >= horizon.checked_sub(1.nanoseconds()).expect("an instant") {
                break;
            }
        }
        if let Some(at) = decided.changes_at {
            prop_assert_ne!(strip(entitle(&facts, &rules, at)), strip(decided));
        }
    }
    #[test]
    fn an_outlook_tells_at_every_instant_what_is_decided_then(
        history in vec(a_fact(), 0..6), pauses in vec((0..9_i64, option::of(1..9_i64)), 0..3),
        ends in option::of(0..12_i64), next in option::of(0..12_i64), grace_minutes in 0..5_i64,
        probes in vec(0..20_000_i64, 1..20),
    ) {
        let first = day("2026-02-27");
        let date = |days: i64| first.checked_add(days.days()).expect("a date");
        let mut held = membership("a", "gym", &["m"]);
        held.ends_on = ends.map(date);
        held.next_plan = next.map(|days| access_domain::membership::NextPlan {
            plan: PlanId::parse("pool").expect("an id"),
            from: date(days),
        });
        held.pauses = pauses.iter().enumerate().map(|(index, (from, length))| Pause {
            id: access_domain::ids::PauseId::parse(&format!("p{index}")).expect("an id"),
            from: date(*from),
            until: length.map(|length| date(*from + length)),
            resumed_at: None,
        }).collect();
        let mut rules = rules();
        rules.overdue_grace = jiff::SignedDuration::from_mins(grace_minutes);
        let facts = facts("m", vec![with(held, history)]);
        let now = minute(-2 * 24 * 60);
        let decided = entitle(&facts, &rules, now);
        let until = minute(20_000);
        let steps = decided.changes_at
            .map(|at| outlook(&facts, &rules, at, until))
            .unwrap_or_default();
        for probe in probes {
            let at = minute(probe - 2 * 24 * 60);
            let last = steps.iter().rev().find(|(step, _)| *step <= at);
            let told = last.map_or(&decided, |(_, entitlement)| entitlement);
            prop_assert_eq!(told, &entitle(&facts, &rules, at));
        }
    }
}
