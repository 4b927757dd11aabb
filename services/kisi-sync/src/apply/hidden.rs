//! A right that Kisi refuses to give twice and does not show: one of ours that has ended, by its own
//! window or one that somebody put on it, and of which no row tells any more.
//!
//! The audit log still knows the ids that we were answered. They are ours, so they may go.

use std::collections::BTreeSet;

use kisi_client::{Deletion, KisiError, KisiWrite, Lane};

use super::{Attempt, Engine};
use crate::audit::Entry;
use crate::error::Trouble;
use crate::store::{applied_grants, audit};

/// As many rows of the log are read; a member has a few each month.
const READ: u64 = 200;
/// As many former ids are tried.
const TRIED: usize = 3;

impl Engine {
    /// Deletes what we gave the member on this group before, as far as no row holds it; answers whether
    /// anything was there.
    pub(super) async fn remove_hidden(
        &self,
        attempt: &mut Attempt,
        lane: Lane,
        group: i64,
    ) -> Result<bool, Trouble> {
        let organization = attempt.snapshot.integration.organization();
        for assignment in self.former(attempt, group).await? {
            let db = &self.shared.db;
            if applied_grants::holders(db, organization, assignment).await? > 0 {
                continue;
            }
            let turn = self.turn(attempt, lane).await?;
            attempt.sends(self.shared.now());
            let answer = self
                .kisi
                .delete_role_assignment(turn.into(), assignment)
                .await;
            let entry = Entry::new("replaced").request("DELETE /role_assignments/{id}", &[]);
            let entry = entry.group(group).object(assignment).detail("hidden");
            match answer {
                Ok(Deletion::Deleted) => {
                    attempt.did(entry, self.shared.now());
                    return Ok(true);
                }
                Ok(Deletion::AlreadyGone) => {}
                // Whether it was in the way is not known: a later attempt asks again.
                Err(KisiError::RateLimited { .. }) => return Err(Trouble::Unclear),
                Err(error) => {
                    if error.is_outcome_unknown() {
                        attempt.may_have_done(entry);
                    }
                    return Err(self.trouble(error).await);
                }
            }
        }
        Ok(false)
    }

    /// Ids that we were answered for the member on this group and did not delete, the newest first.
    async fn former(&self, attempt: &Attempt, group: i64) -> Result<Vec<i64>, Trouble> {
        let member = &attempt.snapshot.member.member_id;
        let log = audit::list_of_member(&self.shared.db, &self.gym, member, i64::MAX, READ).await?;
        let mut seen = BTreeSet::new();
        let mut former = Vec::new();
        for row in log {
            let entry: Entry = serde_json::from_str(&row.entry).unwrap_or_default();
            let Some(assignment) = entry.object.filter(|_| entry.group == Some(group)) else {
                continue;
            };
            match entry.action.as_str() {
                "granted" | "window_changed" if seen.insert(assignment) => former.push(assignment),
                "revoked" | "replaced" | "duplicate_removed" => {
                    seen.insert(assignment);
                }
                _ => {}
            }
        }
        former.truncate(TRIED);
        Ok(former)
    }
}
