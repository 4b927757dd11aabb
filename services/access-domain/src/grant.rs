//! Grants: what should stand at Kisi, and what does.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::entitlement::PlanAccess;
use crate::ids::{GroupId, MemberId, PlanId};

/// When a grant opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// `None`: at once.
    pub from: Option<Timestamp>,
    /// `None`: no end is known.
    pub until: Option<Timestamp>,
}

impl Window {
    /// From now on, without an end.
    pub const ALWAYS: Self = Self {
        from: None,
        until: None,
    };

    /// Whether it opens at `now`.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }

    /// Whether both open alike from `now` on. Kisi keeps whole seconds.
    pub fn opens_like(&self, other: &Self, now: Timestamp) -> bool {
        let from = |window: &Self| {
            window
                .from
                .filter(|from| *from > now)
                .map(Timestamp::as_second)
        };
        let until = |window: &Self| window.until.map(Timestamp::as_second);
        from(self) == from(other) && until(self) == until(other)
    }

    /// Both together: the earlier start, the later end.
    pub fn join(self, other: Self) -> Self {
        Self {
            from: self.from.and_then(|a| other.from.map(|b| a.min(b))),
            until: self.until.and_then(|a| other.until.map(|b| a.max(b))),
        }
    }
}

/// Plan to group: many plans may share a group, a plan has one.
pub type Associations = BTreeMap<PlanId, GroupId>;

/// What should stand: (member, group) to window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredGrants {
    grants: BTreeMap<(MemberId, GroupId), Window>,
}

impl DesiredGrants {
    /// Adds what `member`'s plans open. Plans without a group open nothing.
    pub fn add(&mut self, member: &MemberId, plans: &[PlanAccess], associations: &Associations) {
        for access in plans {
            let Some(group) = associations.get(&access.plan) else {
                continue;
            };
            let window = Window {
                from: access.valid_from,
                until: access.valid_until,
            };
            self.insert(member.clone(), *group, window);
        }
    }

    /// Adds one grant; with one that is there already, both together.
    pub fn insert(&mut self, member: MemberId, group: GroupId, window: Window) {
        self.grants
            .entry((member, group))
            .and_modify(|held| *held = held.join(window))
            .or_insert(window);
    }

    /// The window wanted for a member in a group.
    pub fn window(&self, member: &MemberId, group: GroupId) -> Option<Window> {
        self.grants.get(&(member.clone(), group)).copied()
    }

    /// Every grant, by member and group.
    pub fn iter(&self) -> impl Iterator<Item = (&MemberId, GroupId, Window)> {
        self.grants
            .iter()
            .map(|((member, group), window)| (member, *group, *window))
    }

    /// The groups of one member.
    pub fn groups_of(&self, member: &MemberId) -> BTreeSet<GroupId> {
        self.iter()
            .filter(|(of, _, _)| *of == member)
            .map(|(_, group, _)| group)
            .collect()
    }

    pub fn len(&self) -> usize {
        self.grants.len()
    }

    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }
}

/// Who holds an observed grant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A person that is a member of ours.
    Member(MemberId),
    /// Somebody else at Kisi, a team or a guest.
    Stranger(i64),
}

/// One role assignment as Kisi holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedGrant {
    /// Kisi's id.
    pub assignment: i64,
    pub holder: Holder,
    pub group: GroupId,
    pub window: Window,
    /// Whether it stands in our own table of what we granted. Nothing at Kisi says so.
    pub ours: bool,
    /// Whether it opens the group's doors and gives nothing more, as ours do: what else somebody was
    /// trusted with is never taken over.
    pub plain: bool,
}

/// What stands: the complete rows of the groups in `groups`, and nothing of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedGrants {
    pub grants: Vec<ObservedGrant>,
    /// Groups whose listing is complete. What a listing does not hold is only then absent.
    pub groups: BTreeSet<GroupId>,
}
