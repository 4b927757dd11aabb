//! Plans as text: what would be done, in which order.

use std::collections::BTreeSet;

use access_domain::grant::{DesiredGrants, Holder, ObservedGrant, ObservedGrants, Window};
use access_domain::ids::GroupId;
use access_domain::plan::{Plan, Policy, Unmanaged, plan};
use insta::assert_snapshot;

use crate::build::{at, member, minute};

fn row(assignment: i64, holder: Holder, group: i64, ours: bool) -> ObservedGrant {
    ObservedGrant {
        assignment,
        holder,
        group: GroupId(group),
        window: Window::ALWAYS,
        ours,
        plain: true,
    }
}

fn of(id: &str) -> Holder {
    Holder::Member(member(id))
}

fn observed(groups: &[i64], grants: Vec<ObservedGrant>) -> ObservedGrants {
    ObservedGrants {
        grants,
        groups: groups.iter().copied().map(GroupId).collect::<BTreeSet<_>>(),
    }
}

fn wants(rows: &[(&str, i64)]) -> DesiredGrants {
    let mut desired = DesiredGrants::default();
    for (id, group) in rows {
        desired.insert(member(id), GroupId(*group), Window::ALWAYS);
    }
    desired
}

fn made(desired: &DesiredGrants, observed: &ObservedGrants, unmanaged: Unmanaged) -> Plan {
    plan(desired, observed, Policy { unmanaged }, minute(0))
}

#[test]
fn revocations_come_first_but_not_before_the_new_group_of_somebody_who_moves() {
    let observed = observed(
        &[1, 2],
        vec![
            row(11, of("leaver"), 1, true),
            row(12, of("mover"), 1, true),
            row(13, of("stays"), 1, true),
        ],
    );
    let plan = made(
        &wants(&[("mover", 2), ("stays", 1), ("joiner", 1)]),
        &observed,
        Unmanaged::Leave,
    );
    assert_snapshot!(plan, @r"
    - revoke   leaver group 1 row 11
    + grant    joiner group 1
    + grant    mover group 2
    - revoke   mover group 1 row 12
    ");
}

#[test]
fn what_others_gave_is_left_and_shown_or_adopted() {
    let rows = vec![
        row(21, of("guest-of-staff"), 1, false),
        row(22, of("member-by-hand"), 1, false),
        row(23, Holder::Stranger(900), 1, false),
    ];
    let observed = observed(&[1], rows);
    let desired = wants(&[("member-by-hand", 1)]);
    assert_snapshot!(made(&desired, &observed, Unmanaged::Leave), @r"
      leave    guest-of-staff group 1 row 21
      leave    member-by-hand group 1 row 22
      leave    (user 900) group 1 row 23
    ");
    assert_snapshot!(made(&desired, &observed, Unmanaged::Adopt), @r"
    = adopt    member-by-hand group 1 row 22
      leave    guest-of-staff group 1 row 21
      leave    (user 900) group 1 row 23
    ");
    // Whoever manages the group keeps that: it is more than a membership gives.
    let mut observed = observed;
    for row in &mut observed.grants {
        row.plain = false;
    }
    assert_snapshot!(made(&desired, &observed, Unmanaged::Adopt), @r"
      leave    guest-of-staff group 1 row 21
      leave    member-by-hand group 1 row 22
      leave    (user 900) group 1 row 23
    ");
}

#[test]
fn doubles_of_ours_go_and_the_row_that_fits_is_kept() {
    let until = Window {
        from: None,
        until: Some(at("2026-04-01T00:00:00Z")),
    };
    let mut fits = row(32, of("m"), 1, true);
    fits.window = until;
    let observed = observed(
        &[1],
        vec![row(31, of("m"), 1, true), fits, row(33, of("n"), 1, true)],
    );
    let mut desired = DesiredGrants::default();
    desired.insert(member("m"), GroupId(1), until);
    desired.insert(member("n"), GroupId(1), until);
    assert_snapshot!(made(&desired, &observed, Unmanaged::Leave), @r"
    - double   m group 1 row 31
    ~ window   n group 1 row 33 until 2026-04-01T00:00:00Z
    ");
}

#[test]
fn a_group_whose_listing_is_not_complete_is_not_planned_for() {
    let incomplete = observed(&[2], vec![row(41, of("m"), 1, true)]);
    let plan = made(&wants(&[("other", 1)]), &incomplete, Unmanaged::Leave);
    assert_snapshot!(plan, @"nothing to do");
}

#[test]
fn a_digest_names_the_exact_set() {
    let observed = observed(&[1], vec![row(51, of("m"), 1, true)]);
    let one = made(&wants(&[]), &observed, Unmanaged::Leave);
    let same = made(&wants(&[]), &observed, Unmanaged::Leave);
    let other = made(&wants(&[("n", 1)]), &observed, Unmanaged::Leave);
    assert_eq!(one.digest(), same.digest());
    assert_ne!(one.digest(), other.digest());
    assert_eq!(one.digest().len(), 64);
}

#[test]
fn a_grant_whose_end_has_passed_is_not_made_again_and_does_not_stand_open() {
    let past = Window {
        from: None,
        until: Some(minute(-1)),
    };
    let mut desired = DesiredGrants::default();
    for id in ["absent", "closed", "open"] {
        desired.insert(member(id), GroupId(1), past);
    }
    let mut closed = row(10, of("closed"), 1, true);
    closed.window = past;
    let open = row(11, of("open"), 1, true);
    let made = made(
        &desired,
        &observed(&[1], vec![closed, open]),
        Unmanaged::Leave,
    );
    assert_eq!(made.to_string(), "- revoke   open group 1 row 11\n");
}
