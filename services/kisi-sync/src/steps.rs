//! What one member needs at Kisi, one step at a time. Pure: what is wanted and what stands give
//! the next step, and after the last one there is none.
//!
//! The same rules serve an event, a sync and a restart, because none of them carries data into
//! this decision. A new group is granted before the old one is revoked; apart from that nothing
//! waits for anything.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::applied_grants::{self, INTENDED, STANDING, UNKNOWN};
use crate::store::members::WantedPlan;

const SECOND: i64 = 1_000_000;

/// When a right holds, microseconds since 1970 in whole seconds, as Kisi keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    pub from: Option<i64>,
    pub until: Option<i64>,
}

impl Window {
    /// A beginning that has passed is no beginning.
    fn as_of(self, now: i64) -> Self {
        Self {
            from: self.from.map(whole).filter(|from| *from > now),
            until: self.until.map(whole),
        }
    }

    /// Open whenever either is.
    fn union(self, other: Self) -> Self {
        let both = |a: Option<i64>, b: Option<i64>, pick: fn(i64, i64) -> i64| match (a, b) {
            (Some(a), Some(b)) => Some(pick(a, b)),
            _ => None,
        };
        Self {
            from: both(self.from, other.from, i64::min),
            until: both(self.until, other.until, i64::max),
        }
    }

    fn has_ended(self, now: i64) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

fn whole(micros: i64) -> i64 {
    micros.div_euclid(SECOND) * SECOND
}

/// Group to window, from the plans that give access and the plans' groups.
pub fn wanted(
    plans: &[WantedPlan],
    associations: &BTreeMap<String, i64>,
    now: i64,
) -> BTreeMap<i64, Window> {
    let mut groups = BTreeMap::new();
    for plan in plans {
        let window = Window {
            from: plan.from,
            until: plan.until,
        }
        .as_of(now);
        if let Some(group) = associations.get(&plan.plan_id)
            && !window.has_ended(now)
        {
            groups
                .entry(*group)
                .and_modify(|known: &mut Window| *known = known.union(window))
                .or_insert(window);
        }
    }
    groups
}

/// The next thing to do. Row ids are those of `applied_grants`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Find the person at Kisi, or make one.
    FindUser,
    /// List the person's rights: before a first grant, or after a lost answer.
    Look,
    /// Write down that these are about to be granted.
    Intend(Vec<(i64, Window)>),
    /// A row that was never sent and is not wanted any more.
    Forget {
        row: i64,
    },
    Grant {
        row: i64,
        group: i64,
    },
    ChangeWindow {
        row: i64,
        group: i64,
        window: Window,
    },
    RemoveDuplicate {
        row: i64,
        group: i64,
    },
    Revoke {
        row: i64,
        group: i64,
    },
}

/// What a decision is made from.
#[derive(Debug)]
pub struct Situation<'a> {
    pub wanted: &'a BTreeMap<i64, Window>,
    pub rows: &'a [applied_grants::Model],
    pub user_known: bool,
    pub looked: bool,
    pub opened_by_others: &'a [i64],
    /// Groups whose grant was refused in this very attempt.
    pub refused: &'a BTreeSet<i64>,
    /// Rights stay as they are, because a plan with this member is held.
    pub held: bool,
    /// The lease's epoch: rows intended under another one may have been sent.
    pub epoch: i64,
    pub now: i64,
}

/// Whether the row may stand at Kisi although no answer says so.
fn is_unsettled(row: &applied_grants::Model, epoch: i64) -> bool {
    row.state == UNKNOWN || (row.state == INTENDED && row.epoch != epoch)
}

impl Situation<'_> {
    /// The next step; None when what stands is what is wanted.
    pub fn next_step(&self) -> Option<Step> {
        if self.rows.iter().any(|row| is_unsettled(row, self.epoch)) {
            return Some(Step::Look);
        }
        let intended = || self.rows.iter().filter(|row| row.state == INTENDED);
        if let Some(row) = intended().find(|row| !self.wanted.contains_key(&row.group_id)) {
            return Some(Step::Forget { row: row.id });
        }
        if let Some(step) = self.next_grant() {
            return Some(step);
        }
        self.next_correction().or_else(|| self.next_revoke())
    }

    fn next_grant(&self) -> Option<Step> {
        let intended: Vec<_> = self
            .rows
            .iter()
            .filter(|row| row.state == INTENDED && !self.refused.contains(&row.group_id))
            .collect();
        let missing = self.missing();
        if intended.is_empty() && missing.is_empty() {
            return None;
        }
        if !self.user_known {
            return Some(Step::FindUser);
        }
        if !self.looked {
            return Some(Step::Look);
        }
        if let Some(row) = intended.first() {
            return Some(Step::Grant {
                row: row.id,
                group: row.group_id,
            });
        }
        Some(Step::Intend(missing))
    }

    /// Wanted groups that neither we nor others have opened, refused ones left out.
    pub fn missing(&self) -> Vec<(i64, Window)> {
        self.wanted
            .iter()
            .filter(|(group, _)| {
                !self.rows.iter().any(|row| row.group_id == **group)
                    && !self.opened_by_others.contains(group)
                    && !self.refused.contains(group)
            })
            .map(|(group, window)| (*group, *window))
            .collect()
    }

    /// Of several rows the one with the right window stays.
    fn next_correction(&self) -> Option<Step> {
        for (group, window) in self.wanted {
            if self.refused.contains(group) {
                continue;
            }
            let standing: Vec<_> = self
                .rows
                .iter()
                .filter(|row| row.group_id == *group && row.state == STANDING)
                .collect();
            let right = standing
                .iter()
                .find(|row| row_window(row).as_of(self.now) == *window);
            match (right, standing.first()) {
                (Some(right), _) => {
                    if let Some(other) = standing.iter().find(|row| row.id != right.id) {
                        return Some(Step::RemoveDuplicate {
                            row: other.id,
                            group: *group,
                        });
                    }
                }
                (None, Some(row)) => {
                    return Some(Step::ChangeWindow {
                        row: row.id,
                        group: *group,
                        window: *window,
                    });
                }
                (None, None) => {}
            }
        }
        None
    }

    fn next_revoke(&self) -> Option<Step> {
        if self.held {
            return None;
        }
        self.unwanted().next().map(|row| Step::Revoke {
            row: row.id,
            group: row.group_id,
        })
    }

    /// Standing rows that nothing wants.
    pub fn unwanted(&self) -> impl Iterator<Item = &applied_grants::Model> {
        self.rows
            .iter()
            .filter(|row| row.state == STANDING && !self.wanted.contains_key(&row.group_id))
    }
}

/// The window a row was made with.
pub fn row_window(row: &applied_grants::Model) -> Window {
    Window {
        from: row.valid_from,
        until: row.valid_until,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000 * SECOND;

    fn row(id: i64, group: i64, state: &str, epoch: i64) -> applied_grants::Model {
        applied_grants::Model {
            id,
            organization_id: 1,
            gym_id: "g".into(),
            member_id: "m".into(),
            group_id: group,
            kisi_user_id: 7,
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
    }

    fn case(wanted: &[i64], rows: Vec<applied_grants::Model>) -> Case {
        Case {
            wanted: wanted.iter().map(|g| (*g, Window::default())).collect(),
            rows,
            user_known: true,
            looked: true,
            others: vec![],
            held: false,
        }
    }

    impl Case {
        fn next(&self) -> Option<Step> {
            Situation {
                wanted: &self.wanted,
                rows: &self.rows,
                user_known: self.user_known,
                looked: self.looked,
                opened_by_others: &self.others,
                refused: &BTreeSet::new(),
                held: self.held,
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
}
