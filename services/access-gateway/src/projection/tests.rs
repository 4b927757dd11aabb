//! Merging by version: whatever the order, the newest stands.

use contracts::access::v1::{AccessApplied, AppliedGrant};
use contracts::integration::v1::{Association, IntegrationChanged};
use contracts::membership::v1::{MembershipStatusChanged, PlanAccess};
use proptest::prelude::*;

use super::Projection;
use crate::words::Outcome;

fn decision(version: i64) -> MembershipStatusChanged {
    MembershipStatusChanged {
        gym_id: "iron".to_owned(),
        member_id: "m_1".to_owned(),
        version,
        allowed: true,
        plans: vec![PlanAccess {
            plan_id: format!("plan_{version}"),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn outcome(applied_seq: i64, version: i64) -> AccessApplied {
    AccessApplied {
        gym_id: "iron".to_owned(),
        member_id: "m_1".to_owned(),
        version,
        applied_seq,
        outcome: "granted".to_owned(),
        grants: vec![AppliedGrant {
            group_id: applied_seq,
            ..Default::default()
        }],
        ..Default::default()
    }
}

proptest! {
    #[test]
    fn any_order_and_repetition_ends_with_the_newest(
        versions in proptest::collection::vec(1_i64..20, 1..30),
    ) {
        let projection = Projection::new();
        for version in &versions {
            projection.decided(&decision(*version));
            // The same version is answered again and again: only the number grows.
            projection.applied(&outcome(*version, 7));
            projection.integration(IntegrationChanged {
                gym_id: "iron".to_owned(),
                version: *version,
                associations: vec![Association { plan_id: "p".to_owned(), group_id: *version }],
                ..Default::default()
            });
        }
        let newest = versions.iter().copied().max().expect("at least one");
        let (gym, member) = projection.member("iron", "m_1").expect("known");
        let decided = member.decided.expect("decided");
        prop_assert_eq!(decided.version, newest);
        prop_assert_eq!(decided.plans[0].plan_id.as_ref(), format!("plan_{newest}"));
        let applied = member.applied.expect("applied");
        prop_assert_eq!(applied.applied_seq, newest);
        prop_assert_eq!(applied.grants[0].0, newest);
        prop_assert_eq!(gym.expect("gym").groups_by_plan["p"], newest);
    }
}

#[test]
fn erased_member_is_unknown_and_an_older_decision_raises_nobody() {
    let projection = Projection::new();
    projection.decided(&decision(1));
    projection.applied(&outcome(1, 1));
    let mut tombstone = decision(2);
    tombstone.erased = true;
    projection.decided(&tombstone);
    projection.decided(&decision(1));
    let (_, member) = projection.member("iron", "m_1").expect("a tombstone");
    assert!(member.known().is_none());
    assert!(member.applied.is_none(), "nothing is kept of the erased");

    // A replica that starts later may see the end of it alone.
    let later = Projection::new();
    let mut erased = outcome(2, 2);
    erased.outcome = "erased".to_owned();
    later.applied(&erased);
    later.decided(&decision(1));
    let (_, member) = later.member("iron", "m_1").expect("a tombstone");
    assert!(member.known().is_none());
    assert_eq!(member.applied.expect("applied").outcome, Outcome::Erased);
}

#[test]
fn plan_ids_are_kept_once() {
    let projection = Projection::new();
    for member in ["m_1", "m_2"] {
        let mut message = decision(1);
        message.member_id = member.to_owned();
        projection.decided(&message);
    }
    let plan = |member| {
        let (_, facts) = projection.member("iron", member).expect("known");
        facts.decided.expect("decided").plans[0].plan_id.clone()
    };
    assert!(std::sync::Arc::ptr_eq(&plan("m_1"), &plan("m_2")));
}

#[test]
fn watchers_hear_of_what_changed_and_not_of_repeats() {
    let projection = Projection::new();
    let mut changes = projection.changes();
    projection.decided(&decision(2));
    projection.decided(&decision(2));
    projection.decided(&decision(1));
    let change = changes.try_recv().expect("one change");
    assert_eq!(change.gym.as_ref(), "iron");
    assert_eq!(change.member.as_deref(), Some("m_1"));
    assert!(changes.try_recv().is_err());
}
