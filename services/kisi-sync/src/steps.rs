//! What one member needs at Kisi, one step at a time. Pure: what is wanted and what stands give
//! the next step, and after the last one there is none.
//!
//! The same rules serve an event, a sync and a restart, because none of them carries data into
//! this decision. A new group is granted before the old one is revoked; apart from that nothing
//! waits for anything.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::applied_grants::{self, INTENDED, STANDING, UNKNOWN};
use crate::store::instant;
use crate::store::members::WantedPlan;

const SECOND: i64 = 1_000_000;
/// An end that Kisi keeps less exactly than it was told is apart from it by less than this.
const ROUNDED_BY: i64 = 60 * SECOND;

/// When a right holds, microseconds since 1970 in whole seconds, as Kisi keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    pub from: Option<i64>,
    pub until: Option<i64>,
}

impl Window {
    /// A beginning that has passed is no beginning.
    pub fn as_of(self, now: i64) -> Self {
        Self {
            from: self.from.map(whole).filter(|from| *from > now),
            until: self.until.map(whole),
        }
    }

    /// Open whenever either is.
    pub fn union(self, other: Self) -> Self {
        let both = |a: Option<i64>, b: Option<i64>, pick: fn(i64, i64) -> i64| match (a, b) {
            (Some(a), Some(b)) => Some(pick(a, b)),
            _ => None,
        };
        Self {
            from: both(self.from, other.from, i64::min),
            until: both(self.until, other.until, i64::max),
        }
    }

    /// Whether the same doors are open at the same times from `now` on.
    pub fn opens_like(self, other: Self, now: i64) -> bool {
        self.as_of(now) == other.as_of(now)
    }

    /// The same but for what rounding explains: nobody has changed the one into the other.
    pub fn is_close(self, other: Self, now: i64) -> bool {
        let (one, other) = (self.as_of(now), other.as_of(now));
        let close = |a: Option<i64>, b: Option<i64>| match (a, b) {
            (Some(a), Some(b)) => a.abs_diff(b) < ROUNDED_BY.unsigned_abs(),
            (a, b) => a == b,
        };
        close(one.from, other.from) && close(one.until, other.until)
    }

    /// It opens something now.
    pub fn is_open(self, now: i64) -> bool {
        self.as_of(now).from.is_none() && !self.has_ended(now)
    }

    /// A door that is open by `before` is shut by this one, for now or for good.
    pub fn shuts(self, before: Self, now: i64) -> bool {
        before.is_open(now) && !self.is_open(now)
    }

    /// It opens nothing any more.
    pub fn has_ended(self, now: i64) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// As an interval; two dots where it is open.
impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = |at: Option<i64>| at.map_or("..".to_owned(), |at| instant(at).to_string());
        write!(f, "{}/{}", side(self.from), side(self.until))
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

/// Something that is open, or may be, is not wanted any more, or not yet: a door is to be closed. By group
/// and window.
pub fn closes(
    wanted: &BTreeMap<i64, Window>,
    mut rows: impl Iterator<Item = (i64, Window)>,
    now: i64,
) -> bool {
    rows.any(|(group, window)| match wanted.get(&group) {
        Some(wanted) => wanted.shuts(window, now),
        None => !window.has_ended(now),
    })
}

/// The next thing to do. Row ids are those of `applied_grants`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Find the person at Kisi, or make one.
    FindUser,
    /// Name or e-mail have changed: tell Kisi, or move to another user.
    CheckPerson,
    /// Nothing of ours is left to a former user: it may go.
    LeaveFormer,
    /// List the person's rights: before a first grant, or after a lost answer.
    Look,
    /// Write down that these are about to be granted.
    Intend(Vec<(i64, Window)>),
    /// A row that was never sent, and is not wanted any more or has another in its place; or one of two
    /// that name the same right.
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

impl Step {
    /// It gives a right, or changes when one holds.
    pub fn opens(&self) -> bool {
        matches!(
            self,
            Self::Intend(_) | Self::Grant { .. } | Self::ChangeWindow { .. }
        )
    }
}

/// What Kisi refused in this very attempt: it is left out, and all the rest is done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Groups whose grant was.
    pub groups: BTreeSet<i64>,
    /// Rows that could not be changed or revoked.
    pub rows: BTreeSet<i64>,
    /// A revoke: something stands that is not wanted.
    pub revoke: bool,
    /// A changed name.
    pub name: bool,
    /// That a former user goes.
    pub former: bool,
    /// Who the person is at Kisi, or what she has there, could not be told: nothing is given.
    pub person: bool,
}

impl Refused {
    /// Nothing was.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Something that was to be given.
    pub fn keeps_out(&self) -> bool {
        self.person || !self.groups.is_empty()
    }
}

/// What a decision is made from.
#[derive(Debug)]
pub struct Situation<'a> {
    pub wanted: &'a BTreeMap<i64, Window>,
    pub rows: &'a [applied_grants::Model],
    /// Who the person is at Kisi. Rows of another user are those of a former e-mail.
    pub user: Option<i64>,
    /// Name or e-mail are not those that Kisi has.
    pub person_changed: bool,
    pub former_user: Option<i64>,
    pub looked: bool,
    pub opened_by_others: &'a [i64],
    pub refused: &'a Refused,
    /// Rights stay as they are, because a plan with this member is held.
    pub held: bool,
    /// No new right is given, because a plan of grants with this member is held.
    pub grants_held: bool,
    /// The lease's epoch: rows intended under another one may have been sent.
    pub epoch: i64,
    pub now: i64,
}

/// Whether the row may stand at Kisi although no answer says so.
pub fn is_unsettled(row: &applied_grants::Model, epoch: i64) -> bool {
    row.state == UNKNOWN || (row.state == INTENDED && row.epoch != epoch)
}

impl Situation<'_> {
    /// The next step; None when what stands is what is wanted.
    pub fn next_step(&self) -> Option<Step> {
        let may_look = !self.refused.person;
        if may_look && self.rows.iter().any(|row| is_unsettled(row, self.epoch)) {
            return Some(Step::Look);
        }
        let check = self.person_changed && self.user.is_some() && may_look && !self.refused.name;
        // Rights go to the new user, and no revoke waits for that.
        if check && !self.wanted.is_empty() && !self.grants_held {
            return Some(Step::CheckPerson);
        }
        if may_look && self.user.is_some() && !self.looked {
            return Some(Step::Look);
        }
        let is_mine = |row: &&applied_grants::Model| !is_unsettled(row, self.epoch);
        let intended = || {
            let rows = self.rows.iter().filter(|row| row.state == INTENDED);
            rows.filter(is_mine)
        };
        let stands = |group: i64| {
            let mut standing = self.rows.iter().filter(|row| row.state == STANDING);
            standing.any(|row| row.group_id == group && self.is_current(row))
        };
        let no_use = |row: &&applied_grants::Model| {
            !self.wanted.contains_key(&row.group_id)
                || !self.is_current(row)
                || stands(row.group_id)
        };
        if let Some(row) = intended().find(no_use) {
            return Some(Step::Forget { row: row.id });
        }
        if !self.grants_held
            && !self.refused.person
            && let Some(step) = self.next_grant()
        {
            return Some(step);
        }
        self.next_correction()
            .or_else(|| self.next_revoke())
            .or_else(|| check.then_some(Step::CheckPerson))
            .or_else(|| self.next_farewell())
    }

    fn next_farewell(&self) -> Option<Step> {
        let former = self.former_user.filter(|user| Some(*user) != self.user)?;
        let is_bare = self.rows.iter().all(|row| row.kisi_user_id != former);
        is_bare.then_some(Step::LeaveFormer)
    }

    /// Of the user that the person is now. Without one, all rows are.
    fn is_current(&self, row: &applied_grants::Model) -> bool {
        self.user.is_none_or(|user| row.kisi_user_id == user)
    }

    fn next_grant(&self) -> Option<Step> {
        let intended: Vec<_> = self
            .rows
            .iter()
            .filter(|row| row.state == INTENDED && !self.refused.groups.contains(&row.group_id))
            .collect();
        let missing = self.missing();
        // Rights of a former user are not those of whoever is nobody's user yet.
        let needs_user = self.user.is_none() && !self.wanted.is_empty();
        if intended.is_empty() && missing.is_empty() && !needs_user {
            return None;
        }
        if self.user.is_none() {
            return Some(Step::FindUser);
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
                let has =
                    |row: &applied_grants::Model| row.group_id == **group && self.is_current(row);
                !self.rows.iter().any(has)
                    && !self.opened_by_others.contains(group)
                    && !self.refused.groups.contains(group)
            })
            .map(|(group, window)| (*group, *window))
            .collect()
    }

    /// Of several rows the one with the right window stays, and none of a former user once there is
    /// one of the present one.
    fn next_correction(&self) -> Option<Step> {
        for (group, window) in self.wanted {
            if self.refused.groups.contains(group) {
                continue;
            }
            let standing: Vec<_> = self
                .rows
                .iter()
                .filter(|row| row.group_id == *group && row.state == STANDING)
                .filter(|row| !self.refused.rows.contains(&row.id))
                .collect();
            let (standing, former): (Vec<_>, Vec<_>) =
                standing.into_iter().partition(|row| self.is_current(row));
            let right = standing
                .iter()
                .find(|row| row_window(row).as_of(self.now) == *window);
            match (right, standing.first()) {
                (Some(right), _) => {
                    let mut others = standing.iter().chain(&former);
                    if let Some(other) = others.find(|row| row.id != right.id) {
                        let (row, group) = (other.id, *group);
                        // Whose lease was gone and who has it now may both have written it down.
                        let is_same = other.assignment_id == right.assignment_id;
                        return Some(match is_same {
                            true => Step::Forget { row },
                            false => Step::RemoveDuplicate { row, group },
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
        let mut unwanted = self.unwanted();
        let next = unwanted.find(|row| !self.refused.rows.contains(&row.id));
        next.map(|row| Step::Revoke {
            row: row.id,
            group: row.group_id,
        })
    }

    /// Standing rows that nothing wants.
    pub fn unwanted(&self) -> impl Iterator<Item = &applied_grants::Model> {
        let no_use = |row: &applied_grants::Model| {
            let opened = self.opened_by_others.contains(&row.group_id);
            !self.wanted.contains_key(&row.group_id) || (opened && !self.is_current(row))
        };
        self.rows
            .iter()
            .filter(move |row| row.state == STANDING && no_use(row))
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
mod tests;
