//! A right that Kisi gives another window only by taking it away first: old, and at once new.
//!
//! In between the door is shut, and the new right may be refused. So one member at a time of a gym is put
//! to that, and only as many as may lose access; and where Kisi has refused some in a row, nobody is.

use std::collections::BTreeSet;
use std::time::Duration;

use kisi_client::Lane;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::revoke::{Right, class};
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
        let Some(former) = Right::of(old) else {
            return Ok(());
        };
        let Right {
            assignment,
            group,
            user,
        } = former;
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
        attempt.replaced.insert(group, former);
        self.brake.removed();
        self.doubts.settle_taken(&member);
        attempt.outcome.windows += 1;
        self.write(attempt).await?;
        let new = self
            .insert(attempt, group, window, user, INTENDED, None)
            .await?;
        self.grant(attempt, new, group, Lane::Revoke).await?;
        let is_refused = attempt.refused.groups.contains(&group);
        if is_refused && attempt.replaced.contains_key(&group) {
            self.count_unreplaced(attempt).await?;
        }
        // Where Kisi asked to wait the next steps grant it, ahead of all other work.
        Ok(())
    }

    /// A right stands in the group: where it has the place of one that was taken away for it, it takes no
    /// other's, and whoever held that one holds it from now on.
    pub(super) async fn note_given(
        &self,
        attempt: &mut Attempt,
        group: i64,
        given: i64,
        window: Window,
    ) -> Result<(), Trouble> {
        let Some(former) = attempt.replaced.get(&group).copied() else {
            return Ok(());
        };
        attempt.granted_before += 1;
        // Where that fails they are told at the end of the attempt that the former one is gone.
        self.tell_holders(attempt, (former.assignment, given), window)
            .await?;
        attempt.replaced.remove(&group);
        if attempt.replaced.is_empty()
            && let Some(mut replacing) = attempt.replacing.take()
        {
            replacing.last.refused = 0;
        }
        Ok(())
    }

    /// What was taken away to be given anew, and was not given, is lost like anything else; and whoever
    /// held it too is told.
    pub(super) async fn count_unreplaced(&self, attempt: &mut Attempt) -> Result<(), Trouble> {
        let open: BTreeSet<i64> = attempt.snapshot.open_groups().into_iter().collect();
        let replaced = std::mem::take(&mut attempt.replaced);
        let replacing = attempt.replacing.take();
        let mut gone = replaced.keys().filter(|group| !open.contains(group));
        if let Some(first) = gone.next() {
            let is_refused = |group: &i64| attempt.refused.groups.contains(group);
            if is_refused(first) || gone.any(is_refused) {
                replacing.into_iter().for_each(Replacing::note_refusal);
            }
            let class = class(attempt);
            self.count_loss(attempt, class);
        }
        for former in replaced.values() {
            self.tell_who_joined(attempt, *former).await?;
        }
        Ok(())
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
