//! What a preview shows, from the plan and from what others gave.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::grant::Window;
use access_domain::plan::Step;
use contracts::integration::v1 as api;
use contracts::wire;
use sea_orm::DbErr;

use super::preview::Planned;
use super::rights::{opens, summary};
use super::show::{conflict, conflicts, plans_without_group};
use crate::rights::{People, Reading};
use crate::store::other_rights::Model;
use crate::store::{instant, members};

/// Members that are named.
const NAMED: usize = 1_000;

/// The parts of a preview that the estimate needs as well.
pub(super) struct Previewed<'a> {
    pub planned: &'a Planned,
    set: &'a BTreeMap<String, i64>,
    rights: Vec<&'a Model>,
    complete: bool,
    conflicts: Vec<api::Conflict>,
    /// Whoever has no user that would be theirs alone.
    left_out: BTreeSet<String>,
    /// Member and group that stand by others' hands, for all time.
    by_hand: BTreeSet<(&'a str, i64)>,
}

impl<'a> Previewed<'a> {
    pub(super) fn new(
        planned: &'a Planned,
        set: &'a BTreeMap<String, i64>,
        reading: &'a Reading,
        people: &People,
    ) -> Result<Self, DbErr> {
        let groups: BTreeSet<i64> = set.values().copied().collect();
        let rights = reading.rights.iter();
        let rights: Vec<&Model> = rights.filter(|right| opens(right, &groups)).collect();
        let by_hand = rights
            .iter()
            .filter(|right| right.is_plain(&groups))
            .filter(|right| right.valid_from.is_none() && right.valid_until.is_none())
            .filter_map(|right| Some((right.member_id.as_deref()?, right.target_id)))
            .collect();
        let mut shown = Self {
            planned,
            set,
            rights,
            // Who else is in a group that is too long nobody can tell.
            complete: reading.complete && planned.observed.too_long().is_empty(),
            conflicts: conflicts(&planned.view.members),
            left_out: BTreeSet::new(),
            by_hand,
        };
        shown.find_conflicts(people)?;
        Ok(shown)
    }

    /// E-mails that clash: what past attempts found, and what future ones would.
    fn find_conflicts(&mut self, people: &People) -> Result<(), DbErr> {
        let members = &self.planned.view.members;
        for conflict in &self.conflicts {
            self.left_out.extend(conflict.member_ids.first().cloned());
        }
        let mut placed = BTreeSet::new();
        let mut let_in = BTreeSet::new();
        for member in members.iter().filter(|member| !member.erased) {
            if member.kisi_user_id.is_some() {
                placed.insert(member.member_id.as_str());
            }
            if member
                .plans()?
                .iter()
                .any(|p| self.set.contains_key(&p.plan_id))
            {
                let_in.insert(member.member_id.as_str());
            }
        }
        for right in self.rights.iter().filter(|right| right.is_staff()) {
            let Some(member) = right.member_id.as_deref().filter(|id| let_in.contains(id)) else {
                continue;
            };
            // Whoever has rights of ours keeps them.
            if !placed.contains(member) && self.left_out.insert(member.to_owned()) {
                let members = vec![member.to_owned()];
                self.conflicts.push(conflict("kisi_staff", members));
            }
        }
        for twins in people.twins() {
            self.add_twins(twins, &placed, &let_in);
        }
        Ok(())
    }

    /// Of members with one e-mail the one who has its user keeps it, else the first gets it.
    fn add_twins(&mut self, twins: &[String], placed: &BTreeSet<&str>, let_in: &BTreeSet<&str>) {
        let mut twins: Vec<&String> = twins
            .iter()
            .filter(|id| placed.contains(id.as_str()) || let_in.contains(id.as_str()))
            .collect();
        twins.sort_by_key(|id| (!placed.contains(id.as_str()), *id));
        let known = |id: &String| self.left_out.contains(id);
        let (Some((first, others)), false) =
            (twins.split_first(), twins.iter().all(|id| known(id)))
        else {
            return;
        };
        for other in others.iter().filter(|id| let_in.contains(id.as_str())) {
            if self.left_out.insert((*other).clone()) {
                let twins = vec![(*other).clone(), (*first).clone()];
                self.conflicts.push(conflict("same_email", twins));
            }
        }
    }

    /// The rights that would really be given: member and group.
    pub(super) fn grants(&self) -> impl Iterator<Item = (&str, i64)> {
        self.planned.plan.steps.iter().filter_map(|step| {
            let Step::Grant {
                member,
                group,
                window,
            } = step
            else {
                return None;
            };
            let stands =
                *window == Window::ALWAYS && self.by_hand.contains(&(member.as_str(), group.0));
            let given = !stands && !self.left_out.contains(member.as_str());
            given.then_some((member.as_str(), group.0))
        })
    }

    /// Whether the person's user was seen at Kisi, although no row of ours names it.
    pub(super) fn is_seen(&self, member: &str) -> bool {
        let mut rights = self.rights.iter();
        rights.any(|right| {
            right.holder == crate::store::other_rights::USER
                && right.member_id.as_deref() == Some(member)
        })
    }

    /// Members whose e-mail somebody else has, or a member of staff.
    pub(super) fn is_left_out(&self, member: &str) -> bool {
        self.left_out.contains(member)
    }

    pub(super) fn into_preview(self) -> Result<api::Preview, DbErr> {
        let view = &self.planned.view;
        let grants: Vec<(&str, i64)> = self.grants().collect();
        let members_in: BTreeSet<&str> = grants.iter().map(|(member, _)| *member).collect();
        let losses = self.planned.plan.losses();
        let members_out: BTreeSet<&str> = losses
            .iter()
            .map(|member| member.as_str())
            .filter(|member| !members_in.contains(member))
            .collect();
        let revokes = self.planned.plan.steps.iter();
        let revokes = revokes.filter(|step| matches!(step, Step::Revoke { .. }));
        let observed = &self.planned.observed;
        let mut unseen = observed.too_long();
        unseen.retain(|group| self.set.values().any(|of_plan| of_plan == group));
        let opened = view.opened_in(&unseen)?;
        let by_others: BTreeSet<&str> = observed
            .opened_by_others
            .keys()
            .map(String::as_str)
            .chain(opened.iter().map(|(member, _)| *member))
            .chain(self.rights.iter().filter_map(|r| r.member_id.as_deref()))
            .collect();
        let rights: Vec<Model> = self.rights.iter().map(|right| (*right).clone()).collect();
        let read_at = wire::timestamp(instant(view.read_at));
        Ok(api::Preview {
            digest: String::new(),
            grants: count(grants.len()),
            revokes: count(revokes.count()),
            unmanaged: count(observed.unmanaged.len()),
            plans_without_group: plans_without_group(&view.members, self.set)?,
            seconds: 0,
            members_in: count(members_in.len()),
            member_ids_in: named(&members_in),
            members_out: count(members_out.len()),
            member_ids_out: named(&members_out),
            members_in_by_others: count(by_others.len()),
            member_ids_in_by_others: named(&by_others),
            other_rights: Some(api::OtherRights {
                read_at: Some(read_at),
                complete: self.complete,
                ..summary(&rights)
            }),
            requests: 0,
            conflicts: self.conflicts,
        })
    }
}

/// A member's row, by id.
pub(super) fn find<'a>(members: &'a [members::Model], id: &str) -> Option<&'a members::Model> {
    let found = members.binary_search_by(|member| member.member_id.as_str().cmp(id));
    found.ok().and_then(|place| members.get(place))
}

fn named(members: &BTreeSet<&str>) -> Vec<String> {
    members
        .iter()
        .take(NAMED)
        .map(|id| (*id).to_owned())
        .collect()
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
