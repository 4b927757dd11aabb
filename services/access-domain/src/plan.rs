//! The plan: what makes the observed side the desired one, as a value.
//!
//! It is immutable, ordered, printable, and so complete that applying it leaves no choice. What we
//! did not grant is never revoked: the filter is here, where a test sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::grant::{DesiredGrants, Holder, ObservedGrant, ObservedGrants, Window};
use crate::ids::{GroupId, MemberId};
use crate::words::words;

words! {
    /// What becomes of rights for our members in our groups that others gave.
    Unmanaged {
        /// They stay and are shown.
        Leave = "leave",
        /// They become ours.
        Adopt = "adopt",
    }
}

/// A gym's choices for planning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub unmanaged: Unmanaged,
}

/// One thing to do, or to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Grant {
        member: MemberId,
        group: GroupId,
        window: Window,
    },
    Revoke {
        assignment: i64,
        member: Option<MemberId>,
        group: GroupId,
    },
    /// A second row of ours for the same right.
    RemoveDuplicate {
        assignment: i64,
        member: MemberId,
        group: GroupId,
    },
    ChangeWindow {
        assignment: i64,
        member: MemberId,
        group: GroupId,
        window: Window,
    },
    /// A row that others made becomes ours.
    Adopt {
        assignment: i64,
        member: MemberId,
        group: GroupId,
    },
    /// A right that others gave; nothing is done.
    LeaveUnmanaged {
        assignment: i64,
        holder: Holder,
        group: GroupId,
    },
}

impl Step {
    /// Whether it asks anything of Kisi.
    pub fn writes(&self) -> bool {
        !matches!(self, Self::Adopt { .. } | Self::LeaveUnmanaged { .. })
    }
}

/// The ordered steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
}

impl Plan {
    /// Whether nothing has to be done.
    pub fn is_in_sync(&self) -> bool {
        !self
            .steps
            .iter()
            .any(|step| step.writes() || matches!(step, Step::Adopt { .. }))
    }

    /// Members who lose their last row for a group, replacements aside: what the brake counts.
    pub fn losses(&self) -> BTreeSet<MemberId> {
        self.steps
            .iter()
            .filter_map(|step| match step {
                Step::Revoke { member, .. } => member.clone(),
                _ => None,
            })
            .collect()
    }

    /// Members who gain a group.
    pub fn gains(&self) -> BTreeSet<MemberId> {
        self.steps
            .iter()
            .filter_map(|step| match step {
                Step::Grant { member, .. } => Some(member.clone()),
                _ => None,
            })
            .collect()
    }

    /// How many steps ask something of Kisi.
    pub fn writes(&self) -> usize {
        self.steps.iter().filter(|step| step.writes()).count()
    }

    /// Rights that others gave.
    pub fn unmanaged(&self) -> impl Iterator<Item = &Step> {
        self.steps
            .iter()
            .filter(|step| matches!(step, Step::LeaveUnmanaged { .. }))
    }

    /// Names exactly these steps: lower-case hex of SHA-256 over the printed plan's writes.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for step in self
            .steps
            .iter()
            .filter(|step| !matches!(step, Step::LeaveUnmanaged { .. }))
        {
            hash.update(step.to_string());
            hash.update("\n");
        }
        hex::encode(hash.finalize())
    }
}

/// What makes `observed` into `desired`.
///
/// Only groups whose listing is complete are planned for. A member who changes groups gets the new
/// one before the old one goes; of all others, revocations come first.
pub fn plan(
    desired: &DesiredGrants,
    observed: &ObservedGrants,
    policy: Policy,
    now: Timestamp,
) -> Plan {
    let mut ours: BTreeMap<(MemberId, GroupId), Vec<&ObservedGrant>> = BTreeMap::new();
    let mut others: BTreeMap<(MemberId, GroupId), Vec<&ObservedGrant>> = BTreeMap::new();
    let mut orphans = Vec::new();
    let mut left = Vec::new();
    for row in observed
        .grants
        .iter()
        .filter(|row| observed.groups.contains(&row.group))
    {
        match (&row.holder, row.ours) {
            (Holder::Member(member), true) => {
                ours.entry((member.clone(), row.group))
                    .or_default()
                    .push(row);
            }
            (Holder::Member(member), false) => {
                others
                    .entry((member.clone(), row.group))
                    .or_default()
                    .push(row);
            }
            (Holder::Stranger(_), true) => orphans.push(row),
            (Holder::Stranger(_), false) => left.push(leave(row)),
        }
    }

    let mut grants = Vec::new();
    let mut revokes = Vec::new();
    let mut changes = Vec::new();
    let mut adoptions = Vec::new();
    for (member, group, window) in desired
        .iter()
        .filter(|(_, group, _)| observed.groups.contains(group))
    {
        let key = (member.clone(), group);
        let mut rows = ours.remove(&key).unwrap_or_default();
        let mut strangers = others.remove(&key).unwrap_or_default();
        rows.sort_by_key(|row| row.assignment);
        strangers.sort_by_key(|row| row.assignment);
        if window.until.is_some_and(|until| until <= now) {
            // Its end has passed: nothing is granted any more, and of ours goes what is still open.
            // What closed by itself waits for the word that it is no longer wanted.
            let open = rows
                .into_iter()
                .filter(|row| row.window.until.is_none_or(|until| until > now));
            revokes.extend(open.map(|row| Step::Revoke {
                assignment: row.assignment,
                member: Some(key.0.clone()),
                group,
            }));
            left.extend(strangers.into_iter().map(leave));
            continue;
        }
        // The row that fits is kept; else the oldest, with its window changed.
        let fitting = rows
            .iter()
            .position(|row| row.window.opens_like(&window, now));
        if let Some(kept) = (!rows.is_empty()).then(|| rows.remove(fitting.unwrap_or(0))) {
            if fitting.is_none() {
                changes.push(Step::ChangeWindow {
                    assignment: kept.assignment,
                    member: member.clone(),
                    group,
                    window,
                });
            }
            changes.extend(rows.iter().map(|row| Step::RemoveDuplicate {
                assignment: row.assignment,
                member: member.clone(),
                group,
            }));
        } else if policy.unmanaged == Unmanaged::Adopt
            && let Some(plain) = strangers.iter().position(|row| row.plain)
        {
            let row = strangers.remove(plain);
            adoptions.push(Step::Adopt {
                assignment: row.assignment,
                member: member.clone(),
                group,
            });
            if !row.window.opens_like(&window, now) {
                changes.push(Step::ChangeWindow {
                    assignment: row.assignment,
                    member: member.clone(),
                    group,
                    window,
                });
            }
        } else if strangers
            .iter()
            .any(|row| row.window.opens_like(&window, now))
        {
            // Opened by others already: a grant of ours could not be told apart, or be refused.
        } else {
            grants.push(Step::Grant {
                member: member.clone(),
                group,
                window,
            });
        }
        left.extend(strangers.into_iter().map(leave));
    }
    for ((member, group), rows) in ours {
        revokes.extend(rows.into_iter().map(|row| Step::Revoke {
            assignment: row.assignment,
            member: Some(member.clone()),
            group,
        }));
    }
    revokes.extend(orphans.into_iter().map(|row| Step::Revoke {
        assignment: row.assignment,
        member: None,
        group: row.group,
    }));
    left.extend(others.into_values().flatten().map(leave));
    left.sort_by_key(|step| match step {
        Step::LeaveUnmanaged { assignment, .. } => *assignment,
        _ => 0,
    });

    // Somebody who moves must not stand before a closed door in between.
    let gaining: BTreeSet<MemberId> = grants
        .iter()
        .filter_map(|step| match step {
            Step::Grant { member, .. } => Some(member.clone()),
            _ => None,
        })
        .collect();
    let moves = |step: &Step| match step {
        Step::Revoke {
            member: Some(member),
            ..
        } => gaining.contains(member),
        _ => false,
    };
    let (late, first): (Vec<_>, Vec<_>) = revokes.into_iter().partition(moves);
    let steps = [first, adoptions, grants, changes, late, left].concat();
    Plan { steps }
}

fn leave(row: &ObservedGrant) -> Step {
    Step::LeaveUnmanaged {
        assignment: row.assignment,
        holder: row.holder.clone(),
        group: row.group,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return f.write_str("nothing to do\n");
        }
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grant {
                member,
                group,
                window,
            } => {
                write!(f, "+ grant    {member} group {group}{window}")
            }
            Self::Revoke {
                assignment,
                member,
                group,
            } => {
                let member = member.as_ref().map_or("(nobody's)", MemberId::as_str);
                write!(f, "- revoke   {member} group {group} row {assignment}")
            }
            Self::RemoveDuplicate {
                assignment,
                member,
                group,
            } => {
                write!(f, "- double   {member} group {group} row {assignment}")
            }
            Self::ChangeWindow {
                assignment,
                member,
                group,
                window,
            } => {
                write!(
                    f,
                    "~ window   {member} group {group} row {assignment}{window}"
                )
            }
            Self::Adopt {
                assignment,
                member,
                group,
            } => {
                write!(f, "= adopt    {member} group {group} row {assignment}")
            }
            Self::LeaveUnmanaged {
                assignment,
                holder,
                group,
            } => {
                let holder = match holder {
                    Holder::Member(member) => member.to_string(),
                    Holder::Stranger(user) => format!("(user {user})"),
                };
                write!(f, "  leave    {holder} group {group} row {assignment}")
            }
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(from) = self.from {
            write!(f, " from {from}")?;
        }
        if let Some(until) = self.until {
            write!(f, " until {until}")?;
        }
        Ok(())
    }
}
