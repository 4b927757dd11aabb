//! One attempt at settling one member: the snapshot, changed as answers come, what is not durable
//! yet, and what is to be told.

use std::collections::{BTreeMap, BTreeSet};

use kisi_client::Lane;
use kisi_client::model::RoleAssignment;
use sea_orm::DbErr;

use super::replacing::Replacing;
use super::revoke::Right;
use crate::audit::Entry;
use crate::error::Trouble;
use crate::record::{Change, Outcome};
use crate::snapshot::Snapshot;
use crate::steps::{Refused, Step, Window, row_window};
use crate::store::applied_grants::{self, STANDING};

/// One attempt at settling one member.
pub(crate) struct Attempt {
    pub snapshot: Snapshot,
    pub outcome: Outcome,
    /// Not durable yet.
    pub changes: Vec<Change>,
    /// When the last request left.
    pub sent_at: i64,
    pub refused: Refused,
    /// Groups for which Kisi said "there already" in this attempt.
    pub conflicted: BTreeSet<i64>,
    /// Of those, the ones that were asked for again because what was in the way has gone.
    pub made_way: BTreeSet<i64>,
    /// Rights that were taken away to be given anew, by group.
    pub replaced: BTreeMap<i64, Right>,
    /// While one of them is not given yet.
    pub replacing: Option<Replacing>,
    /// The user whom Kisi did not know by the id in this attempt: not taken again, whoever lists it.
    pub gone_user: Option<i64>,
    /// Something was sent for her before of which nobody knows what came.
    pub was_doubtful: bool,
    /// Whoever is to be counted before her has been waited for.
    pub let_others_first: bool,
    /// A DELETE was not answered: the right may be gone.
    pub delete_unanswered: bool,
    pub background: bool,
    /// Rights given by an earlier version than the one under way: nothing that goes by this one is
    /// replaced by them.
    pub granted_before: u32,
    /// What was done could not be written down, because others have the lease.
    pub lease_lost: bool,
}

impl Attempt {
    pub(super) fn grant_lane(&self, replaces: bool) -> Lane {
        let (revoked, windows) = (self.outcome.revoked > 0, self.outcome.windows > 0);
        match self.background {
            // A right was taken away to be given anew: until then a door is shut.
            _ if windows => Lane::Revoke,
            true => Lane::Reconcile,
            // A revoke waits for this grant.
            false if replaces || revoked => Lane::Revoke,
            false => Lane::Grant,
        }
    }

    /// Whether the step shuts a door that is to open later: by the window of the right, or by taking away
    /// the one whose window could not be changed.
    pub(super) fn shuts(&self, step: &Step, now: i64) -> Result<bool, DbErr> {
        let (row, wanted) = match step {
            Step::ChangeWindow { row, window, .. } => (row, Some(*window)),
            Step::RemoveDuplicate { row, group } => {
                (row, self.snapshot.wanted(now)?.get(group).copied())
            }
            _ => return Ok(false),
        };
        let stands = self.row(*row).map(row_window);
        Ok(wanted
            .zip(stands)
            .is_some_and(|(wanted, stands)| wanted.shuts(stands, now)))
    }

    pub(super) fn fails(&mut self, failure: &'static str, retry_at: Option<i64>) {
        self.outcome.failure = Some(failure);
        self.outcome.stays_pending = true;
        self.outcome.retry_at = retry_at;
    }

    pub(super) fn sends(&mut self, now: i64) {
        self.outcome.requests += 1;
        self.outcome.sent_at.get_or_insert(now);
        self.sent_at = now;
    }

    /// Kisi has answered the request sent last; written down with its answer.
    pub(super) fn did(&mut self, entry: Entry, now: i64) {
        let entry = entry.of(&self.snapshot.member).between(self.sent_at, now);
        self.changes.push(Change::Did(Box::new(entry)));
    }

    /// No answer came, and Kisi may have done it.
    pub(super) fn may_have_done(&mut self, entry: Entry) {
        let mut entry = entry.of(&self.snapshot.member);
        entry.action = "unanswered".to_owned();
        entry.sent_at = Some(self.sent_at);
        self.changes.push(Change::Did(Box::new(entry)));
    }

    pub(super) fn row(&self, id: i64) -> Option<&applied_grants::Model> {
        self.snapshot.rows.iter().find(|row| row.id == id)
    }

    pub(super) fn remove_row(&mut self, id: i64) {
        self.snapshot.rows.retain(|row| row.id != id);
        self.changes
            .retain(|change| !matches!(change, Change::Row(row) if row.id == id));
        self.changes.push(Change::RemoveRow(id));
    }

    pub(super) fn edit_row(&mut self, id: i64, edit: impl FnOnce(&mut applied_grants::Model)) {
        if let Some(row) = self.snapshot.rows.iter_mut().find(|row| row.id == id) {
            edit(row);
            self.changes.push(Change::Row(row.clone()));
        }
    }

    pub(super) fn set_state(&mut self, id: i64, state: &str) {
        self.edit_row(id, |row| row.state = state.to_owned());
    }

    /// Kisi has it: its id, and the window as it was asked for or found.
    pub(super) fn complete(&mut self, id: i64, made: &RoleAssignment, window: Window) {
        self.edit_row(id, |row| {
            row.state = STANDING.to_owned();
            row.assignment_id = Some(made.id);
            row.valid_from = window.from;
            row.valid_until = window.until;
        });
    }

    pub(super) fn refuse(
        &mut self,
        row: i64,
        group: i64,
        failure: &'static str,
        code: Option<String>,
    ) {
        self.remove_row(row);
        self.refused.groups.insert(group);
        self.is_refused(failure, code);
    }

    /// The right stays as it is, until a pass finds room or it ends.
    pub(super) fn keeps_window(&mut self, row: i64, code: Option<String>) {
        self.refused.rows.insert(row);
        self.is_refused("kisi_refused", code);
    }

    /// When the first right ends that could not be given a later end: from then on another may be given in
    /// its place, because nothing is lost by taking it away.
    pub(super) fn first_kept_end(&self, now: i64) -> Result<Option<i64>, DbErr> {
        if self.refused.rows.is_empty() {
            return Ok(None);
        }
        let wanted = self.snapshot.wanted(now)?;
        let kept = self.refused.rows.iter().filter_map(|id| self.row(*id));
        let ends = kept.filter_map(|row| {
            let later = wanted.get(&row.group_id)?.until;
            let end = row_window(row).until?;
            (end > now && later.is_none_or(|later| later > end)).then_some(end)
        });
        Ok(ends.min())
    }

    /// What is told of a refusal.
    pub(super) fn is_refused(&mut self, failure: &'static str, code: Option<String>) {
        self.outcome.failure = Some(failure);
        self.outcome.kisi_code = code;
    }

    /// A step that Kisi refused is not taken again in this attempt, and keeps no other from being
    /// taken. Any other trouble ends the attempt.
    pub(super) fn put_aside(&mut self, step: Step, trouble: Trouble) -> Result<(), Trouble> {
        let Trouble::Refused { failure, code } = trouble else {
            return Err(trouble);
        };
        match step {
            Step::FindUser | Step::Look | Step::CheckPerson | Step::Intend(_) => {
                self.refused.person = true;
            }
            Step::LeaveFormer => self.refused.former = true,
            Step::Grant { row, group } => self.refuse(row, group, failure, None),
            Step::Forget { row }
            | Step::ChangeWindow { row, .. }
            | Step::RemoveDuplicate { row, .. } => {
                self.refused.rows.insert(row);
            }
            Step::Revoke { row, .. } => {
                self.refused.rows.insert(row);
                self.refused.revoke = true;
            }
        }
        self.is_refused(failure, code);
        Ok(())
    }
}
