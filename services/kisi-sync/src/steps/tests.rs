//! The rules of one member, as cases.

use super::*;

const NOW: i64 = 1_800_000_000 * SECOND;
const USER: i64 = 7;

fn row(id: i64, group: i64, state: &str, epoch: i64) -> applied_grants::Model {
    applied_grants::Model {
        id,
        organization_id: 1,
        gym_id: "g".into(),
        member_id: "m".into(),
        group_id: group,
        kisi_user_id: USER,
        assignment_id: (state == STANDING).then_some(1000 + id),
        state: state.into(),
        epoch,
        valid_from: None,
        valid_until: None,
        intended_at: 0,
        updated_at: 0,
    }
}

struct Case {
    wanted: BTreeMap<i64, Window>,
    rows: Vec<applied_grants::Model>,
    user_known: bool,
    looked: bool,
    others: Vec<i64>,
    held: bool,
    person_changed: bool,
    former_user: Option<i64>,
    refused: Refused,
}

fn case(wanted: &[i64], rows: Vec<applied_grants::Model>) -> Case {
    Case {
        wanted: wanted.iter().map(|g| (*g, Window::default())).collect(),
        rows,
        user_known: true,
        looked: true,
        others: vec![],
        held: false,
        person_changed: false,
        former_user: None,
        refused: Refused::default(),
    }
}

impl Case {
    fn next(&self) -> Option<Step> {
        Situation {
            wanted: &self.wanted,
            rows: &self.rows,
            user: self.user_known.then_some(USER),
            person_changed: self.person_changed,
            former_user: self.former_user,
            looked: self.looked,
            opened_by_others: &self.others,
            refused: &self.refused,
            held: self.held,
            grants_held: false,
            epoch: 3,
            now: NOW,
        }
        .next_step()
    }
}

#[test]
fn a_known_row_that_nothing_wants_is_revoked_without_a_look() {
    let case = case(&[], vec![row(1, 5, STANDING, 1)]);
    assert_eq!(case.next(), Some(Step::Revoke { row: 1, group: 5 }));
}

#[test]
fn a_grant_after_our_own_revoke_is_sent_without_a_look() {
    assert_eq!(
        case(&[5], vec![]).next(),
        Some(Step::Intend(vec![(5, Window::default())]))
    );
    let intended = case(&[5], vec![row(1, 5, INTENDED, 3)]);
    assert_eq!(intended.next(), Some(Step::Grant { row: 1, group: 5 }));
}

#[test]
fn a_first_grant_finds_the_person_and_looks() {
    let mut first = case(&[5], vec![]);
    first.user_known = false;
    first.looked = false;
    assert_eq!(first.next(), Some(Step::FindUser));
    first.user_known = true;
    assert_eq!(first.next(), Some(Step::Look));
}

#[test]
fn a_row_whose_answer_is_lost_is_looked_for_and_never_granted_again() {
    for state in [row(1, 5, UNKNOWN, 3), row(1, 5, INTENDED, 2)] {
        assert_eq!(case(&[5], vec![state.clone()]).next(), Some(Step::Look));
        assert_eq!(case(&[], vec![state]).next(), Some(Step::Look));
    }
}

#[test]
fn a_new_group_is_granted_before_the_old_one_is_revoked() {
    let changed = case(&[6], vec![row(1, 5, STANDING, 1)]);
    assert!(matches!(changed.next(), Some(Step::Intend(_))));
    let granted = case(&[6], vec![row(1, 5, STANDING, 1), row(2, 6, STANDING, 3)]);
    assert_eq!(granted.next(), Some(Step::Revoke { row: 1, group: 5 }));
}

#[test]
fn a_duplicate_of_ours_is_removed_and_another_hand_s_right_is_left() {
    let twice = case(&[5], vec![row(1, 5, STANDING, 1), row(2, 5, STANDING, 1)]);
    assert_eq!(
        twice.next(),
        Some(Step::RemoveDuplicate { row: 2, group: 5 })
    );
    let mut others = case(&[5], vec![]);
    others.others = vec![5];
    assert_eq!(others.next(), None);
}

#[test]
fn a_held_member_loses_nothing_and_may_still_gain() {
    let mut held = case(&[], vec![row(1, 5, STANDING, 1)]);
    held.held = true;
    assert_eq!(held.next(), None);
    held.wanted.insert(6, Window::default());
    assert!(matches!(held.next(), Some(Step::Intend(_))));
}

#[test]
fn two_plans_of_one_group_open_it_for_as_long_as_either_lasts() {
    let associations = BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 5)]);
    let plan = |id: &str, until| WantedPlan {
        plan_id: id.into(),
        from: None,
        until,
    };
    let end = NOW + 60 * SECOND;
    let both = wanted(&[plan("a", Some(end)), plan("b", None)], &associations, NOW);
    assert_eq!(both[&5], Window::default());
    let one = wanted(
        &[plan("a", Some(end + 5)), plan("c", None)],
        &associations,
        NOW,
    );
    assert_eq!(one[&5].until, Some(end));
    assert!(wanted(&[plan("a", Some(NOW))], &associations, NOW).is_empty());
}

#[test]
fn a_door_is_to_be_closed_where_something_is_open_that_should_not_be_now() {
    let window = |from: Option<i64>, until: Option<i64>| Window { from, until };
    let later = window(Some(NOW + SECOND), None);
    let longer = window(None, Some(NOW + 9 * SECOND));
    let shorter = window(None, Some(NOW + SECOND));
    let ended = window(None, Some(NOW));
    let always = Window::default();
    let closes = |row, wanted: Option<Window>| {
        let wanted = wanted.into_iter().map(|window| (5, window.as_of(NOW)));
        closes(&wanted.collect(), [(5, row)].into_iter(), NOW)
    };
    for (row, wanted, is_so) in [
        (always, None, true),
        (later, None, true),
        (ended, None, false),
        (always, Some(always), false),
        (shorter, Some(longer), false),
        (longer, Some(shorter), false),
        (always, Some(later), true),
        (later, Some(always), false),
        (ended, Some(later), false),
    ] {
        assert_eq!(closes(row, wanted), is_so, "{row} {wanted:?}");
    }
}

#[test]
fn a_wrong_window_is_changed_and_a_beginning_that_has_passed_is_none() {
    let mut old = row(1, 5, STANDING, 1);
    old.valid_from = Some(NOW - SECOND);
    assert_eq!(case(&[5], vec![old.clone()]).next(), None);
    old.valid_until = Some(NOW + SECOND);
    assert!(matches!(
        case(&[5], vec![old]).next(),
        Some(Step::ChangeWindow { row: 1, .. })
    ));
}

fn of_former(id: i64, group: i64) -> applied_grants::Model {
    applied_grants::Model {
        kisi_user_id: 6,
        ..row(id, group, STANDING, 1)
    }
}

#[test]
fn a_right_that_two_rows_name_is_no_duplicate_of_itself() {
    let mut twin = row(2, 5, STANDING, 2);
    twin.assignment_id = Some(1001);
    let case = case(&[5], vec![row(1, 5, STANDING, 1), twin]);
    assert_eq!(case.next(), Some(Step::Forget { row: 2 }));
}

#[test]
fn rights_move_to_a_new_user_new_before_old_and_then_the_old_user_goes() {
    let mut case = case(&[5], vec![of_former(1, 5)]);
    case.former_user = Some(6);
    let grant = Some(Step::Intend(vec![(5, Window::default())]));
    assert_eq!(case.next(), grant);
    case.rows.push(row(2, 5, STANDING, 3));
    assert_eq!(
        case.next(),
        Some(Step::RemoveDuplicate { row: 1, group: 5 })
    );
    case.rows.remove(0);
    assert_eq!(case.next(), Some(Step::LeaveFormer));
    case.former_user = None;
    assert_eq!(case.next(), None);
}

#[test]
fn a_former_right_stays_while_the_new_one_cannot_be_given_and_goes_when_others_gave_it() {
    let mut case = case(&[5], vec![of_former(1, 5)]);
    // The new person is somebody else's: nobody is known any more, and nothing is taken away.
    case.user_known = false;
    assert_eq!(case.next(), Some(Step::FindUser));
    case.refused.person = true;
    assert_eq!(case.next(), None);
    (case.user_known, case.refused.person) = (true, false);
    case.others = vec![5];
    assert_eq!(case.next(), Some(Step::Revoke { row: 1, group: 5 }));
}

#[test]
fn a_changed_person_is_looked_at_before_a_grant_and_after_a_revoke() {
    let mut case = case(&[5], vec![]);
    case.person_changed = true;
    assert_eq!(case.next(), Some(Step::CheckPerson));
    case.wanted.clear();
    case.rows.push(row(1, 5, STANDING, 1));
    assert_eq!(case.next(), Some(Step::Revoke { row: 1, group: 5 }));
    case.rows.clear();
    assert_eq!(case.next(), Some(Step::CheckPerson));
}

#[test]
fn what_was_refused_is_left_out_and_the_rest_goes_on() {
    // A window that cannot be changed, and two rights that nothing wants.
    let mut ends = row(1, 5, STANDING, 1);
    ends.valid_until = Some(NOW + SECOND);
    let mut case = case(
        &[5],
        vec![ends, row(2, 6, STANDING, 1), row(3, 7, STANDING, 1)],
    );
    assert!(matches!(
        case.next(),
        Some(Step::ChangeWindow { row: 1, .. })
    ));
    case.refused.rows.insert(1);
    assert_eq!(case.next(), Some(Step::Revoke { row: 2, group: 6 }));
    case.refused.rows.insert(2);
    assert_eq!(case.next(), Some(Step::Revoke { row: 3, group: 7 }));
    case.refused.rows.insert(3);
    assert_eq!(case.next(), None);
}

#[test]
fn who_cannot_be_found_is_given_nothing_and_loses_what_is_not_wanted() {
    let rows = vec![row(1, 5, STANDING, 1), row(2, 6, UNKNOWN, 3)];
    for user_known in [false, true] {
        let mut case = case(&[6, 7], rows.clone());
        (case.user_known, case.looked) = (user_known, false);
        assert_eq!(case.next(), Some(Step::Look));
        case.refused.person = true;
        assert_eq!(case.next(), Some(Step::Revoke { row: 1, group: 5 }));
        case.rows.remove(0);
        // What may have been sent is not forgotten.
        case.rows[0] = row(2, 6, INTENDED, 2);
        assert_eq!(case.next(), None);
    }
}

#[test]
fn a_refused_name_keeps_no_right_from_being_given() {
    let mut case = case(&[5], vec![]);
    case.person_changed = true;
    case.refused.name = true;
    assert!(matches!(case.next(), Some(Step::Intend(_))));
    case.rows.push(row(1, 5, STANDING, 3));
    assert_eq!(case.next(), None);
}
