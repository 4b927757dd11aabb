//! What holds of every member there can be.

use proptest::prelude::*;

use super::*;

fn subset(words: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(words, 0..=words.len())
}

const REASONS: &[&str] = &[
    "missed_payment",
    "membership_paused",
    "membership_not_started",
    "membership_ended",
    "barred_by_staff",
    "let_in_by_staff",
    "a_new_word",
];
const STATES: &[&str] = &[
    "disabled",
    "key_saved",
    "place_selected",
    "ready",
    "syncing",
    "active",
    "needs_attention",
    "a_new_word",
];
const OUTCOMES: &[&str] = &[
    "granted",
    "revoked",
    "unchanged",
    "held",
    "failed",
    "erased",
];
const FAILURES: &[Option<&str>] = &[
    None,
    Some("kisi_unreachable"),
    Some("kisi_refused"),
    Some("brake"),
    Some("no_association"),
    Some("a_new_word"),
];

proptest! {
    #[test]
    fn denied_without_an_alert_cannot_happen_and_every_alert_is_once_and_in_words(
        state in proptest::option::of(proptest::sample::select(STATES)),
        plans in subset(&["gold", "silver"]),
        reasons in subset(REASONS),
        with_membership: bool,
        plan_ends_in in -2_i64..2,
        applied in proptest::option::of((
            proptest::sample::select(OUTCOMES),
            proptest::sample::select(FAILURES),
            3_i64..7,
            proptest::sample::subsequence(&[GROUP, 12][..], 0..=2),
            proptest::bool::ANY,
        )),
    ) {
        let mut message = decided(&plans, &reasons);
        if !with_membership {
            message.memberships.clear();
        }
        for plan in &mut message.plans {
            plan.valid_until = hours(plan_ends_in);
        }
        let applied = applied.map(|(word, failure, version, groups, others)| {
            let mut applied = outcome(version, word, &groups);
            applied.failure = failure.map(str::to_owned);
            if others {
                applied.groups_opened_by_others = vec![GROUP];
            }
            applied
        });
        let gym = state.map(gym);
        let facts = member(&message, applied.as_ref());
        let access = access(gym.as_ref(), &facts, None, now()).expect("known");
        if matches!(access.status, Status::Denied | Status::Revoking) {
            prop_assert!(!access.alerts.is_empty());
        }
        if access.status == Status::Denied {
            prop_assert!(!access.decision.allowed && !access.applied.allowed);
        }
        if access.status == Status::Granted {
            prop_assert!(access.decision.allowed && access.applied.allowed);
        }
        let mut seen = codes(&access);
        seen.sort_unstable();
        let told = seen.len();
        seen.dedup();
        prop_assert_eq!(seen.len(), told);
        prop_assert!(access.alerts.iter().all(|alert| alert.message.ends_with('.')));
    }
}
