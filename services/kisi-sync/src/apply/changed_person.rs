//! A member whose name or e-mail has changed. A name follows; an e-mail cannot be changed at Kisi, so
//! the rights move to the user of the new one, new before old, and the old user goes if it is ours.

use kisi_client::model::UserPatch;
use kisi_client::{KisiError, KisiRead, KisiWrite, Lane};

use super::forget::Left;
use super::{Attempt, Engine};
use crate::audit::Entry;
use crate::error::Trouble;
use crate::record::Change;

impl Engine {
    pub(super) async fn check_person(
        &self,
        attempt: &mut Attempt,
        lane: Lane,
    ) -> Result<(), Trouble> {
        let member = attempt.snapshot.member.member_id.clone();
        let Some(user) = attempt.snapshot.member.kisi_user_id else {
            return Ok(());
        };
        let asked = self.shared.directory.find_person(&self.gym, &member);
        let asked = self.asking(asked).await?;
        let person = asked.map_err(|status| Trouble::Directory(Box::new(status)))?;
        let Some(person) = person else {
            return self.settled_person(attempt, None);
        };
        let digest = person.digest(&self.gym, &member);
        attempt.sends(self.shared.now());
        let held = self.kisi.find_user(lane, user);
        let held = self.ask_first(attempt, held).await?;
        let Some(held) = held else {
            attempt.gone_user = Some(user);
            return self.move_on(attempt, lane, user, person).await;
        };
        if !held.has_email(&person.email) {
            return self.move_on(attempt, lane, user, person).await;
        }
        let is_ours = attempt.snapshot.member.kisi_user_ours;
        let name = person.name.filter(|name| is_ours && *name != held.name);
        if let Some(name) = name {
            let patch = UserPatch {
                name: Some(name),
                ..UserPatch::default()
            };
            let turn = self.turn(attempt, lane).await?;
            attempt.sends(self.shared.now());
            let patched = self.kisi.update_user(turn.into(), user, &patch).await;
            if let Err(KisiError::RateLimited { .. }) = patched {
                return Ok(());
            }
            match self.heard(patched).await {
                Ok(()) => {}
                // What she is called decides about no door.
                Err(Trouble::Refused { failure, code }) => {
                    attempt.refused.name = true;
                    attempt.is_refused(failure, code);
                    return Ok(());
                }
                Err(trouble) => return Err(trouble),
            }
            let entry = Entry::new("user_changed").request("PATCH /users/{id}", &["name"]);
            attempt.did(entry.object(user), self.shared.now());
        }
        self.settled_person(attempt, Some(digest))
    }

    /// The user is another one from now on; the steps that follow move the rights.
    async fn move_on(
        &self,
        attempt: &mut Attempt,
        lane: Lane,
        from: i64,
        person: crate::directory::Person,
    ) -> Result<(), Trouble> {
        let before = attempt.snapshot.member.clone();
        let member = &mut attempt.snapshot.member;
        if member.kisi_user_ours {
            member.leave_behind(from);
        }
        member.kisi_user_id = None;
        member.kisi_user_ours = false;
        member.looked = false;
        member.person_digest = None;
        member.sign_up_needed = false;
        member.opened_by_others = "[]".to_owned();
        if attempt.snapshot.wanted(self.shared.now())?.is_empty() {
            // Who is let in again some day is looked for then.
            attempt.changes.push(Change::Person);
            return Ok(());
        }
        let placed = self.place(attempt, lane, person).await;
        let now = &attempt.snapshot.member;
        if now.kisi_user_id.is_none() && now.conflict.is_none() {
            // Refused, or told to wait: still the former one, or the rights that stand would be taken for
            // the new one's.
            attempt.snapshot.member = before;
        }
        attempt.changes.push(Change::Person);
        placed
    }

    fn settled_person(&self, attempt: &mut Attempt, digest: Option<String>) -> Result<(), Trouble> {
        attempt.snapshot.member.person_digest = digest;
        attempt.changes.push(Change::Person);
        Ok(())
    }

    /// A former user without a right of ours: deleted, if nobody else wants it. One that others gave a
    /// right is kept, and asked about again whenever the member is settled.
    pub(super) async fn leave_former(&self, attempt: &mut Attempt) -> Result<(), Trouble> {
        let Some(user) = attempt.snapshot.member.former_user_id else {
            return Ok(());
        };
        let may_go = self.may_be_deleted(attempt, user).await?;
        // Nobody asks about an erased member's again.
        if !may_go && !attempt.snapshot.member.erased {
            attempt.snapshot.keeps_former = true;
            return Ok(());
        }
        if may_go && let Left::Limited = self.delete_user(attempt, user).await? {
            return Ok(());
        }
        attempt.snapshot.member.forget_former();
        attempt.changes.push(Change::Person);
        Ok(())
    }
}
