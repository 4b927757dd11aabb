//! Status words and alerts, as rows of cases and as properties.

use super::*;
use contracts::access::v1::{AccessApplied, AppliedGrant};
use contracts::integration::v1::{
    Association, GroupDoor, GroupDoors, IntegrationChanged, Policies,
};
use contracts::membership::v1::{MembershipState, MembershipStatusChanged, PlanAccess};
use contracts::wire;
use jiff::{SignedDuration, Timestamp};

mod properties;

const NOW: i64 = 1_800_000_000;
const GROUP: i64 = 11;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("an instant")
}

fn hours(from_now: i64) -> Option<pbjson_types::Timestamp> {
    Some(wire::timestamp(
        now() + SignedDuration::from_hours(from_now),
    ))
}

/// A gym whose plan `gold` opens one group with two doors.
fn gym(state: &str) -> GymFacts {
    gym_with(state, "request")
}

fn gym_with(state: &str, member_resume: &str) -> GymFacts {
    GymFacts::read(IntegrationChanged {
        gym_id: "iron".to_owned(),
        version: 1,
        state: state.to_owned(),
        associations: vec![Association {
            plan_id: "gold".to_owned(),
            group_id: GROUP,
        }],
        groups: vec![GroupDoors {
            group_id: GROUP,
            name: "Front".to_owned(),
            doors: vec![door(2, true), door(1, true)],
        }],
        policies: Some(Policies {
            member_resume: member_resume.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn door(lock_id: i64, online: bool) -> GroupDoor {
    GroupDoor {
        lock_id,
        name: format!("Door {lock_id}"),
        online,
    }
}

fn decided(plans: &[&str], reasons: &[&str]) -> MembershipStatusChanged {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    MembershipStatusChanged {
        gym_id: "iron".to_owned(),
        member_id: "m_1".to_owned(),
        version: 5,
        allowed: !plans.is_empty(),
        plans: plans
            .iter()
            .map(|plan| PlanAccess {
                plan_id: (*plan).to_owned(),
                ..Default::default()
            })
            .collect(),
        memberships: vec![MembershipState {
            membership_id: "ms_1".to_owned(),
            plan_id: "gold".to_owned(),
            reasons: words(reasons),
            ..Default::default()
        }],
        reasons: words(reasons),
        decided_at: hours(-1),
        ..Default::default()
    }
}

fn outcome(version: i64, word: &str, groups: &[i64]) -> AccessApplied {
    AccessApplied {
        version,
        applied_seq: 1,
        outcome: word.to_owned(),
        grants: groups
            .iter()
            .map(|group| AppliedGrant {
                group_id: *group,
                assignment_id: 100 + group,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

fn member(decided: &MembershipStatusChanged, applied: Option<&AccessApplied>) -> MemberFacts {
    MemberFacts {
        decided: Some(Decided::read(decided, |plan| plan.into())),
        applied: applied.map(Applied::read),
    }
}

fn told(
    gym: &GymFacts,
    decided: &MembershipStatusChanged,
    applied: Option<&AccessApplied>,
) -> Access {
    access(Some(gym), &member(decided, applied), None, now()).expect("a known member")
}

fn codes(access: &Access) -> Vec<&'static str> {
    access
        .alerts
        .iter()
        .map(|alert| alert.code.as_str())
        .collect()
}

#[test]
fn status_sums_up_both_sides() {
    let good = decided(&["gold"], &[]);
    let bad = decided(&[], &["missed_payment"]);
    let open = outcome(5, "granted", &[GROUP]);
    let closed = outcome(5, "revoked", &[]);
    let older_open = outcome(4, "granted", &[GROUP]);
    let held_open = outcome(5, "held", &[GROUP]);
    let held_closed = outcome(5, "held", &[]);
    let held_before = outcome(4, "held", &[GROUP]);
    let failed = outcome(5, "failed", &[]);
    let elsewhere = outcome(5, "unchanged", &[99]);
    for (case, decided, applied, status) in [
        ("nothing heard of Kisi", &good, None, Status::Granting),
        ("accepted", &good, Some(&open), Status::Granted),
        (
            "the older acceptance still opens",
            &good,
            Some(&older_open),
            Status::Granted,
        ),
        ("not accepted", &good, Some(&closed), Status::Granting),
        ("refused", &good, Some(&failed), Status::Granting),
        (
            "a grant held by the brake",
            &good,
            Some(&held_closed),
            Status::Held,
        ),
        (
            "another group stands only",
            &good,
            Some(&elsewhere),
            Status::Granting,
        ),
        (
            "closed before anything was opened",
            &bad,
            None,
            Status::Denied,
        ),
        ("closed", &bad, Some(&closed), Status::Denied),
        ("still open", &bad, Some(&older_open), Status::Revoking),
        (
            "a revocation held by the brake",
            &bad,
            Some(&held_open),
            Status::Held,
        ),
        (
            "what was held is decided anew",
            &bad,
            Some(&held_before),
            Status::Revoking,
        ),
        (
            "held, but nothing stands",
            &bad,
            Some(&held_closed),
            Status::Denied,
        ),
    ] {
        let access = told(&gym("active"), decided, applied);
        assert_eq!(access.status, status, "{case}");
        assert_eq!(access.decision.version, 5, "{case}");
    }
}

#[test]
fn each_reason_has_its_alert_and_way_back_in() {
    let resume = |policy| gym_with("active", policy);
    let bare = |reason: &str| decided(&[], &[reason]);
    let mut dated_pause = bare("membership_paused");
    dated_pause.memberships[0].paused_until = "2027-02-01".to_owned();
    let mut coming = bare("membership_not_started");
    coming.memberships[0].starts_on = "2027-01-20".to_owned();
    coming.changes_at = Some(wire::timestamp(
        "2027-01-19T15:00:00Z".parse().expect("an instant"),
    ));
    let at = |text: &str| Action::WaitUntil(text.parse().expect("an instant"));
    for (gym, decided, code, action) in [
        (
            resume("request"),
            bare("missed_payment"),
            "missed_payment",
            Action::Pay(None),
        ),
        (
            resume("request"),
            bare("membership_paused"),
            "membership_paused",
            Action::Resume,
        ),
        (
            resume("immediate"),
            bare("membership_paused"),
            "membership_paused",
            Action::Resume,
        ),
        (
            resume("off"),
            bare("membership_paused"),
            "membership_paused",
            Action::ContactGym,
        ),
        (
            resume("request"),
            dated_pause,
            "membership_paused",
            at("2027-02-01T00:00:00Z"),
        ),
        // The gym lies east of Greenwich: its day begins on the evening before, in UTC.
        (
            resume("request"),
            coming,
            "membership_not_started",
            at("2027-01-19T15:00:00Z"),
        ),
        (
            resume("request"),
            bare("membership_ended"),
            "membership_ended",
            Action::ContactGym,
        ),
        (
            resume("request"),
            bare("barred_by_staff"),
            "barred_by_staff",
            Action::ContactGym,
        ),
        (
            resume("request"),
            bare("a_new_word"),
            "other",
            Action::ContactGym,
        ),
        (
            resume("request"),
            decided_without_group(),
            "plan_without_access",
            Action::ContactGym,
        ),
    ] {
        let access = told(&gym, &decided, None);
        assert_eq!(access.status, Status::Denied, "{code}");
        assert_eq!(codes(&access), [code]);
        assert_eq!(access.alerts[0].action, action, "{code}");
    }
}

fn decided_without_group() -> MembershipStatusChanged {
    decided(&["silver"], &[])
}

#[test]
fn paused_second_membership_is_no_news_to_whom_the_first_lets_in() {
    let good = decided(&["gold"], &["membership_paused"]);
    let access = told(
        &gym("active"),
        &good,
        Some(&outcome(5, "granted", &[GROUP])),
    );
    assert_eq!(access.status, Status::Granted);
    assert_eq!(codes(&access), [""; 0]);
}

#[test]
fn bar_is_told_before_all_else() {
    let barred = decided(&[], &["missed_payment", "barred_by_staff"]);
    assert_eq!(
        codes(&told(&gym("active"), &barred, None)),
        ["barred_by_staff", "missed_payment"]
    );
}

#[test]
fn before_the_integration_is_active_it_is_unavailable() {
    let good = decided(&["gold"], &[]);
    for state in ["disabled", "key_saved", "place_selected", "ready"] {
        let access = told(&gym(state), &good, None);
        assert_eq!(codes(&access), ["integration_unavailable"], "{state}");
        assert!(!access.applied.allowed);
    }
    let mut key_died_before_the_set_up_was_done = gym("needs_attention");
    key_died_before_the_set_up_was_done.groups_by_plan.clear();
    let access_then = told(&key_died_before_the_set_up_was_done, &good, None);
    assert_eq!(codes(&access_then), ["integration_unavailable"]);
    let unheard_of = access(None, &member(&good, None), None, now()).expect("known");
    assert_eq!(unheard_of.status, Status::Denied);
    assert_eq!(codes(&unheard_of), ["integration_unavailable"]);
    assert_eq!(codes(&told(&gym("syncing"), &good, None)), [""; 0]);
}

#[test]
fn failure_at_kisi_is_told_while_its_decision_stands() {
    for (failure, code) in [
        ("identity_conflict", "identity_conflict"),
        ("kisi_unreachable", "integration_unavailable"),
        ("key_invalid", "integration_unavailable"),
        ("group_missing", "integration_unavailable"),
        ("kisi_refused", "other"),
    ] {
        let mut failed = outcome(5, "failed", &[]);
        failed.failure = Some(failure.to_owned());
        failed.kisi_code = Some("000409".to_owned());
        let good = decided(&["gold"], &[]);
        let access = told(&gym("active"), &good, Some(&failed));
        assert_eq!(codes(&access), [code], "{failure}");
        let kisi_code = (code == "other").then_some("000409");
        assert_eq!(access.alerts[0].kisi_code.as_deref(), kisi_code);

        failed.version = 4;
        let access = told(&gym("active"), &good, Some(&failed));
        assert_eq!(codes(&access), [""; 0], "an older decision's {failure}");
    }
}

#[test]
fn right_by_other_hands_is_never_claimed_closed() {
    let mut closed = outcome(5, "revoked", &[]);
    closed.groups_opened_by_others = vec![GROUP];
    let bad = told(
        &gym("active"),
        &decided(&[], &["missed_payment"]),
        Some(&closed),
    );
    assert!(bad.applied.allowed);
    assert_ne!(bad.status, Status::Denied);
    assert_eq!(codes(&bad), ["missed_payment", "opened_by_others"]);

    let good = told(&gym("active"), &decided(&["gold"], &[]), Some(&closed));
    assert_eq!(good.status, Status::Granted);
    assert_eq!(codes(&good), ["opened_by_others"]);
}

#[test]
fn another_way_in_is_never_claimed_closed_and_opens_nothing() {
    let mut closed = outcome(5, "revoked", &[]);
    closed.groups_opened_elsewhere = vec![GROUP];
    let bad = decided(&[], &["missed_payment"]);
    let bad = told(&gym("active"), &bad, Some(&closed));
    assert!(bad.applied.allowed);
    assert_eq!(bad.status, Status::Revoking);
    assert_eq!(codes(&bad), ["missed_payment", "opened_by_others"]);

    // What was read hours ago gives nobody what Kisi has not accepted.
    let good = told(&gym("active"), &decided(&["gold"], &[]), Some(&closed));
    assert_eq!(good.status, Status::Granting);
    assert!(!good.applied.allowed);
    closed.groups_opened_elsewhere = vec![GROUP + 1];
    let of_no_plan = decided(&[], &["missed_payment"]);
    let of_no_plan = told(&gym("active"), &of_no_plan, Some(&closed));
    assert_eq!(of_no_plan.status, Status::Denied);
}

#[test]
fn regular_user_is_asked_to_sign_up_until_she_has() {
    let mut granted = outcome(5, "granted", &[GROUP]);
    granted.sign_up_needed = true;
    let good = decided(&["gold"], &[]);
    let asked = told(&gym("active"), &good, Some(&granted));
    assert_eq!(asked.status, Status::Granted);
    assert_eq!(codes(&asked), ["kisi_sign_up_needed"]);
    assert!(asked.alerts[0].message.contains("sign up"));
    assert_eq!(asked.alerts[0].action, Action::ContactGym);

    // Signing up is no way back in for who has to pay first.
    let bad = decided(&[], &["missed_payment"]);
    let bad = told(&gym("active"), &bad, Some(&granted));
    assert_eq!(codes(&bad), ["missed_payment"]);
    granted.sign_up_needed = false;
    let done = told(&gym("active"), &good, Some(&granted));
    assert_eq!(codes(&done), [""; 0]);
}

#[test]
fn windows_close_by_themselves() {
    let mut until = decided(&["gold"], &[]);
    until.plans[0].valid_until = hours(0);
    let mut grant = outcome(5, "granted", &[GROUP]);
    grant.grants[0].valid_until = hours(0);
    let over = told(&gym("active"), &until, Some(&grant));
    assert_eq!(over.status, Status::Denied);
    assert_eq!(codes(&over), ["membership_ended"]);

    until.plans[0].valid_until = hours(1);
    grant.grants[0].valid_until = hours(1);
    let still = told(&gym("active"), &until, Some(&grant));
    assert_eq!(still.status, Status::Granted);
}

#[test]
fn doors_are_those_of_the_groups_once_each_and_offline_ones_are_named() {
    let mut gym = gym("active");
    gym.message.groups[0].doors = vec![door(2, false), door(1, true)];
    gym.message.groups.push(GroupDoors {
        group_id: 12,
        name: "Pool".to_owned(),
        doors: vec![door(3, false)],
    });
    let good = decided(&["gold"], &[]);
    let access = told(&gym, &good, Some(&outcome(5, "granted", &[GROUP])));
    let locks: Vec<i64> = access.doors.iter().map(|door| door.lock_id).collect();
    assert_eq!(locks, [1, 2]);
    assert_eq!(codes(&access), ["door_offline"]);
    assert!(access.alerts[0].message.contains("Door 2"));
    assert!(!access.alerts[0].message.contains("Door 3"));
}

#[test]
fn phone_without_permissions_is_told_to_fix_them() {
    let phone = PhonePermissions {
        bluetooth: false,
        location: false,
    };
    let good = member(
        &decided(&["gold"], &[]),
        Some(&outcome(5, "granted", &[GROUP])),
    );
    let access = access(Some(&gym("active")), &good, Some(phone), now()).expect("known");
    assert_eq!(
        codes(&access),
        [
            "missing_permission_bluetooth",
            "missing_permission_location"
        ]
    );
    assert_eq!(access.alerts[0].action, Action::FixPhone);
}

#[test]
fn erased_or_unheard_of_members_are_unknown() {
    let mut erased = decided(&["gold"], &[]);
    erased.erased = true;
    assert!(access(Some(&gym("active")), &member(&erased, None), None, now()).is_none());
    let applied_alone = MemberFacts {
        decided: None,
        applied: Some(Applied::read(&outcome(5, "granted", &[GROUP]))),
    };
    assert!(access(Some(&gym("active")), &applied_alone, None, now()).is_none());
}
