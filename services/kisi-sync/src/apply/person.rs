//! Who a member is at Kisi: found by the exact e-mail, or made; never taken on trust.
//!
//! A user is ours when its metadata says so, which only we write. A duplicate answer is expected
//! and settled by searching again, and so is a lost one.

use std::time::Duration;

use kisi_client::model::{Metadata, NewUser, User, UserFilter, UserPatch};
use kisi_client::{KisiError, KisiRead, KisiWrite, Lane};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::everybody::Recalled;
use super::{Attempt, Engine};
use crate::audit::Entry;
use crate::directory::Person;
use crate::error::Trouble;
use crate::record::Change;
use crate::store::members;

/// The pauses between Kisi's word that somebody is there and the searches for them.
const SEARCHED_AGAIN_AFTER: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

const METADATA: &str = "gymflow_member_id";

const CONFLICT: Trouble = Trouble::Refused {
    failure: "identity_conflict",
    code: None,
};

impl Engine {
    pub(crate) async fn find_user(&self, attempt: &mut Attempt, lane: Lane) -> Result<(), Trouble> {
        let member = attempt.snapshot.member.member_id.clone();
        let asked = self.shared.directory.find_person(&self.gym, &member);
        let asked = self.asking(asked).await?;
        let person = asked.map_err(|status| Trouble::Directory(Box::new(status)))?;
        let Some(person) = person else {
            return Err(Trouble::Refused {
                failure: "kisi_refused",
                code: None,
            });
        };
        self.place(attempt, lane, person).await
    }

    /// Who this person is at Kisi: found by the e-mail, or made.
    pub(super) async fn place(
        &self,
        attempt: &mut Attempt,
        lane: Lane,
        person: Person,
    ) -> Result<(), Trouble> {
        let member = attempt.snapshot.member.member_id.clone();
        let digest = person.digest(&self.gym, &member);
        attempt.snapshot.member.person_digest = Some(digest);
        let found = match self.everybody.recall(&person.email) {
            Recalled::There(user) if !self.would_mark(&user, &member) => Some(*user),
            Recalled::NotThere => None,
            // What another gym wrote into it since must not be written over.
            Recalled::There(_) | Recalled::Unknown => {
                self.search(attempt, lane, &person.email).await?
            }
        };
        if let Some(user) = found {
            return self.take_user(attempt, lane, user).await;
        }
        let mut metadata = Metadata::new();
        metadata.insert(metadata_key(&self.gym), member.clone().into());
        let is_regular = attempt.snapshot.integration.user_mode == "regular";
        let new = if is_regular {
            NewUser::regular(person.email.clone(), person.name, metadata)
        } else {
            NewUser::managed(person.email.clone(), person.name, metadata)
        };
        let turn = self.turn(attempt, lane).await?;
        attempt.sends(self.shared.now());
        match self.kisi.create_user(turn.into(), &new).await {
            Ok(user) => {
                let fields = ["email", "name", "send_emails", "confirm", "metadata"];
                let entry = Entry::new("user_created").request("POST /users", &fields);
                attempt.did(entry.object(user.id), self.shared.now());
                let held = &mut attempt.snapshot.member;
                held.kisi_user_id = Some(user.id);
                held.kisi_user_ours = true;
                held.sign_up_needed = is_regular && !user.has_signed_up();
                // Nobody can have given rights to a person who did not exist.
                held.looked = true;
                held.conflict = None;
                attempt.changes.push(Change::Person);
                Ok(())
            }
            Err(KisiError::RateLimited { .. }) => Ok(()),
            Err(error) if error.is_already_exists() => {
                // Who is there already may not be found for a moment.
                for pause in SEARCHED_AGAIN_AFTER {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.stop.cancelled() => return Err(Trouble::NotOwner),
                    }
                    if let Some(user) = self.search(attempt, lane, &person.email).await? {
                        return self.take_user(attempt, lane, user).await;
                    }
                }
                // The filter may mind the case in which Kisi has the e-mail; the free text does not.
                attempt.sends(self.shared.now());
                let filter = UserFilter {
                    query: Some(person.email.clone()),
                    ..UserFilter::default()
                };
                let found = self.ask(self.kisi.list_users(lane, &filter)).await?;
                let mut found = found.items;
                found.retain(|user| user.has_email(&person.email));
                match only(found)? {
                    Some(user) => self.take_user(attempt, lane, user).await,
                    None => Err(Trouble::of(error)),
                }
            }
            Err(error) => {
                if error.is_outcome_unknown() {
                    attempt.may_have_done(Entry::new("unanswered").request("POST /users", &[]));
                }
                Err(self.trouble(error).await)
            }
        }
    }

    /// The one user with exactly this e-mail.
    pub(super) async fn search(
        &self,
        attempt: &mut Attempt,
        lane: Lane,
        email: &str,
    ) -> Result<Option<User>, Trouble> {
        attempt.sends(self.shared.now());
        let found = self.kisi.list_users_by_email(lane, email);
        only(self.ask_first(attempt, found).await?)
    }

    async fn take_user(
        &self,
        attempt: &mut Attempt,
        lane: Lane,
        user: User,
    ) -> Result<(), Trouble> {
        let member = attempt.snapshot.member.member_id.clone();
        if attempt.snapshot.integration.owner_user_id == Some(user.id) {
            return self.conflict(attempt, "kisi_staff".to_owned());
        }
        if attempt.gone_user == Some(user.id) {
            // Found by the e-mail and not by the id: taken, it would be doubted again at once.
            return Err(Trouble::Refused {
                failure: "kisi_refused",
                code: None,
            });
        }
        let twin = members::Entity::find()
            .filter(members::Column::GymId.eq(&self.gym))
            .filter(members::Column::KisiUserId.eq(user.id))
            .filter(members::Column::MemberId.ne(&member))
            .one(&self.shared.db)
            .await?;
        if let Some(twin) = twin {
            return self.conflict(attempt, format!("same_email:{}", twin.member_id));
        }
        let key = metadata_key(&self.gym);
        let named = user.metadata.get(&key).and_then(|id| id.as_str());
        if let Some(twin) = named.filter(|named| *named != member)
            && self.is_being_placed(twin, user.id).await?
        {
            return self.conflict(attempt, format!("same_email:{twin}"));
        }
        let ours = is_ours(&user);
        if self.would_mark(&user, &member) {
            // Made by us for another gym of the organization: one id per gym.
            let mut metadata = user.metadata.clone();
            metadata.insert(key, member.into());
            let patch = UserPatch {
                metadata: Some(metadata),
                ..UserPatch::default()
            };
            let turn = self.turn(attempt, lane).await?;
            attempt.sends(self.shared.now());
            match self.kisi.update_user(turn.into(), user.id, &patch).await {
                // Searched for again, and with it what others have written since.
                Err(KisiError::RateLimited { .. }) => return Ok(()),
                patched => self.heard(patched).await?,
            }
            let entry = Entry::new("user_changed").request("PATCH /users/{id}", &["metadata"]);
            attempt.did(entry.object(user.id), self.shared.now());
        }
        let is_regular = attempt.snapshot.integration.user_mode == "regular";
        let held = &mut attempt.snapshot.member;
        held.kisi_user_id = Some(user.id);
        held.kisi_user_ours = ours;
        held.sign_up_needed = is_regular && !user.has_signed_up();
        held.looked = false;
        held.conflict = None;
        attempt.changes.push(Change::Person);
        Ok(())
    }

    /// A user of ours that does not name this gym's member yet.
    fn would_mark(&self, user: &User, member: &str) -> bool {
        let marked = user.metadata.get(&metadata_key(&self.gym));
        is_ours(user) && marked.and_then(|id| id.as_str()) != Some(member)
    }

    /// Whether the user was made a moment ago for another member of the gym, who has the same e-mail and
    /// whose answer is not written down yet.
    async fn is_being_placed(&self, member: &str, user: i64) -> Result<bool, Trouble> {
        let held = members::find(&self.shared.db, &self.gym, member).await?;
        Ok(held.is_some_and(|held| {
            !held.erased && held.kisi_user_id.is_none_or(|placed| placed == user)
        }))
    }

    /// A matter for a person: told, shown, and not tried again before something changes.
    pub(crate) fn conflict(&self, attempt: &mut Attempt, what: String) -> Result<(), Trouble> {
        attempt.snapshot.member.conflict = Some(what);
        attempt.snapshot.member.kisi_user_id = None;
        attempt.snapshot.member.sign_up_needed = false;
        attempt.changes.push(Change::Person);
        Err(CONFLICT)
    }
}

/// The one who was found, if anybody was.
fn only(mut found: Vec<User>) -> Result<Option<User>, Trouble> {
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(CONFLICT),
    }
}

fn is_ours(user: &User) -> bool {
    user.metadata.keys().any(|key| key.starts_with(METADATA))
}

/// Keys of metadata have at most 50 characters, gym ids 64.
pub(crate) fn metadata_key(gym: &str) -> String {
    if gym.len() <= 30 {
        return format!("{METADATA}_{gym}");
    }
    use sha2::{Digest, Sha256};
    let digest = hex::encode(Sha256::digest(gym.as_bytes()));
    format!("{METADATA}_{}", &digest[..30])
}

#[cfg(test)]
mod tests {
    use super::metadata_key;

    #[test]
    fn metadata_keys_fit_kisi_and_differ_by_gym() {
        assert_eq!(metadata_key("iron"), "gymflow_member_id_iron");
        let long = metadata_key(&"g".repeat(64));
        assert!(long.len() <= 50);
        assert_ne!(long, metadata_key(&"h".repeat(64)));
    }
}
