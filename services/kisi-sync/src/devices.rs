//! A member's phones at Kisi: enrolled by a login made on the member's behalf, listed, made primary,
//! withdrawn.
//!
//! The secret of a login goes to the app and nowhere else. A user has 40 device logins at Kisi, and
//! the next pushes the least recently used out without a word; so before that, one of ours goes that
//! we choose. A revoked right leaves logins alone: they open nothing without it.

use std::collections::BTreeSet;

use contracts::access::v1::{
    Device, DeviceRequest, EnrolDeviceRequest, EnrolDeviceResponse, ListDevicesResponse,
};
use contracts::wire;
use kisi_client::model::{CreatedLogin, Login, NewDeviceLogin};
use kisi_client::{HttpKisi, KisiRead, KisiWrite, Lane};
use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel, TransactionTrait};
use secrecy::{ExposeSecret, SecretString};
use tonic::Status;

use crate::audit::{self, Entry};
use crate::desired::is_id;
use crate::refusal;
use crate::shared::Shared;
use crate::store::members::{self, Cause};
use crate::store::{devices, instant, integrations, member_logins};
use crate::unlock::LOGIN_FIELDS;

/// Device logins of one user at Kisi.
const MOST_LOGINS: usize = 40;
/// The call that makes a login for the server itself.
pub const UNLOCK: &str = "Unlock";
/// Why no login is made.
pub const ANOTHER_PERSON: &str =
    "Kisi knows another person by the member's e-mail: staff must look";
/// Kisi publishes no limit; nobody's phone is called more.
const MOST_CHARACTERS: usize = 100;

/// One member whose phones are about to change.
pub struct Phones<'a> {
    shared: &'a Shared,
    gym: &'a str,
    member: members::Model,
    /// Kisi's user.
    user: i64,
    kisi: HttpKisi,
    actor: &'a str,
}

/// The member's phones, as enrolled here.
pub async fn list(shared: &Shared, gym: &str, member: &str) -> Result<ListDevicesResponse, Status> {
    let member = known(shared, gym, member).await?;
    listed(shared, gym, &member).await
}

async fn listed(
    shared: &Shared,
    gym: &str,
    member: &members::Model,
) -> Result<ListDevicesResponse, Status> {
    let rows = devices::list(&shared.db, gym, &member.member_id)
        .await
        .map_err(refusal::store)?;
    let rows = rows.iter();
    let current = rows.filter(|row| member.kisi_user_id == Some(row.kisi_user_id));
    Ok(ListDevicesResponse {
        devices: current.map(shown).collect(),
    })
}

async fn known(shared: &Shared, gym: &str, member: &str) -> Result<members::Model, Status> {
    if !is_id(member) {
        return Err(refusal::invalid("member_id", "it is no id"));
    }
    let found = members::find(&shared.db, gym, member)
        .await
        .map_err(refusal::store)?;
    found
        .filter(|member| !member.erased)
        .ok_or_else(|| Status::not_found("there is no such member"))
}

impl<'a> Phones<'a> {
    /// The member must be known at Kisi, and the gym's key work.
    pub async fn of(
        shared: &'a Shared,
        gym: &'a str,
        member: &str,
        actor: &'a str,
    ) -> Result<Phones<'a>, Status> {
        let member = known(shared, gym, member).await?;
        let integration = integrations::find(&shared.db, gym)
            .await
            .map_err(refusal::store)?
            .filter(integrations::Model::is_live)
            .ok_or_else(|| refusal::missing_step("the gym is not in sync with Kisi (StartSync)"))?;
        let user = member.kisi_user_id.ok_or_else(|| {
            refusal::missing_step("the member has no access at Kisi yet, and so no phone")
        })?;
        let kisi = shared
            .kisi_of(&integration)
            .map_err(|error| refusal::internal(&error))?;
        Ok(Self::at(shared, gym, member, user, kisi, actor))
    }

    /// Of a member whose user at Kisi is known.
    pub fn at(
        shared: &'a Shared,
        gym: &'a str,
        member: members::Model,
        user: i64,
        kisi: HttpKisi,
        actor: &'a str,
    ) -> Self {
        Self {
            shared,
            gym,
            member,
            user,
            kisi,
            actor,
        }
    }

    /// A login for one phone. Its secret is answered once and kept nowhere.
    pub async fn enrol(&self, request: &EnrolDeviceRequest) -> Result<EnrolDeviceResponse, Status> {
        let brand = named("brand", &request.brand)?;
        let model = named("model", &request.model)?;
        let os_name = named("os_name", &request.os_name)?;
        let login = self.new_login(&brand, &model, &os_name).await?;
        let login = login.ok_or_else(|| refusal::missing_step(ANOTHER_PERSON))?;
        let made = self.make(&login, "device_enrolled", "EnrolDevice").await?;
        let (made, entry) = made.ok_or_else(|| refusal::missing_step(ANOTHER_PERSON))?;
        let row = devices::Model {
            gym_id: self.gym.to_owned(),
            member_id: self.member.member_id.clone(),
            login_id: made.login.id,
            kisi_user_id: self.user,
            brand,
            model,
            os_name,
            is_primary: made.login.primary,
            enrolled_at: self.shared.now(),
        };
        let written = async {
            let txn = self.shared.db.begin().await?;
            row.clone()
                .into_active_model()
                .reset_all()
                .insert(&txn)
                .await?;
            audit::append(&txn, self.gym, &[entry], self.shared.now()).await?;
            txn.commit().await
        };
        written.await.map_err(refusal::store)?;
        let shown_once = |secret: Option<&SecretString>| {
            secret.map_or_else(String::new, |secret| secret.expose_secret().to_owned())
        };
        let scram = made.scram_credentials.as_ref();
        Ok(EnrolDeviceResponse {
            device: Some(shown(&row)),
            secret: shown_once(Some(&made.secret)),
            phone_key: shown_once(scram.and_then(|keys| keys.phone_key.as_ref())),
            online_certificate: shown_once(scram.and_then(|keys| keys.online_certificate.as_ref())),
        })
    }

    /// What a login of the member's is to be; None where Kisi's user and the member have another e-mail,
    /// because Kisi takes the e-mail for the person, and somebody else's login opens that one's doors.
    pub async fn new_login(
        &self,
        brand: &str,
        model: &str,
        os_name: &str,
    ) -> Result<Option<NewDeviceLogin>, Status> {
        let directory = &self.shared.directory;
        let person = directory.find_person(self.gym, &self.member.member_id);
        let person = person
            .await
            .map_err(|_| Status::unavailable("membership-events does not answer; try again"))?
            .ok_or_else(|| Status::not_found("there is no such member"))?;
        let held = self.kisi.find_user(Lane::Grant, self.user).await;
        let held = held.map_err(refusal::kisi)?;
        let email = person.email;
        let is_same = held.is_some_and(|user| user.has_email(&email));
        Ok(is_same.then(|| NewDeviceLogin {
            email,
            device_brand: brand.to_owned(),
            device_model: model.to_owned(),
            os_name: os_name.to_owned(),
        }))
    }

    /// Makes it, with room for it, and says what is to be logged; None where Kisi made it another
    /// person's, from whom it is taken back.
    pub async fn make(
        &self,
        login: &NewDeviceLogin,
        action: &str,
        call: &str,
    ) -> Result<Option<(CreatedLogin, Entry)>, Status> {
        self.make_room(call).await?;
        let sent_at = self.shared.now();
        let made = self.kisi.create_device_login(Lane::Grant.into(), login);
        let made = made.await.map_err(refusal::kisi)?;
        let entry = self
            .entry(action, call)
            .request("POST /logins", &LOGIN_FIELDS)
            .object(made.login.id)
            .between(sent_at, self.shared.now());
        if made.login.user_id.is_none_or(|user| user == self.user) {
            return Ok(Some((made, entry)));
        }
        audit::append_alone(self.shared, self.gym, entry.detail("another_person"))
            .await
            .map_err(refusal::store)?;
        self.withdraw(made.login.id, call).await?;
        Ok(None)
    }

    /// Forgets phones that Kisi knows no more, and below Kisi's limit leaves room for one.
    async fn make_room(&self, call: &str) -> Result<(), Status> {
        let at_kisi = self.logins_at_kisi().await?;
        let member = &self.member.member_id;
        let ours = devices::list(&self.shared.db, self.gym, member)
            .await
            .map_err(refusal::store)?;
        let ids: BTreeSet<i64> = at_kisi.iter().map(|login| login.id).collect();
        for gone in ours.iter().filter(|row| !ids.contains(&row.login_id)) {
            devices::remove(&self.shared.db, self.gym, gone.login_id)
                .await
                .map_err(refusal::store)?;
        }
        if at_kisi.len() < MOST_LOGINS {
            return Ok(());
        }
        let used = |id: i64| {
            let login = at_kisi.iter().find(|login| login.id == id);
            login.and_then(|login| login.last_used_at)
        };
        // Among ours, the one that was used least recently.
        let may_go = ours
            .iter()
            .filter(|row| ids.contains(&row.login_id) && !row.is_primary);
        let oldest = may_go.min_by_key(|row| (used(row.login_id), row.enrolled_at));
        match oldest {
            Some(oldest) => self.withdraw(oldest.login_id, call).await,
            // Nobody waits at a door for phones of hers that others enrolled: Kisi drops the one that was
            // used least recently.
            None if call == UNLOCK => Ok(()),
            None => Err(refusal::missing_step(
                "the member has 40 logins at Kisi, and none that may make room: reset the devices",
            )),
        }
    }

    /// The user's device logins, the one by which the server opens doors included.
    async fn logins_at_kisi(&self) -> Result<Vec<Login>, Status> {
        let listed = self.kisi.list_logins(Lane::Grant, self.user).await;
        let listed = listed.map_err(refusal::kisi)?;
        let user = self.user;
        let of_user = listed.items.into_iter();
        Ok(of_user
            .filter(|login| login.kind == "device" && login.user_id == Some(user))
            .collect())
    }

    /// Makes one phone the primary one.
    pub async fn make_primary(&self, request: &DeviceRequest) -> Result<Device, Status> {
        let no_such = || Status::not_found("the member has no such device");
        let login: i64 = request.device_id.parse().map_err(|_| no_such())?;
        let key = (self.gym.to_owned(), self.member.member_id.clone(), login);
        let row = devices::Entity::find_by_id(key)
            .one(&self.shared.db)
            .await
            .map_err(refusal::store)?
            .filter(|row| row.kisi_user_id == self.user)
            .ok_or_else(no_such)?;
        let sent_at = self.shared.now();
        match self.kisi.promote_login(Lane::Grant.into(), login).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {
                devices::remove(&self.shared.db, self.gym, login)
                    .await
                    .map_err(refusal::store)?;
                return Err(no_such());
            }
            Err(error) => return Err(refusal::kisi(error)),
        }
        let entry = self
            .entry("device_primary", "MakePrimary")
            .request("POST /logins/{id}/promote", &[])
            .object(login)
            .between(sent_at, self.shared.now());
        let written = async {
            let txn = self.shared.db.begin().await?;
            devices::set_primary(&txn, self.user, login).await?;
            audit::append(&txn, self.gym, &[entry], self.shared.now()).await?;
            txn.commit().await
        };
        written.await.map_err(refusal::store)?;
        Ok(shown(&devices::Model {
            is_primary: true,
            ..row
        }))
    }

    /// Withdraws every phone: also those that Kisi has and we do not know, of a user whom we made.
    pub async fn reset(&self) -> Result<ListDevicesResponse, Status> {
        let member = &self.member.member_id;
        let own = member_logins::Entity::find_by_id((self.gym.to_owned(), member.clone()))
            .one(&self.shared.db)
            .await
            .map_err(refusal::store)?
            .map(|row| row.login_id);
        let known = devices::logins(&self.shared.db, self.gym, member)
            .await
            .map_err(refusal::store)?;
        let mut logins: BTreeSet<i64> = known.into_iter().collect();
        if self.member.kisi_user_ours {
            logins.extend(self.logins_at_kisi().await?.iter().map(|login| login.id));
        }
        let mut stay = devices::elsewhere(&self.shared.db, self.gym, self.user)
            .await
            .map_err(refusal::store)?;
        stay.extend(own);
        for login in logins.into_iter().filter(|login| !stay.contains(login)) {
            self.withdraw(login, "ResetDevices").await?;
        }
        listed(self.shared, self.gym, &self.member).await
    }

    pub async fn withdraw(&self, login: i64, call: &str) -> Result<(), Status> {
        let sent_at = self.shared.now();
        let gone = self.kisi.delete_login(Lane::Grant.into(), login).await;
        gone.map_err(refusal::kisi)?;
        let entry = self
            .entry("device_withdrawn", call)
            .request("DELETE /logins/{id}", &[])
            .object(login)
            .between(sent_at, self.shared.now());
        let written = async {
            let txn = self.shared.db.begin().await?;
            devices::remove(&txn, self.gym, login).await?;
            audit::append(&txn, self.gym, &[entry], self.shared.now()).await?;
            txn.commit().await
        };
        written.await.map_err(refusal::store)
    }

    fn entry(&self, action: &str, call: &str) -> Entry {
        Entry::new(action)
            .about(&self.member.member_id)
            .caused_by(Cause::new("call", call, Some(self.actor)))
    }
}

fn named(field: &str, text: &str) -> Result<String, Status> {
    let text = text.trim();
    let fits = !text.is_empty() && text.chars().count() <= MOST_CHARACTERS;
    if fits && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(refusal::invalid(field, "1 to 100 characters are expected"))
}

fn shown(row: &devices::Model) -> Device {
    Device {
        device_id: row.login_id.to_string(),
        brand: row.brand.clone(),
        model: row.model.clone(),
        os_name: row.os_name.clone(),
        primary: row.is_primary,
        enrolled_at: Some(wire::timestamp(instant(row.enrolled_at))),
    }
}
