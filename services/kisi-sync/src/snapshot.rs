//! One member as the tables have it: the gym's integration, what is wanted, what is ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sea_orm::{ConnectionTrait, DbErr};

use crate::sharing::{self, Shared};
use crate::steps::{self, Refused, Situation, Window};
use crate::store::members::CHANGED;
use crate::store::{applied_grants, integrations, members};

/// Read at once; changed in memory as answers come, and in the tables with them.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub integration: Arc<integrations::Model>,
    pub member: members::Model,
    pub rows: Vec<applied_grants::Model>,
    /// Assignments of `rows` that another gym's rows hold too, and what it wants of them.
    pub shared: Shared,
    /// The former user was just found to have to stay.
    pub keeps_former: bool,
    /// When it was read, microseconds since 1970; 0 once it may be behind the tables.
    pub read_at: i64,
}

/// What was read no longer ago than this is acted upon without asking the tables again, whose
/// answer would be as old by the time that Kisi hears of it. Microseconds.
const FRESH: i64 = 20_000;

impl Snapshot {
    /// None when the gym has no integration, or nobody has heard of the member.
    pub async fn load<C: ConnectionTrait>(
        db: &C,
        gym: &str,
        member: &str,
        now: i64,
    ) -> Result<Option<Self>, DbErr> {
        let Some(member_row) = members::find(db, gym, member).await? else {
            return Ok(None);
        };
        let Some(integration) = integrations::find(db, gym).await? else {
            return Ok(None);
        };
        let held = applied_grants::of_member(db, integration.organization(), gym, member).await?;
        Ok(Some(Self {
            integration: Arc::new(integration),
            member: member_row,
            rows: held.rows,
            shared: sharing::wanted_by(db, &held.others, now).await?,
            keeps_former: false,
            read_at: now,
        }))
    }

    /// The tables cannot say anything newer that would still arrive in time.
    pub fn is_fresh(&self, now: i64) -> bool {
        (0..=FRESH).contains(&(now - self.read_at))
    }

    /// The groups this member should have, by the gym's associations. A right that other gyms hold
    /// too is to be open whenever one of them wants it.
    pub fn wanted(&self, now: i64) -> Result<BTreeMap<i64, Window>, DbErr> {
        if self.member.erased {
            return Ok(BTreeMap::new());
        }
        let associations = self.integration.associations()?;
        let mut wanted = steps::wanted(&self.member.plans()?, &associations, now);
        for row in &self.rows {
            let theirs = row.assignment_id.and_then(|id| self.shared.get(&id));
            if let (Some(ours), Some(Some(theirs))) = (wanted.get_mut(&row.group_id), theirs) {
                *ours = ours.union(*theirs);
            }
        }
        Ok(wanted)
    }

    /// Whether a door is to be closed: nobody waits longer for anything.
    pub fn closes(&self, now: i64) -> Result<bool, DbErr> {
        let rows = self.rows.iter();
        let rows = rows.map(|row| (row.group_id, steps::row_window(row)));
        Ok(self.member.plans == "[]" || steps::closes(&self.wanted(now)?, rows, now))
    }

    /// Asks anew who else holds these rights, and what they want of them.
    pub async fn renew_shared<C: ConnectionTrait>(
        &mut self,
        db: &C,
        now: i64,
    ) -> Result<(), DbErr> {
        let (organization, member) = (self.integration.organization(), &self.member);
        let held =
            applied_grants::of_member(db, organization, &member.gym_id, &member.member_id).await?;
        self.shared = sharing::wanted_by(db, &held.others, now).await?;
        Ok(())
    }

    /// What the next step is decided from.
    pub fn situation<'a>(
        &'a self,
        wanted: &'a BTreeMap<i64, Window>,
        opened_by_others: &'a [i64],
        refused: &'a Refused,
        epoch: i64,
        now: i64,
    ) -> Situation<'a> {
        let grants_held = crate::held::holds_grants(self.member.held_by.as_deref());
        Situation {
            wanted,
            rows: &self.rows,
            user: self.member.kisi_user_id,
            person_changed: !self.member.erased
                && self.member.person_digest.as_deref() == Some(CHANGED),
            former_user: self
                .member
                .former_user_id
                .filter(|_| !self.keeps_former && !refused.former),
            looked: self.member.looked,
            opened_by_others,
            refused,
            held: self.member.held_by.is_some() && !grants_held,
            grants_held,
            epoch,
            now,
        }
    }

    /// Groups that stand open by our rows, without repeats.
    pub fn open_groups(&self) -> Vec<i64> {
        let groups: BTreeSet<i64> = self
            .rows
            .iter()
            .filter(|row| row.state == applied_grants::STANDING)
            .map(|row| row.group_id)
            .collect();
        groups.into_iter().collect()
    }
}
