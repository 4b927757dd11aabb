//! Looking at one person's rights: before a first grant, and after an answer was lost.
//!
//! A row that was sent and not answered is ours if it stands there, made by the owner of the key that
//! we had then since we meant to send it, and known to none of our rows. Everything else on our groups is others'
//! doing: it is left, shown, and never claimed closed.

use std::collections::BTreeSet;

use kisi_client::model::{AppliesToType, AssignmentFilter, NewGroupAssignment, RoleAssignment};
use kisi_client::{KisiRead, Lane};

use super::grant::GRANT;
use super::revoke::{Right, loss};
use super::window::found_window;
use super::{Attempt, Engine};
use crate::audit::{Entry, UNDONE};
use crate::error::Trouble;
use crate::record::Change;
use crate::sharing::CLOCKS_DIFFER_BY;
use crate::steps::{is_unsettled, row_window};
use crate::store::applied_grants::{self, INTENDED, STANDING};
use crate::store::members::CHANGED;
use crate::store::{key_checks, micros};
use crate::undone;

impl Engine {
    pub(crate) async fn look(&self, attempt: &mut Attempt, lane: Lane) -> Result<(), Trouble> {
        // A row whose answer was lost may be one of a former user.
        let rows = &attempt.snapshot.rows;
        let epoch = self.lease.epoch();
        let lost = rows.iter().find(|row| is_unsettled(row, epoch));
        let user = lost
            .map(|row| row.kisi_user_id)
            .or(attempt.snapshot.member.kisi_user_id)
            .or(rows.first().map(|row| row.kisi_user_id));
        let Some(user) = user else {
            return Ok(());
        };
        attempt.sends(self.shared.now());
        let of_user = AssignmentFilter::User(user);
        let listing = self.kisi.list_role_assignments(lane, of_user);
        let listing = match self.ask_first(attempt, listing).await {
            // Who is not there has none; a grant will say so too, and makes the user anew.
            Err(refusal @ Trouble::Refused { .. }) => {
                attempt.outcome.requests += 1;
                if self.ask(self.kisi.find_user(lane, user)).await?.is_some() {
                    return Err(refusal);
                }
                Vec::new()
            }
            listing => {
                let listing = listing?;
                if !listing.complete {
                    return Err(Trouble::Unclear);
                }
                listing.items
            }
        };
        let rights: Vec<RoleAssignment> = listing
            .into_iter()
            .filter(|right| right.assignee_id == user)
            .collect();
        // Before a first grant only: what we gave before is still ours to take back.
        let rows = &attempt.snapshot.rows;
        if rows.iter().all(|row| row.kisi_user_id != user) && rights.iter().any(is_staff) {
            return self.conflict(attempt, "kisi_staff".to_owned());
        }
        self.doubt_user(attempt, lane, user, &rights).await?;
        self.settle_unsettled(attempt, lane, user, &rights).await?;
        self.settle_moved(attempt, &rights)?;
        self.settle_missing(attempt, lane, user, &rights).await?;
        if attempt
            .snapshot
            .member
            .kisi_user_id
            .is_none_or(|known| known == user)
        {
            self.note_others(attempt, lane, user, &rights).await?;
            attempt.snapshot.member.looked = true;
            self.doubts.settle_taken(&attempt.snapshot.member.member_id);
        }
        attempt.changes.push(Change::Person);
        Ok(())
    }

    /// Rights that name nobody may be those of a user who was deleted: then they open nothing, and the
    /// next step makes another one.
    async fn doubt_user(
        &self,
        attempt: &mut Attempt,
        lane: Lane,
        user: i64,
        rights: &[RoleAssignment],
    ) -> Result<(), Trouble> {
        let names_nobody = rights.iter().any(|right| right.assignee.is_none());
        if names_nobody && attempt.snapshot.member.kisi_user_id == Some(user) {
            attempt.outcome.requests += 1;
            if self.ask(self.kisi.find_user(lane, user)).await?.is_none() {
                attempt.snapshot.member.person_digest = Some(CHANGED.to_owned());
            }
        }
        Ok(())
    }

    /// Rows whose answer is not known: found at Kisi, or certainly not applied.
    async fn settle_unsettled(
        &self,
        attempt: &mut Attempt,
        lane: Lane,
        user: i64,
        rights: &[RoleAssignment],
    ) -> Result<(), Trouble> {
        let owner = attempt.snapshot.integration.owner_user_id;
        let mut known = known_assignments(&attempt.snapshot.rows);
        let unsettled: Vec<applied_grants::Model> = attempt
            .snapshot
            .rows
            .iter()
            .filter(|row| row.state != STANDING && row.kisi_user_id == user)
            .cloned()
            .collect();
        let former = match unsettled.is_empty() {
            true => Vec::new(),
            false => key_checks::former_owners(&self.shared.db, &self.gym).await?,
        };
        for row in unsettled {
            // Whose key may have sent it.
            let is_by_ours = |by: Option<i64>| {
                let mut before = former.iter();
                owner.is_none()
                    || by == owner
                    || before.any(|(id, until)| by == Some(*id) && *until >= row.intended_at)
            };
            let found = rights.iter().find(|right| {
                right.user_on_group(row.group_id).is_some()
                    && right.role_id == NewGroupAssignment::BASIC_ROLE
                    && !known.contains(&right.id)
                    && is_by_ours(right.created_by_id)
                    && right
                        .created_at
                        .is_none_or(|at| micros(at) >= row.intended_at - CLOCKS_DIFFER_BY)
            });
            match found {
                Some(right) => {
                    known.insert(right.id);
                    attempt.complete(row.id, right, found_window(right));
                    // It was made, and its answer not heard.
                    let found = Entry::new("granted").request("GET /role_assignments", &[]);
                    let found = found.group(row.group_id).object(right.id);
                    attempt.did(found.detail("found"), self.shared.now());
                    // By whomever, and told by nobody yet.
                    attempt.outcome.granted += 1;
                    let window = found_window(right);
                    self.note_given(attempt, row.group_id, right.id, window)
                        .await?;
                }
                None => {
                    let on_group = |right: &RoleAssignment| right.user_on_group(row.group_id);
                    let is_refused = attempt.conflicted.contains(&row.group_id)
                        && (rights.iter().any(|right| on_group(right).is_some())
                            || !self.remove_hidden(attempt, lane, row.group_id).await?);
                    if is_refused {
                        attempt.refuse(row.id, row.group_id, "kisi_refused", None);
                        self.try_beside_others(attempt).await?;
                        continue;
                    }
                    let epoch = self.lease.epoch();
                    if row.state == INTENDED && row.epoch != epoch {
                        // Whoever meant to send it did not live to say whether it was, and what was made
                        // may be gone again.
                        let lost = Entry::new("unanswered").request(GRANT, &[]);
                        let lost = lost.group(row.group_id).of(&attempt.snapshot.member);
                        attempt.changes.push(Change::Did(Box::new(lost)));
                    }
                    attempt.edit_row(row.id, |row| {
                        row.state = INTENDED.to_owned();
                        row.epoch = epoch;
                    });
                }
            }
        }
        Ok(())
    }

    /// Rows of ours whose window is not what it was: the next step puts it right.
    fn settle_moved(
        &self,
        attempt: &mut Attempt,
        rights: &[RoleAssignment],
    ) -> Result<(), Trouble> {
        let now = self.shared.now();
        let wanted = attempt.snapshot.wanted(now)?;
        let may_be_ours = self.may_be_taken(&attempt.snapshot.member);
        for right in rights {
            let window = found_window(right);
            let moved = attempt.snapshot.rows.iter().find(|row| {
                row.assignment_id == Some(right.id)
                    && row.state == STANDING
                    && !row_window(row).opens_like(window, now)
            });
            let Some(row) = moved.cloned() else {
                continue;
            };
            attempt.edit_row(row.id, |row| {
                row.valid_from = window.from;
                row.valid_until = window.until;
            });
            let wanted = wanted.get(&row.group_id).copied();
            let entry = undone::window(&row, window, wanted, now).filter(|_| !may_be_ours);
            if let Some(entry) = entry {
                let entry = entry.of(&attempt.snapshot.member);
                attempt.changes.push(Change::Did(Box::new(entry)));
            }
        }
        Ok(())
    }

    /// Rows of ours that the list lacks: gone only if Kisi does not know their ids either. Past its
    /// end a row may be hidden, and is kept until it is not wanted any more.
    async fn settle_missing(
        &self,
        attempt: &mut Attempt,
        lane: Lane,
        user: i64,
        rights: &[RoleAssignment],
    ) -> Result<(), Trouble> {
        let listed: BTreeSet<i64> = rights.iter().map(|right| right.id).collect();
        let lacking: Vec<(i64, Right)> = attempt
            .snapshot
            .rows
            .iter()
            .filter(|row| row.state == STANDING && row.kisi_user_id == user)
            .filter(|row| !row_window(row).has_ended(self.shared.now()))
            .filter_map(|row| Some((row.id, Right::of(row)?)))
            .filter(|(_, right)| !listed.contains(&right.assignment))
            .collect();
        for (row, right) in lacking {
            if self.is_gone(attempt, lane, right.assignment).await? {
                // Whoever took it away may not have lived to tell them.
                self.tell_who_joined(attempt, right).await?;
                if self.may_be_taken(&attempt.snapshot.member) {
                    self.note_taken(attempt, row, right);
                } else {
                    let entry = Entry::new(UNDONE).group(right.group);
                    let entry = entry.object(right.assignment);
                    let entry = entry.of(&attempt.snapshot.member);
                    attempt.changes.push(Change::Did(Box::new(entry)));
                    attempt.remove_row(row);
                }
                // The last answer named it.
                attempt.snapshot.member.tell_again();
            }
        }
        Ok(())
    }

    /// It was removed by us, and nobody heard the answer.
    fn note_taken(&self, attempt: &mut Attempt, row: i64, right: Right) {
        let gone = Entry::new("revoked").request("GET /role_assignments/{id}", &[]);
        let gone = gone.group(right.group).object(right.assignment);
        attempt.did(gone.detail("found_gone"), self.shared.now());
        self.brake.wrote(right.group);
        let loss = loss(attempt, row, self.shared.now());
        self.count_revoke(attempt, loss);
        attempt.remove_row(row);
    }

    /// Whether a right that may be gone is, and so was removed by us. Nobody waits for that.
    pub(super) async fn is_taken(
        &self,
        attempt: &mut Attempt,
        row: i64,
        lane: Lane,
    ) -> Result<bool, Trouble> {
        let Some(right) = attempt.row(row).and_then(Right::of) else {
            return Ok(false);
        };
        attempt.sends(self.shared.now());
        let read = self.kisi.find_role_assignment(lane, right.assignment);
        let is_gone = self.ask_first(attempt, read).await?.is_none();
        if is_gone {
            self.tell_who_joined(attempt, right).await?;
            self.note_taken(attempt, row, right);
        }
        Ok(is_gone)
    }

    pub(super) async fn is_gone(
        &self,
        attempt: &mut Attempt,
        lane: Lane,
        assignment: i64,
    ) -> Result<bool, Trouble> {
        attempt.outcome.requests += 1;
        let found = self.ask(self.kisi.find_role_assignment(lane, assignment));
        Ok(found.await?.is_none())
    }
}

/// Whether a right is one over an organization or a place. No published fact says whether Kisi gives
/// each of its users a basic one there; that would make nobody staff.
fn is_staff(right: &RoleAssignment) -> bool {
    let over_all = matches!(
        right.applies_to_type,
        AppliesToType::Organization | AppliesToType::Place
    );
    over_all && !right.role_id.ends_with("_basic")
}

pub(super) fn known_assignments(rows: &[applied_grants::Model]) -> BTreeSet<i64> {
    rows.iter().filter_map(|row| row.assignment_id).collect()
}
