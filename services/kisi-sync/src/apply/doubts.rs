//! Members of whom something may have been sent to Kisi, and what came of it is not written down: the
//! database failed, the answer was lost, or whoever sent it died. Under the same lease nothing in the
//! tables says so, so it is kept here until it is there, or until Kisi has been asked.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sea_orm::{ActiveValue, ColumnTrait, DbErr, EntityTrait, QueryFilter};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use super::Engine;
use crate::snapshot::Snapshot;
use crate::store::applied_grants;
use crate::store::members::{self, LEASE_LOST, SHARED_RIGHT};

/// So few are asked for at once before they are held: what was sent and not written down is one request or
/// a few, and who waits to be held is in the way of revokes that may go.
const ASKED_AT_ONCE: usize = 4;
/// Longer than the tables take to answer.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// One gym's.
#[derive(Debug)]
pub struct Doubts {
    doubtful: Mutex<Doubtful>,
    asking: Semaphore,
    /// Rung when one of [`Doubtful::deciding`] is decided.
    decided: Notify,
}

#[derive(Debug, Default)]
struct Doubtful {
    /// What was intended for them may stand. Another owner needs none of these: the epoch of its
    /// lease is another.
    given: HashSet<String>,
    /// What stands by the tables may be gone, or have another window. It is removed again without a look
    /// as long as it is not wanted, because that is harmless.
    taken: HashSet<String>,
    /// Those of whom nobody lived to count what they may have lost.
    uncounted: HashSet<String>,
    /// Those of them who are being settled.
    deciding: HashSet<String>,
}

impl Doubts {
    /// Of these somebody may have removed a right who did not live to write it down.
    pub fn of(waiting: Vec<String>) -> Self {
        Self {
            doubtful: Mutex::new(Doubtful {
                taken: waiting.iter().cloned().collect(),
                uncounted: waiting.into_iter().collect(),
                ..Doubtful::default()
            }),
            asking: Semaphore::new(ASKED_AT_ONCE),
            decided: Notify::new(),
        }
    }

    /// The member is settled from here on: whoever may have lost a right already is counted before others
    /// may lose one.
    pub fn begin(&self, member: &str) {
        let mut doubtful = self.lock();
        if doubtful.uncounted.contains(member) {
            doubtful.deciding.insert(member.to_owned());
        }
    }

    /// She is counted.
    pub(super) fn decide(&self, member: &str) {
        self.lock().uncounted.remove(member);
        self.end(member);
    }

    /// She is settled no longer.
    pub fn end(&self, member: &str) {
        if self.lock().deciding.remove(member) {
            self.decided.notify_waiters();
        }
    }

    /// Waits for those, and not for long: they may have to ask Kisi first.
    pub(super) async fn others_first(&self, member: &str) {
        let decided = async {
            loop {
                let decided = self.decided.notified();
                let is_alone = {
                    let doubtful = self.lock();
                    doubtful.deciding.is_empty() || doubtful.deciding.contains(member)
                };
                if is_alone {
                    return;
                }
                decided.await;
            }
        };
        let _ = tokio::time::timeout(FIRST_WITHIN, decided).await;
    }

    /// The leave to ask Kisi for a right that may be gone before it is held; None where enough are asked
    /// for already, and this one is held as if it stood.
    pub(super) fn ask_for(&self, member: &str) -> Option<SemaphorePermit<'_>> {
        let may = self
            .is_taken(member)
            .then(|| self.asking.try_acquire().ok());
        may.flatten()
    }

    /// What was intended for the member may stand at Kisi, and what stands by the tables may be gone.
    pub fn note(&self, member: &str) {
        let mut doubtful = self.lock();
        doubtful.given.insert(member.to_owned());
        doubtful.taken.insert(member.to_owned());
    }

    /// What stands for the member may be gone, or be changed.
    pub(super) fn note_taken(&self, member: &str) {
        self.lock().taken.insert(member.to_owned());
    }

    /// Kisi has told what stands.
    pub(super) fn settle_taken(&self, member: &str) {
        let mut doubtful = self.lock();
        doubtful.taken.remove(member);
        doubtful.uncounted.remove(member);
    }

    pub(super) fn is_taken(&self, member: &str) -> bool {
        self.lock().taken.contains(member)
    }

    fn lock(&self) -> MutexGuard<'_, Doubtful> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Where there is doubt, what was intended is looked for and not sent again. Answers whether
    /// there was: what was read of the member before is then behind the tables.
    pub(super) async fn clear_doubts(&self, member: &str) -> Result<bool, DbErr> {
        if !self.doubts.lock().given.contains(member) {
            return Ok(false);
        }
        let set = applied_grants::ActiveModel {
            state: ActiveValue::Set(applied_grants::UNKNOWN.to_owned()),
            ..Default::default()
        };
        applied_grants::Entity::update_many()
            .set(set)
            .filter(applied_grants::Column::GymId.eq(&self.gym))
            .filter(applied_grants::Column::MemberId.eq(member))
            .filter(applied_grants::Column::State.eq(applied_grants::INTENDED))
            .exec(&self.shared.db)
            .await?;
        self.doubts.lock().given.remove(member);
        Ok(true)
    }

    /// Whether a right of the member's that is gone may have been removed by us, and one that is not as
    /// it was changed by us.
    pub(super) fn may_be_taken(&self, member: &members::Model) -> bool {
        let asked = |kind: &str| member.is_asked_by(kind);
        self.doubts.is_taken(&member.member_id) || asked(LEASE_LOST) || asked(SHARED_RIGHT)
    }

    /// Who is let in, and of whom a right may be gone, is looked at before it is relied on.
    pub(super) fn doubt(&self, snapshot: &mut Snapshot) -> Result<(), DbErr> {
        if self.doubts.is_taken(&snapshot.member.member_id)
            && !snapshot.wanted(self.shared.now())?.is_empty()
        {
            snapshot.member.looked = false;
        }
        Ok(())
    }
}
