//! Forgetting an erased member: rights are gone by now; then the user, if it is ours, or at least
//! the logins that we made for her.

use std::collections::BTreeSet;

use kisi_client::model::{AppliesToType, AssignmentFilter, User};
use kisi_client::{KisiError, KisiRead, KisiWrite, Lane};
use sea_orm::{ColumnTrait, Condition, DbErr, EntityTrait, QueryFilter, TransactionTrait};

use super::person::metadata_key;
use super::{Attempt, Engine};
use crate::audit::Entry;
use crate::error::Trouble;
use crate::hints;
use crate::record::Change;
use crate::store::members::{CHANGED, Cause, SHARED_USER};
use crate::store::{applied_grants, devices, member_logins, members};
use crate::worker::{Job, Urgency};

impl Engine {
    /// The last of an erased member: the user goes too, if it is ours, nobody's staff, and no
    /// other gym of the organization has a member behind it. Answers whether that is all; if not, Kisi
    /// has asked to wait.
    pub(crate) async fn forget_erased(&self, attempt: &mut Attempt) -> Result<bool, Trouble> {
        if !attempt.snapshot.member.erased || !attempt.snapshot.rows.is_empty() {
            return Ok(true);
        }
        if attempt.snapshot.member.kisi_user_id.is_none() {
            self.find_erased(attempt).await?;
        }
        let member = &attempt.snapshot.member;
        let ours = member.kisi_user_id.filter(|_| member.kisi_user_ours);
        let left = match ours {
            Some(user) if self.was_deleted(attempt, user).await? => Left::Gone,
            Some(user) if self.may_be_deleted(attempt, user).await? => {
                self.delete_user(attempt, user).await?
            }
            _ => Left::Stays,
        };
        match left {
            Left::Limited => return Ok(false),
            Left::Gone => {
                let member = &mut attempt.snapshot.member;
                (member.kisi_user_id, member.kisi_user_ours) = (None, false);
                attempt.changes.push(Change::Person);
            }
            Left::Stays if !self.withdraw_logins(attempt).await? => return Ok(false),
            Left::Stays => {}
        }
        // Who she was has her name and e-mail too.
        if !attempt.refused.former {
            self.forget(attempt).await?;
        }
        Ok(true)
    }

    /// Whether the user whom others took up is gone: whoever deleted her may not have lived to tell them.
    async fn was_deleted(&self, attempt: &mut Attempt, user: i64) -> Result<bool, Trouble> {
        if !attempt.was_doubtful || self.others_of(attempt, user).await?.is_empty() {
            return Ok(false);
        }
        attempt.sends(self.shared.now());
        let found = self.kisi.find_user(Lane::Grant, user);
        if self.ask_first(attempt, found).await?.is_some() {
            return Ok(false);
        }
        self.tell_who_took_up(attempt, user).await?;
        let entry = Entry::new("user_deleted").request("GET /users/{id}", &[]);
        let entry = entry.object(user).detail("found_gone");
        attempt.did(entry, self.shared.now());
        devices::remove_of_user(&self.shared.db, user).await?;
        Ok(true)
    }

    /// DELETE of a user. One that Kisi cannot do without stays.
    pub(super) async fn delete_user(
        &self,
        attempt: &mut Attempt,
        user: i64,
    ) -> Result<Left, Trouble> {
        self.write(attempt).await?;
        let turn = self.turn(attempt, Lane::Grant).await?;
        // While this waited another gym may have let her in.
        if !self.others_of(attempt, user).await?.is_empty() {
            return Ok(Left::Stays);
        }
        attempt.sends(self.shared.now());
        let answer = self.kisi.delete_user(turn.into(), user).await;
        let is_gone = |error: &KisiError| error.is_outcome_unknown();
        if answer.as_ref().map_or_else(is_gone, |_| true) {
            self.tell_who_took_up(attempt, user).await?;
        }
        match answer {
            Ok(_) => {
                let entry = Entry::new("user_deleted").request("DELETE /users/{id}", &[]);
                attempt.did(entry.object(user), self.shared.now());
                // Phones go with their user.
                devices::remove_of_user(&self.shared.db, user).await?;
                Ok(Left::Gone)
            }
            Err(KisiError::RateLimited { .. }) => Ok(Left::Limited),
            Err(error) if error.is_unprocessable() => Ok(Left::Stays),
            Err(error) => Err(self.trouble(error).await),
        }
    }

    /// Logins go with their user; those of a user who stays are taken back one by one, and one that
    /// Kisi refuses to take back keeps no other. Answers whether that is all, as above.
    async fn withdraw_logins(&self, attempt: &mut Attempt) -> Result<bool, Trouble> {
        let (db, member) = (&self.shared.db, attempt.snapshot.member.member_id.clone());
        let own_key = (self.gym.clone(), member.clone());
        let mut logins = devices::logins(db, &self.gym, &member).await?;
        let own = member_logins::Entity::find_by_id(own_key.clone());
        let own = own.one(db).await?.map(|row| row.login_id);
        logins.extend(own);
        let mut refused = None;
        for login in logins {
            let turn = self.turn(attempt, Lane::Grant).await?;
            attempt.sends(self.shared.now());
            let gone = self.kisi.delete_login(turn.into(), login).await;
            if let Err(KisiError::RateLimited { .. }) = gone {
                return Ok(false);
            }
            match self.heard(gone).await {
                Ok(_) => {}
                Err(refusal @ Trouble::Refused { .. }) => {
                    refused = Some(refusal);
                    continue;
                }
                Err(trouble) => return Err(trouble),
            }
            let entry = Entry::new("device_withdrawn").request("DELETE /logins/{id}", &[]);
            attempt.did(entry.object(login).detail("erasure"), self.shared.now());
            self.write(attempt).await?;
            devices::remove(db, &self.gym, login).await?;
            if own == Some(login) {
                let own = member_logins::Entity::delete_by_id(own_key.clone());
                own.exec(db).await?;
            }
        }
        refused.map_or(Ok(true), Err)
    }

    /// A user whom we made, and whose answer was lost, is found by the e-mail.
    async fn find_erased(&self, attempt: &mut Attempt) -> Result<(), Trouble> {
        let id = attempt.snapshot.member.member_id.clone();
        let asked = self.shared.directory.find_erased(&self.gym, &id);
        let asked = self.asking(asked).await?;
        let person = asked.map_err(|status| Trouble::Directory(Box::new(status)))?;
        let Some(person) = person else {
            return Ok(());
        };
        let found = match self.search(attempt, Lane::Grant, &person.email).await {
            // One of two is not known to be ours.
            Err(Trouble::Refused {
                failure: "identity_conflict",
                ..
            }) => None,
            found => found?,
        };
        let key = metadata_key(&self.gym);
        let is_theirs = |user: &User| {
            user.metadata.get(&key).and_then(|held| held.as_str()) == Some(id.as_str())
        };
        if let Some(user) = found.filter(is_theirs) {
            attempt.snapshot.member.kisi_user_id = Some(user.id);
            attempt.snapshot.member.kisi_user_ours = true;
            attempt.changes.push(Change::Person);
        }
        Ok(())
    }

    /// Nothing of an erased member is left at Kisi: nothing is kept here either.
    pub(crate) async fn forget(&self, attempt: &mut Attempt) -> Result<(), Trouble> {
        let held = &mut attempt.snapshot.member;
        held.kisi_user_id = None;
        held.kisi_user_ours = false;
        held.person_digest = None;
        (held.former_user_id, held.former_users) = (None, None);
        held.looked = false;
        held.conflict = None;
        held.opened_by_others = "[]".to_owned();
        let key = (held.gym_id.clone(), held.member_id.clone());
        devices::remove_all(&self.shared.db, &key.0, &key.1).await?;
        member_logins::Entity::delete_by_id(key)
            .exec(&self.shared.db)
            .await?;
        attempt.changes.push(Change::Person);
        attempt.outcome.failure = None;
        attempt.outcome.erased = true;
        Ok(())
    }

    /// Nobody else wants the user. What others gave goes with an erased member's, as she does; a mere
    /// change of e-mail takes nothing away that others gave.
    pub(super) async fn may_be_deleted(
        &self,
        attempt: &mut Attempt,
        user: i64,
    ) -> Result<bool, Trouble> {
        if !self.others_of(attempt, user).await?.is_empty() {
            return Ok(false);
        }
        attempt.outcome.requests += 1;
        let of_user = AssignmentFilter::User(user);
        let rights = self.kisi.list_role_assignments(Lane::Grant, of_user);
        let rights = match self.ask(rights).await {
            // Who is not there has none, and the DELETE will say so.
            Err(refusal @ Trouble::Refused { .. }) => {
                attempt.outcome.requests += 1;
                return match self.ask(self.kisi.find_user(Lane::Grant, user)).await? {
                    Some(_) => Err(refusal),
                    None => Ok(true),
                };
            }
            rights => rights?,
        };
        let is_erased = attempt.snapshot.member.erased;
        let mut rights_left = rights.items.iter();
        Ok(rights.complete
            && rights_left.all(|right| is_erased && right.applies_to_type == AppliesToType::Group))
    }

    /// By gym and member, who else is this user, or has rights of hers. Whoever has nobody's user may
    /// have rights of this one yet.
    async fn others_of(
        &self,
        attempt: &Attempt,
        user: i64,
    ) -> Result<BTreeSet<(String, String)>, DbErr> {
        let elsewhere = members::Entity::find()
            .filter(members::Column::GymId.ne(&self.gym))
            .filter(members::Column::KisiUserId.eq(user))
            .all(&self.shared.db)
            .await?;
        // Her own are gone, or of another user.
        let organization = attempt.snapshot.integration.organization();
        let of_others = Condition::any()
            .add(applied_grants::Column::GymId.ne(&self.gym))
            .add(applied_grants::Column::MemberId.ne(&attempt.snapshot.member.member_id));
        let rights = applied_grants::Entity::find()
            .filter(applied_grants::Column::OrganizationId.eq(organization))
            .filter(applied_grants::Column::KisiUserId.eq(user))
            .filter(of_others)
            .all(&self.shared.db)
            .await?;
        let elsewhere = elsewhere.into_iter().map(|row| (row.gym_id, row.member_id));
        let rights = rights.into_iter().map(|row| (row.gym_id, row.member_id));
        Ok(elsewhere.chain(rights).collect())
    }

    /// Who took the user up while the DELETE was on its way gets another one.
    async fn tell_who_took_up(&self, attempt: &Attempt, user: i64) -> Result<(), Trouble> {
        let joined = self.others_of(attempt, user).await?;
        if joined.is_empty() {
            return Ok(());
        }
        let cause = Cause::new(SHARED_USER, &user.to_string(), None);
        let txn = self.shared.db.begin().await?;
        for (gym, member) in &joined {
            members::set_person_digest(&txn, gym, member, CHANGED).await?;
            members::look_again(&txn, gym, member, &cause, self.shared.now()).await?;
            hints::give(&txn, gym, member, Urgency::Grant).await?;
        }
        txn.commit().await?;
        for (gym, member) in &joined {
            let job = Job::look(member, Urgency::Grant);
            self.shared.workers.wake(gym, job);
        }
        Ok(())
    }
}

/// What became of a user that was to go.
pub(super) enum Left {
    Gone,
    Stays,
    /// Told to wait: nothing was done.
    Limited,
}
