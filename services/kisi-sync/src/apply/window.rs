//! Windows: changed in place where Kisi does that, replaced where it does not.

use kisi_client::model::{NewGroupAssignment, RoleAssignment};
use kisi_client::{KisiError, KisiRead, KisiWrite, Lane};

use super::grant::granting;
use super::{Attempt, Engine};
use crate::audit::Entry;
use crate::error::Trouble;
use crate::steps::{Window, row_window};
use crate::store::applied_grants::INTENDED;
use crate::store::{instant, micros};

impl Engine {
    /// PATCH, read back, and where the window did not move: replace, new before old; where Kisi
    /// allows no second row, old and at once new.
    pub(super) async fn change_window(
        &self,
        attempt: &mut Attempt,
        row: i64,
        group: i64,
        window: Window,
    ) -> Result<(), Trouble> {
        let Some(model) = attempt.row(row) else {
            return Ok(());
        };
        let (user, Some(assignment)) = (model.kisi_user_id, model.assignment_id) else {
            return Ok(());
        };
        if row_window(model).has_ended(self.shared.now()) {
            // No door is open by it, and Kisi may hide it or have deleted it, so that it cannot be
            // changed: it goes, and the next steps grant another.
            return self.delete(attempt, row, "replaced", Lane::Grant).await;
        }
        let turn = self.turn(attempt, Lane::Grant).await?;
        attempt.sends(self.shared.now());
        self.bursts.wrote(&attempt.snapshot.member.member_id);
        let patched = self
            .kisi
            .update_role_assignment_window(turn.into(), assignment, kisi_window(window))
            .await;
        match patched {
            Ok(()) => {}
            Err(KisiError::RateLimited { .. }) => return Ok(()),
            Err(error) if error.is_unprocessable() || error.is_not_found() => {}
            Err(error) => return Err(Trouble::of(error)),
        }
        attempt.outcome.requests += 1;
        let read = self
            .kisi
            .find_role_assignment(Lane::Grant, assignment)
            .await;
        match read.map_err(Trouble::of)? {
            None => {
                attempt.remove_row(row);
                return Ok(());
            }
            Some(found) if found.window() == kisi_window(window) => {
                let fields = ["notify", "valid_from", "valid_until"];
                let entry = Entry::new("window_changed")
                    .request("PATCH /role_assignments/{id}", &fields)
                    .group(group)
                    .object(assignment);
                attempt.did(entry, self.shared.now());
                attempt.complete(row, &found, window);
                attempt.outcome.windows += 1;
                return Ok(());
            }
            Some(_) => {}
        }
        let new = self
            .insert(attempt, group, window, user, INTENDED, None)
            .await?;
        let turn = self.turn(attempt, Lane::Grant).await?;
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
            Err(error) if error.is_already_exists() || error.is_unprocessable() => {
                attempt.remove_row(new);
                self.write(attempt).await?;
                self.delete(attempt, row, "replaced", Lane::Revoke).await?;
                // The next steps grant it anew, ahead of all other work.
                attempt.outcome.windows += 1;
                Ok(())
            }
            Err(error) => self.grant_failed(attempt, new, group, error).await,
        }
    }
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
