//! A right that Kisi gives another window only by taking it away first: old, and at once new.
//!
//! In between the door is shut, and the new right may be refused. So one member at a time of a gym is put
//! to that, and only as many as may lose access; and where Kisi has refused some in a row, nobody is.

use std::time::Duration;

use kisi_client::Lane;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::revoke::class;
use super::{Attempt, Engine};
use crate::brake::Going;
use crate::error::Trouble;
use crate::steps::Window;
use crate::store::applied_grants::INTENDED;

/// So many refusals in a row, and nobody else is tried for a while.
const ENOUGH: u32 = 3;
const FOR_A_WHILE: Duration = Duration::from_secs(3_600);

/// What came of the last ones.
#[derive(Debug, Default)]
pub struct Replaced {
    refused: u32,
    last_refused: Option<Instant>,
}

impl Replaced {
    fn is_in_vain(&self) -> bool {
        let is_recent = |at: Instant| at.elapsed() < FOR_A_WHILE;
        self.refused >= ENOUGH && self.last_refused.is_some_and(is_recent)
    }
}

/// A right is about to be taken away, or is gone and not given yet.
pub(crate) struct Replacing {
    last: OwnedMutexGuard<Replaced>,
    /// Until it is known what became of it.
    _going: Option<Going>,
}

impl Replacing {
    pub(super) fn note_refusal(mut self) {
        self.last.refused = self.last.refused.saturating_add(1);
        self.last.last_refused = Some(Instant::now());
    }
}

impl Engine {
    /// Takes the right away and gives it anew, ahead of all other work; or leaves it as it is, with what
    /// Kisi said when it was to have another beside it.
    pub(super) async fn replace_old_first(
        &self,
        attempt: &mut Attempt,
        row: i64,
        window: Window,
        code: Option<String>,
    ) -> Result<(), Trouble> {
        let Some(old) = attempt.row(row) else {
            return Ok(());
        };
        let (group, user) = (old.group_id, old.kisi_user_id);
        let Some(assignment) = old.assignment_id else {
            return Ok(());
        };
        let last = match attempt.replacing.take() {
            Some(replacing) => replacing.last,
            None => self.alone_in_replacing(attempt).await?,
        };
        let class = class(attempt);
        let (member, now) = (attempt.snapshot.member.member_id.clone(), self.shared.now());
        let going = class.and_then(|class| self.brake.let_go(&member, class, now));
        let may_go = class.is_none() || going.is_some();
        if !may_go || last.is_in_vain() || self.key.is_forbidden(attempt, group).is_some() {
            attempt.keeps_window(row, code);
            return Ok(());
        }
        let turn = self.turn(attempt, Lane::Revoke).await?;
        // Others who hold it too may want it otherwise by now.
        let now = self.shared.now();
        attempt.snapshot.renew_shared(&self.shared.db, now).await?;
        self.may_send()?;
        if attempt.snapshot.wanted(now)?.get(&group) != Some(&window) {
            return Ok(());
        }
        attempt.replacing = Some(Replacing {
            last,
            _going: going,
        });
        let taken = self
            .delete_in_turn(attempt, turn, group, assignment, "replaced")
            .await;
        if taken.is_err() && attempt.delete_unanswered {
            self.count_loss(attempt, class);
        }
        if !taken? {
            return Ok(());
        }
        attempt.remove_row(row);
        attempt.replaced.insert(group);
        self.brake.removed();
        self.doubts.settle_taken(&member);
        attempt.outcome.windows += 1;
        self.write(attempt).await?;
        let new = self
            .insert(attempt, group, window, user, INTENDED, None)
            .await?;
        self.grant(attempt, new, group, Lane::Revoke).await?;
        match attempt.row(new).and_then(|row| row.assignment_id) {
            Some(made) => {
                // It takes no other right's place.
                attempt.granted_before += 1;
                if let Some(mut replacing) = attempt.replacing.take() {
                    replacing.last.refused = 0;
                }
                self.tell_holders(attempt, (assignment, made), window).await
            }
            None if attempt.refused.groups.contains(&group) => {
                self.count_unreplaced(attempt);
                self.tell_who_joined(attempt, assignment).await
            }
            // The next steps grant it, ahead of all other work.
            None => Ok(()),
        }
    }

    async fn alone_in_replacing(
        &self,
        attempt: &Attempt,
    ) -> Result<OwnedMutexGuard<Replaced>, Trouble> {
        let replaced = self.manners.replaced.clone();
        tokio::select! {
            alone = replaced.lock_owned() => Ok(alone),
            () = self.stop.cancelled() => Err(Trouble::NotOwner),
            () = self.key.over() => Err(Trouble::Paused),
            () = self.overtaken(attempt) => Err(Trouble::Superseded),
        }
    }
}
