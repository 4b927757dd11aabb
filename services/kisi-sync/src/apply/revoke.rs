//! Revoking: exactly one request for a row whose id is known. A repeat is harmless, so a lost answer
//! needs no look, unless the row is wanted again by then, or may not go any more. The brake is asked
//! before, and counts after.

use kisi_client::{Deletion, KisiError, KisiWrite, Lane, Turn};
use sea_orm::{EntityTrait, TransactionTrait};

use super::{Attempt, Engine};
use crate::audit::Entry;
use crate::error::Trouble;
use crate::record::Change;
use crate::steps::row_window;
use crate::store::applied_grants;
use crate::store::members::{self, Cause, SHARED_RIGHT};
use crate::worker::{Job, Urgency};
use crate::{hints, sharing};

/// A right at Kisi.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Right {
    pub assignment: i64,
    pub group: i64,
    pub user: i64,
}

impl Right {
    /// What a row of ours stands for.
    pub(super) fn of(row: &applied_grants::Model) -> Option<Self> {
        Some(Self {
            assignment: row.assignment_id?,
            group: row.group_id,
            user: row.kisi_user_id,
        })
    }
}

impl Engine {
    pub(super) async fn revoke(&self, attempt: &mut Attempt, row: i64) -> Result<(), Trouble> {
        let now = self.shared.now();
        let loss = loss(attempt, row, now);
        let member = attempt.snapshot.member.member_id.clone();
        if self.doubts.is_taken(&member) {
            // What is gone cannot be left to others, and who died after taking it has told nobody.
            attempt.snapshot.renew_shared(&self.shared.db, now).await?;
            let assignment = attempt.row(row).and_then(|row| row.assignment_id);
            let is_shared = assignment.is_some_and(|id| attempt.snapshot.shared.contains_key(&id));
            if is_shared && self.is_taken(attempt, row, Lane::Revoke).await? {
                return Ok(());
            }
        }
        if loss.is_some() && !std::mem::replace(&mut attempt.let_others_first, true) {
            self.doubts.others_first(&member).await;
        }
        let going = loss.and_then(|class| self.brake.let_go(&member, class, now));
        self.doubts.decide(&member);
        if let (Some(class), None) = (loss, &going) {
            // What went before anybody could write that down is gone already, and counts.
            if let Some(_asked) = self.doubts.ask_for(&member)
                && self.is_taken(attempt, row, Lane::Reconcile).await?
            {
                return Ok(());
            }
            return self.hold(attempt, class).await;
        }
        let revoked = self.delete(attempt, row, "revoked", Lane::Revoke).await;
        match &revoked {
            Ok(true) => self.count_revoke(attempt, loss),
            // Not where the answer to another request was lost.
            Err(_) if attempt.delete_unanswered => self.count_loss(attempt, loss),
            Ok(false) | Err(_) => {}
        }
        drop(going);
        revoked.map(drop)
    }

    /// One right less; a loss of access counts for the brake.
    pub(super) fn count_revoke(&self, attempt: &mut Attempt, loss: Option<&'static str>) {
        attempt.outcome.revoked += 1;
        if loss.is_some() {
            self.brake.removed();
        }
        self.count_loss(attempt, loss);
    }

    /// Written down with what is known of the right: that it is gone, or that nobody knows. Of a member
    /// who is counted again only the last one counts.
    pub(super) fn count_loss(&self, attempt: &mut Attempt, loss: Option<&'static str>) {
        if let Some(class) = loss {
            let member = &attempt.snapshot.member.member_id;
            self.brake.lost(member, class, self.shared.now());
            attempt.changes.push(Change::Lost { class });
        }
    }

    /// DELETE of a row of ours; a right that another gym of the organization shares is left to it.
    /// Answers whether it is over. `action` is what the audit log calls it.
    pub(super) async fn delete(
        &self,
        attempt: &mut Attempt,
        row: i64,
        action: &'static str,
        lane: Lane,
    ) -> Result<bool, Trouble> {
        let Some(model) = attempt.row(row) else {
            return Ok(false);
        };
        let (group, user) = (model.group_id, model.kisi_user_id);
        let Some(assignment) = model.assignment_id else {
            attempt.remove_row(row);
            return Ok(true);
        };
        let turn = self.turn(attempt, lane).await?;
        // While this waited others may have taken it up. What others hold too is asked for after our own
        // version is there for them to see, or two that go at once would leave it to each other.
        let now = self.shared.now();
        let is_shared = attempt.snapshot.shared.contains_key(&assignment);
        if is_shared || !attempt.snapshot.is_fresh(now) {
            attempt.snapshot.renew_shared(&self.shared.db, now).await?;
            self.may_send()?;
        }
        // What others hold and do not want either is not left to them: they may not get to it.
        let theirs = attempt.snapshot.shared.get(&assignment).copied().flatten();
        let is_over = match theirs {
            Some(theirs) => {
                self.leave_to_others(attempt, turn, row, theirs).await?
                    && self.is_left(attempt, row, assignment).await?
            }
            None => {
                let is_gone = self
                    .delete_in_turn(attempt, turn, group, assignment, action)
                    .await?;
                if is_gone {
                    let right = Right {
                        assignment,
                        group,
                        user,
                    };
                    self.tell_who_joined(attempt, right).await?;
                }
                is_gone
            }
        };
        if is_over {
            attempt.remove_row(row);
            // Any other of hers may be gone as well.
            if attempt.snapshot.open_groups().is_empty() {
                self.doubts.settle_taken(&attempt.snapshot.member.member_id);
            }
        }
        Ok(is_over)
    }

    /// Gives our own row up while others want the right, who cannot do the same meanwhile: nobody would hold
    /// it then. Answers whether it is; if not, they have left it to us.
    async fn is_left(
        &self,
        attempt: &mut Attempt,
        row: i64,
        assignment: i64,
    ) -> Result<bool, Trouble> {
        let (db, now) = (&self.shared.db, self.shared.now());
        let organization = attempt.snapshot.integration.organization();
        let txn = db.begin().await?;
        if !self.lease.keep(&txn).await? {
            attempt.lease_lost = true;
            return Err(Trouble::NotOwner);
        }
        let mut rows = applied_grants::lock_assignment(&txn, organization, assignment).await?;
        // Another member of this gym may hold it too, while an e-mail moves from one to the other.
        rows.retain(|held| held.id != row);
        let theirs = sharing::wanted_by(&txn, &rows, now).await?;
        let is_wanted = theirs.get(&assignment).copied().flatten().is_some();
        if is_wanted {
            applied_grants::Entity::delete_by_id(row).exec(&txn).await?;
        }
        txn.commit().await?;
        attempt.snapshot.shared.remove(&assignment);
        attempt.snapshot.shared.extend(theirs);
        Ok(is_wanted)
    }

    /// All others who hold the right that is gone are looked at again: some took it up while its DELETE was
    /// on its way, and who does not want it now may want it by the time that her replica comes to her. So
    /// is whoever has asked for one there and knows no answer: she may have found this one.
    pub(super) async fn tell_who_joined(
        &self,
        attempt: &Attempt,
        right: Right,
    ) -> Result<(), Trouble> {
        let (db, now) = (&self.shared.db, self.shared.now());
        let organization = attempt.snapshot.integration.organization();
        let member = &attempt.snapshot.member;
        let Right {
            assignment,
            group,
            user,
        } = right;
        let mut joined = applied_grants::of_user(db, organization, user).await?;
        joined.retain(|row| match row.assignment_id {
            Some(held) => held == assignment,
            None => row.group_id == group,
        });
        joined.retain(|row| row.gym_id != self.gym || row.member_id != member.member_id);
        if joined.is_empty() {
            return Ok(());
        }
        let cause = Cause::new(SHARED_RIGHT, &assignment.to_string(), None);
        let txn = db.begin().await?;
        for row in &joined {
            members::look_again(&txn, &row.gym_id, &row.member_id, &cause, now).await?;
            hints::give(&txn, &row.gym_id, &row.member_id, Urgency::Grant).await?;
        }
        txn.commit().await?;
        for row in &joined {
            let job = Job::look(&row.member_id, Urgency::Grant);
            self.shared.workers.wake(&row.gym_id, job);
        }
        Ok(())
    }

    /// DELETE; answers whether it is gone. Only a limit leaves it standing.
    pub(super) async fn delete_in_turn(
        &self,
        attempt: &mut Attempt,
        turn: Turn,
        group: i64,
        assignment: i64,
        action: &'static str,
    ) -> Result<bool, Trouble> {
        attempt.sends(self.shared.now());
        self.bursts.wrote(&attempt.snapshot.member.member_id);
        let answer = self
            .kisi
            .delete_role_assignment(turn.into(), assignment)
            .await;
        let entry = Entry::new(action).request("DELETE /role_assignments/{id}", &[]);
        let entry = entry.group(group).object(assignment);
        match answer {
            Ok(Deletion::Deleted) => {
                self.brake.wrote(group);
                attempt.did(entry, self.shared.now());
                Ok(true)
            }
            Ok(Deletion::AlreadyGone) => {
                attempt.did(entry.detail("gone_before"), self.shared.now());
                Ok(true)
            }
            Err(KisiError::RateLimited { .. }) => Ok(false),
            Err(error) => {
                if error.is_outcome_unknown() {
                    attempt.may_have_done(entry);
                    attempt.delete_unanswered = true;
                    self.doubts.note_taken(&attempt.snapshot.member.member_id);
                }
                Err(self.trouble(error).await)
            }
        }
    }
}

/// The class in which it counts, if access is lost by it: a replacement is no loss, nor is what has
/// ended by its window.
pub(super) fn loss(attempt: &Attempt, row: i64, now: i64) -> Option<&'static str> {
    let has_ended = |row| row_window(row).has_ended(now);
    let is_replaced = attempt.outcome.granted > attempt.granted_before;
    let is_loss = !is_replaced && !attempt.row(row).is_some_and(has_ended);
    class(attempt).filter(|_| is_loss)
}

/// The class of what is lost in this attempt; a change that a person confirmed is not counted.
pub(super) fn class(attempt: &Attempt) -> Option<&'static str> {
    let member = &attempt.snapshot.member;
    let cause = member.cause().kind;
    // Who confirms a move confirms no loss, and Kisi has refused what was to come first; who approves
    // a held plan approves the loss itself.
    let is_approved =
        member.approved && (!attempt.refused.keeps_out() || cause == members::HELD_PLAN);
    // In the background the newest version is not why.
    let is_confirmed = is_approved || (cause == "confirmed_import" && !attempt.background);
    let class = match member.is_explained() {
        true => "explained",
        false => "unexplained",
    };
    (!is_confirmed).then_some(class)
}
