//! Opening a door as the member: with a login of the member's own, made once and sealed, so that
//! Kisi enforces the member's rights and logs the member. Coordinates are passed on and not kept.

use std::sync::Arc;

use contracts::access::v1::{Action, Alert, UnlockRequest, UnlockResponse};
use kisi_client::model::{self, NewDeviceLogin};
use kisi_client::{HttpKisi, KisiError, KisiWrite, Lane, Pacer};
use sea_orm::{ActiveValue, EntityTrait};
use secrecy::SecretString;
use tonic::Status;

use crate::sealing::{Purpose, Sealed};
use crate::shared::Shared;
use crate::store::{integrations, member_logins, members};
use crate::{refusal, unlock_words};

/// Opens one door for one member. A 503 or a lost answer is never tried again.
pub async fn unlock(
    shared: &Arc<Shared>,
    request: &UnlockRequest,
) -> Result<UnlockResponse, Status> {
    let (gym, id) = (&request.gym_id, &request.member_id);
    let integration = integrations::find(&shared.db, gym)
        .await
        .map_err(refusal::store)?
        // The member's own login works on when the gym's key does not.
        .filter(|row| row.enabled && row.activated)
        .ok_or_else(|| refusal::missing_step("the gym is not in sync with Kisi (StartSync)"))?;
    let member = members::find(&shared.db, gym, id)
        .await
        .map_err(refusal::store)?
        .ok_or_else(|| Status::not_found("there is no such member"))?;
    let Some(user) = member.kisi_user_id else {
        return Ok(refused(
            "other",
            "You have no access at the door yet.",
            None,
        ));
    };
    let secret = match find_login(shared, gym, id, user).await? {
        Some(secret) => secret,
        None => make_login(shared, &integration, id, user).await?,
    };
    let door = model::UnlockRequest {
        location: request.location.as_ref().map(|at| model::Location {
            longitude: at.longitude,
            latitude: at.latitude,
        }),
        proximity_proof: request.proximity_proof.clone(),
    };
    let kisi = as_member(shared, user, secret);
    match kisi
        .unlock(Lane::Grant.into(), request.lock_id, &door)
        .await
    {
        Ok(()) => Ok(UnlockResponse {
            unlocked: true,
            alert: None,
        }),
        Err(error) => {
            if error.status() == Some(401) {
                // The login is gone: the next attempt makes another.
                member_logins::Entity::delete_by_id((gym.clone(), id.clone()))
                    .exec(&shared.db)
                    .await
                    .map_err(refusal::store)?;
            }
            Ok(explain(&error))
        }
    }
}

/// The member's own budget at Kisi.
fn as_member(shared: &Shared, user: i64, secret: SecretString) -> HttpKisi {
    let pacer: Arc<Pacer> = shared.pacers.of_user(user, &secret);
    HttpKisi::new(shared.kisi.clone(), secret, pacer)
}

async fn find_login(
    shared: &Shared,
    gym: &str,
    member: &str,
    user: i64,
) -> Result<Option<SecretString>, Status> {
    let found = member_logins::Entity::find_by_id((gym.to_owned(), member.to_owned()))
        .one(&shared.db)
        .await
        .map_err(refusal::store)?;
    let Some(row) = found.filter(|row| row.kisi_user_id == user) else {
        return Ok(None);
    };
    let sealed = Sealed {
        key_id: row.sealing_key_id,
        bytes: row.sealed_secret,
    };
    shared
        .sealer
        .open(Purpose::MemberLogin, gym, member, &sealed)
        .map(Some)
        .map_err(|error| refusal::internal(&error))
}

async fn make_login(
    shared: &Shared,
    integration: &integrations::Model,
    member: &str,
    user: i64,
) -> Result<SecretString, Status> {
    let gym = &integration.gym_id;
    let person = shared.directory.find_person(gym, member).await;
    let person = person
        .map_err(|_| Status::unavailable("membership-events does not answer; try again"))?
        .ok_or_else(|| Status::not_found("there is no such member"))?;
    let kisi = shared
        .kisi_of(integration)
        .map_err(|error| refusal::internal(&error))?;
    let login = NewDeviceLogin {
        email: person.email,
        device_brand: "Gymflow".to_owned(),
        device_model: "unlock".to_owned(),
        os_name: "server".to_owned(),
    };
    let made = kisi.create_device_login(Lane::Grant.into(), &login).await;
    let made = made.map_err(refusal::kisi)?;
    let sealed = shared
        .sealer
        .seal(
            Purpose::MemberLogin,
            gym,
            member,
            &made.secret,
            rand::random(),
        )
        .map_err(|error| refusal::internal(&error))?;
    let row = member_logins::ActiveModel {
        gym_id: ActiveValue::Set(gym.clone()),
        member_id: ActiveValue::Set(member.to_owned()),
        kisi_user_id: ActiveValue::Set(user),
        login_id: ActiveValue::Set(made.login.id),
        sealed_secret: ActiveValue::Set(sealed.bytes),
        sealing_key_id: ActiveValue::Set(sealed.key_id),
        created_at: ActiveValue::Set(shared.now()),
    };
    member_logins::Entity::delete_by_id((gym.clone(), member.to_owned()))
        .exec(&shared.db)
        .await
        .map_err(refusal::store)?;
    member_logins::Entity::insert(row)
        .exec_without_returning(&shared.db)
        .await
        .map_err(refusal::store)?;
    Ok(made.secret)
}

fn explain(error: &KisiError) -> UnlockResponse {
    match error.code() {
        Some(code) => {
            let (alert, action, message) = unlock_words::of(code);
            let kisi_code = (alert == "other").then(|| code.to_owned());
            told(alert, action, message, kisi_code)
        }
        None => refused(
            "integration_unavailable",
            "Kisi did not answer: look whether the door has opened before you try again.",
            None,
        ),
    }
}

fn refused(code: &str, message: &str, kisi_code: Option<String>) -> UnlockResponse {
    told(code, "contact_gym", message, kisi_code)
}

fn told(code: &str, action: &str, message: &str, kisi_code: Option<String>) -> UnlockResponse {
    UnlockResponse {
        unlocked: false,
        alert: Some(Alert {
            code: code.to_owned(),
            message: message.to_owned(),
            action: (!action.is_empty()).then(|| Action {
                kind: action.to_owned(),
                url: None,
                at: None,
            }),
            kisi_code,
        }),
    }
}
