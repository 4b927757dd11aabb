//! Windows: changed in place where Kisi does that, replaced where it does not.

use kisi_client::model::{NewGroupAssignment, RoleAssignment};
use kisi_client::{KisiError, KisiRead, KisiWrite, Lane, Turn};
use sea_orm::TransactionTrait;

use super::grant::granting;
use super::revoke::Right;
use super::{Attempt, Engine};
use crate::audit::Entry;
use crate::error::Trouble;
use crate::steps::{Window, row_window};
use crate::store::applied_grants::{self, INTENDED, STANDING};
use crate::store::{instant, micros};

impl Engine {
    /// PATCH, read back, and where the window did not move: replace. What other gyms hold too is
    /// asked for once more right before, so that two that decide together do not undo one another.
    pub(super) async fn change_window(
        &self,
        attempt: &mut Attempt,
        (row, group): (i64, i64),
        window: Window,
        lane: Lane,
    ) -> Result<(), Trouble> {
        let Some(model) = attempt.row(row) else {
            return Ok(());
        };
        let Some(right) = Right::of(model) else {
            return Ok(());
        };
        let Right {
            assignment, user, ..
        } = right;
        if row_window(model).has_ended(self.shared.now()) {
            // No door is open by it, and Kisi may hide it or have deleted it, so that it cannot be
            // changed: it goes, and the next steps grant another.
            let gone = self.delete(attempt, row, "replaced", Lane::Grant).await;
            return gone.map(drop);
        }
        let turn = self.turn(attempt, lane).await?;
        let now = self.shared.now();
        attempt.snapshot.renew_shared(&self.shared.db, now).await?;
        self.may_send()?;
        if attempt.snapshot.wanted(now)?.get(&group) != Some(&window) {
            // Another gym that shares it has decided meanwhile.
            return Ok(());
        }
        let found = match self
            .patch(attempt, (turn, lane), group, assignment, window)
            .await?
        {
            Patched::Limited => return Ok(()),
            Patched::Gone => {
                attempt.remove_row(row);
                self.write(attempt).await?;
                return self.tell_who_joined(attempt, right).await;
            }
            Patched::Moved(found) => found,
            Patched::AsBefore => {
                self.replace(attempt, row, window, user, lane).await?;
                let given = |row: &applied_grants::Model| {
                    row.group_id == group && row.state == STANDING && row_window(row) == window
                };
                // It was no fault of the window's.
                if self.manners.moves_windows() && attempt.snapshot.rows.iter().any(given) {
                    self.manners.note_windows_stay();
                }
                return Ok(());
            }
        };
        attempt.complete(row, &found, window);
        attempt.outcome.windows += 1;
        let moved = (assignment, assignment);
        self.tell_holders(attempt, moved, window).await
    }

    /// PATCH and a look at what came of it, where that was not in vain before.
    async fn patch(
        &self,
        attempt: &mut Attempt,
        (turn, lane): (Turn, Lane),
        group: i64,
        assignment: i64,
        window: Window,
    ) -> Result<Patched, Trouble> {
        if !self.manners.moves_windows() {
            return Ok(Patched::AsBefore);
        }
        let fields = ["notify", "valid_from", "valid_until"];
        let entry = Entry::new("window_changed")
            .request("PATCH /role_assignments/{id}", &fields)
            .group(group)
            .object(assignment);
        attempt.sends(self.shared.now());
        self.bursts.wrote(&attempt.snapshot.member.member_id);
        let patched = self
            .kisi
            .update_role_assignment_window(turn.into(), assignment, kisi_window(window))
            .await;
        match patched {
            Ok(()) => {}
            Err(KisiError::RateLimited { .. }) => return Ok(Patched::Limited),
            Err(error) if error.is_unprocessable() || error.is_not_found() => {}
            Err(error) => {
                if error.is_outcome_unknown() {
                    attempt.may_have_done(entry);
                    self.doubts.note_taken(&attempt.snapshot.member.member_id);
                }
                return Err(self.trouble(error).await);
            }
        }
        attempt.outcome.requests += 1;
        // Until it is read the rows say what was before.
        let lane = match lane {
            Lane::Reconcile => Lane::Grant,
            lane => lane,
        };
        let read = self.kisi.find_role_assignment(lane, assignment);
        let read = self.ask(read).await.inspect_err(|_| {
            let member = &attempt.snapshot.member.member_id;
            self.doubts.note_taken(member);
        });
        let Some(found) = read? else {
            return Ok(Patched::Gone);
        };
        if found.window() != kisi_window(window) {
            return Ok(Patched::AsBefore);
        }
        attempt.did(entry, self.shared.now());
        Ok(Patched::Moved(Box::new(found)))
    }

    /// New before old; where Kisi takes no second row, old and at once new, for all who hold it.
    async fn replace(
        &self,
        attempt: &mut Attempt,
        row: i64,
        window: Window,
        user: i64,
        lane: Lane,
    ) -> Result<(), Trouble> {
        let Some(old) = attempt.row(row) else {
            return Ok(());
        };
        let group = old.group_id;
        let new = self
            .insert(attempt, group, window, user, INTENDED, None)
            .await?;
        let turn = self.turn(attempt, lane).await?;
        attempt.sends(self.shared.now());
        let request = NewGroupAssignment::basic(group, user, kisi_window(window));
        match self
            .kisi
            .create_role_assignment(turn.into(), &request)
            .await
        {
            Ok(made) => {
                attempt.complete(new, &made, window);
                self.brake.wrote(group);
                let entry = granting("window_changed", group, window).object(made.id);
                attempt.did(entry, self.shared.now());
                attempt.outcome.windows += 1;
                Ok(())
            }
            Err(KisiError::RateLimited { .. }) => {
                attempt.remove_row(new);
                Ok(())
            }
            Err(error) if error.is_already_exists() || error.is_unprocessable() => {
                attempt.remove_row(new);
                self.write(attempt).await?;
                let code = error.code().map(str::to_owned);
                self.replace_old_first(attempt, row, window, code).await
            }
            Err(error) => self.grant_failed(attempt, new, group, error).await,
        }
    }

    /// A right that is left to the other gyms that hold it, with the window that they want; answers
    /// whether it is.
    pub(super) async fn leave_to_others(
        &self,
        attempt: &mut Attempt,
        turn: Turn,
        row: i64,
        theirs: Window,
    ) -> Result<bool, Trouble> {
        let now = self.shared.now();
        let Some(model) = attempt.row(row) else {
            return Ok(true);
        };
        let Some(right) = Right::of(model) else {
            return Ok(true);
        };
        let Right {
            assignment, group, ..
        } = right;
        let stands = row_window(model);
        if stands.opens_like(theirs, now) || stands.has_ended(now) {
            return Ok(true);
        }
        match self
            .patch(attempt, (turn, Lane::Revoke), group, assignment, theirs)
            .await?
        {
            Patched::Limited => Ok(false),
            Patched::Moved(_) => {
                let moved = (assignment, assignment);
                self.tell_holders(attempt, moved, theirs).await?;
                Ok(true)
            }
            Patched::Gone => {
                self.tell_who_joined(attempt, right).await?;
                Ok(true)
            }
            // Their next pass replaces it.
            Patched::AsBefore => Ok(true),
        }
    }

    /// What was done to a right that several gyms hold is in the rows of all of them.
    pub(super) async fn tell_holders(
        &self,
        attempt: &mut Attempt,
        (from, to): (i64, i64),
        window: Window,
    ) -> Result<(), Trouble> {
        self.write(attempt).await?;
        // While an old right goes and a new one comes others may have taken up the old one.
        let is_shared = from != to || attempt.snapshot.shared.contains_key(&from);
        if is_shared {
            let organization = attempt.snapshot.integration.organization();
            let (db, now) = (&self.shared.db, self.shared.now());
            let txn = db.begin().await?;
            if !self.lease.keep(&txn).await? {
                attempt.lease_lost = true;
                return Err(Trouble::NotOwner);
            }
            applied_grants::move_all(&txn, organization, (from, to), window, now).await?;
            txn.commit().await?;
            attempt.snapshot.renew_shared(db, now).await?;
        }
        Ok(())
    }
}

/// What became of a window that was to be changed in place.
enum Patched {
    Moved(Box<RoleAssignment>),
    AsBefore,
    Gone,
    /// Told to wait: nothing was done.
    Limited,
}

pub(super) fn kisi_window(window: Window) -> kisi_client::model::Window {
    kisi_client::model::Window {
        valid_from: window.from.map(instant),
        valid_until: window.until.map(instant),
    }
}

/// A window as Kisi tells it.
pub(super) fn found_window(found: &RoleAssignment) -> Window {
    Window {
        from: found.valid_from.map(micros),
        until: found.valid_until.map(micros),
    }
}
