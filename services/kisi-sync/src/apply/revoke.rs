//! Revoking: exactly one request for a row whose id is known. A repeat is harmless, so a lost answer
//! needs no look. The brake is asked before, and counts after.

use kisi_client::{KisiError, KisiWrite, Lane};

use super::{Attempt, Engine};
use crate::error::Trouble;
use crate::record::Change;
use crate::store::applied_grants;

impl Engine {
    pub(super) async fn revoke(&self, attempt: &mut Attempt, row: i64) -> Result<(), Trouble> {
        let class = if attempt.background {
            "unexplained"
        } else {
            "explained"
        };
        // A replacement is no loss, and a change that a person confirmed is not counted.
        let is_loss = attempt.outcome.granted == 0 && !attempt.snapshot.member.approved;
        let member = attempt.snapshot.member.member_id.clone();
        if is_loss && !self.brake.lets_go(&member, class, self.shared.now()) {
            return self.hold(attempt, class).await;
        }
        self.delete(attempt, row, Lane::Revoke).await?;
        attempt.outcome.revoked += 1;
        if is_loss {
            self.brake.lost(&member, class, self.shared.now());
            attempt.changes.push(Change::Lost { class });
        }
        Ok(())
    }

    /// DELETE of a row of ours; a right that another gym of the organization shares stays.
    pub(super) async fn delete(
        &self,
        attempt: &mut Attempt,
        row: i64,
        lane: Lane,
    ) -> Result<(), Trouble> {
        let Some(model) = attempt.row(row) else {
            return Ok(());
        };
        let (organization, assignment) = (model.organization_id, model.assignment_id);
        let Some(assignment) = assignment else {
            attempt.remove_row(row);
            return Ok(());
        };
        let is_shared = if attempt.snapshot.is_fresh(self.shared.now()) {
            attempt.snapshot.shared.contains(&assignment)
        } else {
            applied_grants::holders(&self.shared.db, organization, assignment).await? > 1
        };
        if !is_shared {
            let turn = self.turn(attempt, lane).await?;
            attempt.sends(self.shared.now());
            match self
                .kisi
                .delete_role_assignment(turn.into(), assignment)
                .await
            {
                Ok(_) => {}
                Err(KisiError::RateLimited { .. }) => return Ok(()),
                Err(error) => return Err(Trouble::of(error)),
            }
        }
        attempt.remove_row(row);
        Ok(())
    }
}
