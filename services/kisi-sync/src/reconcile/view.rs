//! The gym as the tables have it, and the plan that follows from it and from what was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use access_domain::grant::{DesiredGrants, Holder, ObservedGrant, Window};
use access_domain::ids::{GroupId, MemberId};
use access_domain::plan::{self, Plan, Policy, Step, Unmanaged};
use kisi_client::{HttpKisi, Lane};
use sea_orm::DbErr;

use super::ReconcileError;
use crate::brake::Brake;
use crate::held;
use crate::key_check;
use crate::observe::{self, GroupsSeen, Known, Observed};
use crate::shared::Shared;
use crate::sharing::{self, Elsewhere, Shared as Shares};
use crate::steps;
use crate::store::{applied_grants, instant, integrations, members};

/// The attention for a group that Kisi does not know any more.
pub const GROUP_MISSING: &str = "group_missing";

/// The gym as the tables have it.
pub struct View {
    pub integration: integrations::Model,
    pub members: Vec<members::Model>,
    pub rows: Vec<applied_grants::Model>,
    /// When the tables were read.
    pub read_at: i64,
    /// Groups that were asked for before the look.
    pub groups: GroupsSeen,
    /// Whether the lists of a look are kept.
    pub keeps_lists: bool,
    /// What other gyms of the organization have.
    elsewhere: Elsewhere,
    /// Those of them that this gym holds too, and what the others want of them.
    shared: Shares,
    /// The gym's counts, where it is worked on here.
    brake: Option<Arc<Brake>>,
}

impl View {
    pub async fn read(shared: &Shared, integration: integrations::Model) -> Result<Self, DbErr> {
        let gym = integration.gym_id.clone();
        let integration = integrations::find(&shared.db, &gym)
            .await?
            .unwrap_or(integration);
        let organization = integration.organization();
        let members = members::list(&shared.db, &gym).await?;
        let rows = applied_grants::of_gym(&shared.db, organization, &gym).await?;
        let elsewhere = Elsewhere::of_gym(&shared.db, organization, &gym).await?;
        let read_at = shared.now();
        // To find those that two gyms hold, all of the organization's are gone through.
        let others = match elsewhere.is_empty() {
            true => Vec::new(),
            false => applied_grants::of_others(&shared.db, organization, &gym).await?,
        };
        Ok(Self {
            integration,
            members,
            rows,
            read_at,
            groups: GroupsSeen::default(),
            keeps_lists: false,
            shared: sharing::wanted_by(&shared.db, &others, read_at).await?,
            elsewhere,
            brake: shared.workers.brake(&gym),
        })
    }

    pub fn associations(&self) -> Result<BTreeMap<String, i64>, DbErr> {
        self.integration.associations()
    }

    /// Lists the groups of the associations, and those where rows of ours stand.
    pub async fn observe(
        &self,
        kisi: &HttpKisi,
        lane: Lane,
        now: i64,
    ) -> Result<Observed, ReconcileError> {
        let mut groups: BTreeSet<i64> = self.associations()?.into_values().collect();
        groups.extend(self.rows.iter().map(|row| row.group_id));
        let mut observed = self.observe_groups(kisi, lane, &groups, now).await?;
        let Some(why) = observed.saw_nothing() else {
            return Ok(observed);
        };
        let error = observed.failed.swap_remove(why);
        if let (Some(403), Some(owner)) = (error.1.status(), self.integration.owner_user_id) {
            observed.requests += 1;
            if key_check::still_may(kisi, lane, owner).await? {
                observed.failed.insert(why, error);
                return Ok(observed);
            }
        }
        Err(error.1.into())
    }

    /// Lists these groups.
    pub async fn observe_groups(
        &self,
        kisi: &HttpKisi,
        lane: Lane,
        groups: &BTreeSet<i64>,
        now: i64,
    ) -> Result<Observed, ReconcileError> {
        let known = Known {
            brake: self.brake.as_deref(),
            rows: &self.rows,
            members: &self.members,
            elsewhere: &self.elsewhere,
            read_at: self.read_at,
            now,
            groups: &self.groups,
            suspected: self.suspected()?,
            wanted: self.wanted(now)?,
            keeps_lists: self.keeps_lists,
        };
        Ok(observe::observe(kisi, lane, groups, &known).await?)
    }

    /// Groups that were gone at the last look.
    fn suspected(&self) -> Result<BTreeSet<i64>, DbErr> {
        let attention = self.integration.attention()?.into_iter();
        let missing = attention.filter(|matter| matter.what == GROUP_MISSING);
        Ok(missing.filter_map(|it| it.subject.parse().ok()).collect())
    }

    /// Groups that somebody should be in.
    fn wanted(&self, now: i64) -> Result<BTreeSet<i64>, DbErr> {
        let associations = self.associations()?;
        let mut groups = BTreeSet::new();
        for member in self.members.iter().filter(|member| !member.erased) {
            groups.extend(steps::wanted(&member.plans()?, &associations, now).into_keys());
        }
        Ok(groups)
    }

    /// Members with work of their own under way, touched since `began`, or of whom it is not known what
    /// they should have.
    pub fn busy(&self, began: i64) -> BTreeSet<&str> {
        self.members
            .iter()
            // Nor is anything wanted or not wanted of whom nothing was heard.
            .filter(|member| {
                let works = member.pending && self.integration.synced;
                works || member.version == 0 || member.is_behind()
            })
            .map(|member| member.member_id.as_str())
            .chain(
                self.rows
                    .iter()
                    .filter(|row| row.updated_at >= began || row.state != applied_grants::STANDING)
                    .map(|row| row.member_id.as_str()),
            )
            .collect()
    }

    /// Members with a right of ours in one of these groups that they should not have.
    pub fn losing_in(&self, groups: &BTreeSet<i64>, now: i64) -> Result<BTreeSet<String>, DbErr> {
        let mut held: BTreeMap<&str, BTreeSet<i64>> = BTreeMap::new();
        for row in self
            .rows
            .iter()
            .filter(|row| groups.contains(&row.group_id))
        {
            held.entry(&row.member_id).or_default().insert(row.group_id);
        }
        let associations = self.associations()?;
        let mut losing = BTreeSet::new();
        for member in &self.members {
            let Some(held) = held.get(member.member_id.as_str()) else {
                continue;
            };
            let wanted = steps::wanted(&member.plans()?, &associations, now);
            if held.iter().any(|group| !wanted.contains_key(group)) {
                losing.insert(member.member_id.clone());
            }
        }
        Ok(losing)
    }

    /// Members of whom a look at these groups would have to tell what they lose, or what somebody kept
    /// from being given to them.
    pub fn undecided_in(
        &self,
        groups: &BTreeSet<i64>,
        now: i64,
    ) -> Result<BTreeSet<String>, DbErr> {
        let mut undecided = self.losing_in(groups, now)?;
        let associations = self.associations()?;
        let kept_out = |member: &&members::Model| held::holds_grants(member.held_by.as_deref());
        for member in self.members.iter().filter(kept_out) {
            let wanted = steps::wanted(&member.plans()?, &associations, now);
            if wanted.keys().any(|group| groups.contains(group)) {
                undecided.insert(member.member_id.clone());
            }
        }
        Ok(undecided)
    }

    /// Rights of ours that open nothing any more.
    pub fn ended(&self, now: i64) -> BTreeSet<i64> {
        let ended = self
            .rows
            .iter()
            .filter(|row| steps::row_window(row).has_ended(now));
        ended.filter_map(|row| row.assignment_id).collect()
    }

    /// What other gyms want of the rights that they share with this one, by member and group.
    fn wanted_by_others(&self) -> BTreeMap<(&str, i64), steps::Window> {
        let mut wanted = BTreeMap::new();
        for row in &self.rows {
            let theirs = row.assignment_id.and_then(|id| self.shared.get(&id));
            if let Some(Some(theirs)) = theirs {
                let known = wanted
                    .entry((row.member_id.as_str(), row.group_id))
                    .or_insert(*theirs);
                *known = known.union(*theirs);
            }
        }
        wanted
    }

    /// When the rights of those who hold these rows should hold, by member and group.
    pub fn wanted_of<'a>(
        &'a self,
        rows: impl Iterator<Item = &'a applied_grants::Model>,
        now: i64,
    ) -> Result<BTreeMap<(&'a str, i64), steps::Window>, DbErr> {
        let holders: BTreeSet<&str> = rows.map(|row| row.member_id.as_str()).collect();
        let mut wanted = BTreeMap::new();
        if holders.is_empty() {
            return Ok(wanted);
        }
        let (associations, theirs) = (self.associations()?, self.wanted_by_others());
        let is_holder = |member: &&members::Model| holders.contains(member.member_id.as_str());
        for member in self.members.iter().filter(is_holder) {
            let all = wanted_by_all(member, &associations, &theirs, now)?.into_iter();
            let id = member.member_id.as_str();
            wanted.extend(all.map(|(group, window)| ((id, group), window)));
        }
        Ok(wanted)
    }

    /// What would make Kisi agree. Members with work of their own under way are left out, and so
    /// is whoever was touched since `began`.
    ///
    /// Of a group that is too long to be listed our own rows are all that is known, and taken to stand:
    /// what goes there is what nothing wants any more, never what Kisi did not show.
    pub fn plan(
        &self,
        observed: &Observed,
        associations: BTreeMap<String, i64>,
        began: i64,
    ) -> Result<Plan, DbErr> {
        let busy = self.busy(began);
        let theirs = self.wanted_by_others();
        let too_long = observed.too_long();
        let opened = self.opened_in(&too_long)?;
        let mut desired = DesiredGrants::default();
        for member in &self.members {
            if member.erased || busy.contains(member.member_id.as_str()) {
                continue;
            }
            let Ok(id) = MemberId::parse(&member.member_id) else {
                continue;
            };
            for (group, window) in wanted_by_all(member, &associations, &theirs, began)? {
                let window = Window {
                    from: window.from.map(instant),
                    until: window.until.map(instant),
                };
                desired.insert(id.clone(), GroupId(group), window);
            }
        }
        let gone: BTreeSet<i64> = observed
            .gone
            .iter()
            .filter_map(|row| row.assignment_id)
            .collect();
        let adopted: BTreeSet<i64> = self
            .rows
            .iter()
            .filter_map(|row| row.assignment_id)
            .collect();
        let mut grants = observed.grants.clone();
        grants.grants.extend(self.standing_in(&too_long));
        grants.groups.extend(too_long.into_iter().map(GroupId));
        grants.grants.retain(|row| match &row.holder {
            Holder::Member(member) => {
                !busy.contains(member.as_str())
                    && !gone.contains(&row.assignment)
                    // Taken back since it was listed.
                    && (!row.ours || adopted.contains(&row.assignment))
            }
            Holder::Stranger(_) => true,
        });
        for row in &mut grants.grants {
            mark_ours(row, &adopted);
        }
        let unmanaged = match self.integration.unmanaged_policy.as_str() {
            "adopt" => Unmanaged::Adopt,
            _ => Unmanaged::Leave,
        };
        let policy = Policy { unmanaged };
        let mut plan = plan::plan(&desired, &grants, policy, instant(began));
        plan.steps.retain(|step| match step {
            Step::Grant { member, group, .. } => !opened.contains(&(member.as_str(), group.0)),
            _ => true,
        });
        Ok(plan)
    }

    /// Our own rows in these groups, as a list would have them.
    fn standing_in(&self, groups: &BTreeSet<i64>) -> impl Iterator<Item = ObservedGrant> {
        let rows = self
            .rows
            .iter()
            .filter(|row| groups.contains(&row.group_id));
        let standing = rows.filter(|row| row.state == applied_grants::STANDING);
        standing.filter_map(|row| {
            Some(ObservedGrant {
                assignment: row.assignment_id?,
                holder: Holder::Member(MemberId::parse(&row.member_id).ok()?),
                group: GroupId(row.group_id),
                window: Window {
                    from: row.valid_from.map(instant),
                    until: row.valid_until.map(instant),
                },
                ours: true,
                plain: true,
            })
        })
    }

    /// Whom others let into these groups, as it was when that was last seen: member and group.
    pub fn opened_in(&self, groups: &BTreeSet<i64>) -> Result<BTreeSet<(&str, i64)>, DbErr> {
        let mut opened = BTreeSet::new();
        if groups.is_empty() {
            return Ok(opened);
        }
        for member in &self.members {
            let theirs = member.opened_by_others()?.into_iter();
            let there = theirs.filter(|group| groups.contains(group));
            opened.extend(there.map(|group| (member.member_id.as_str(), group)));
        }
        Ok(opened)
    }
}

/// Group to window, as the member's plans and the gyms that share her rights want them.
fn wanted_by_all(
    member: &members::Model,
    associations: &BTreeMap<String, i64>,
    theirs: &BTreeMap<(&str, i64), steps::Window>,
    now: i64,
) -> Result<BTreeMap<i64, steps::Window>, DbErr> {
    if member.erased {
        return Ok(BTreeMap::new());
    }
    let mut wanted = steps::wanted(&member.plans()?, associations, now);
    for (group, window) in &mut wanted {
        if let Some(theirs) = theirs.get(&(member.member_id.as_str(), *group)) {
            *window = window.union(*theirs);
        }
    }
    Ok(wanted)
}

fn mark_ours(row: &mut ObservedGrant, adopted: &BTreeSet<i64>) {
    row.ours = row.ours || adopted.contains(&row.assignment);
}
