//! Names and e-mails that have changed at membership-events since Kisi was told. Neither is kept
//! here: digests are compared, once an hour and whenever somebody asks for a pass.

use sea_orm::TransactionTrait;

use super::{Pass, ReconcileError};
use crate::store::members::{self, CHANGED};

impl Pass {
    /// Marks who is called otherwise now. A membership-events that does not answer marks nobody.
    pub(super) async fn compare_people(&mut self) -> Result<(), ReconcileError> {
        let people = match self.shared.directory.list_digests(&self.gym).await {
            Ok(people) => people,
            Err(status) => {
                self.note_directory(&status);
                return Ok(());
            }
        };
        let now = self.shared.now();
        let mut changed = Vec::new();
        let txn = self.shared.db.begin().await?;
        for member in members::list(&txn, &self.gym).await? {
            let (id, held) = (&member.member_id, member.person_digest.as_deref());
            let Some(digest) = people.get(id) else {
                continue;
            };
            if member.kisi_user_id.is_none() || held == Some(digest) {
                continue;
            }
            if held == Some(CHANGED) {
                // Marked before, and no attempt has told Kisi.
                changed.push(id.clone());
                continue;
            }
            // A row of before digests were kept is taken as it is.
            let kept = if held.is_some() { CHANGED } else { digest };
            members::set_person_digest(&txn, &self.gym, id, kept).await?;
            if held.is_some() {
                changed.push(id.clone());
            }
        }
        members::mark_pending(&txn, &self.gym, &changed, &self.cause(), false, now).await?;
        Ok(txn.commit().await?)
    }
}
