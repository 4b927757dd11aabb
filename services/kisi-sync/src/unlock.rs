//! Opening a door as the member: with a login of the member's own, made once and sealed, so that
//! Kisi enforces the member's rights and logs the member. Coordinates are passed on and not kept.

use std::sync::Arc;

use contracts::access::v1::{Action, Alert, UnlockRequest, UnlockResponse};
use kisi_client::model;
use kisi_client::{HttpKisi, KisiError, KisiWrite, Lane, Pacer};
use sea_orm::{EntityTrait, TransactionTrait};
use secrecy::SecretString;
use tonic::Status;

use crate::audit::{self, Entry};
use crate::devices::{Phones, UNLOCK};
use crate::sealing::{Purpose, Sealed};
use crate::shared::Shared;
use crate::store::members::{self, Cause};
use crate::store::{integrations, member_logins};
use crate::{refusal, unlock_words};

/// Opens one door for one member, and keeps that it was tried. A 503 or a lost answer is never tried
/// again; where Kisi knows the login no more, another one is made, once.
pub async fn unlock(
    shared: &Arc<Shared>,
    request: &UnlockRequest,
    actor: &str,
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
        .filter(|member| !member.erased)
        .ok_or_else(|| Status::not_found("there is no such member"))?;
    let attempt = Entry::new("unlocked")
        .about(id)
        .caused_by(Cause::new("call", UNLOCK, Some(actor)))
        .object(request.lock_id);
    let Some(user) = member.kisi_user_id else {
        let answer = refused("other", "You have no access at the door yet.", None);
        return kept(shared, gym, attempt, answer).await;
    };
    let door = model::UnlockRequest {
        location: request.location.as_ref().map(|at| model::Location {
            longitude: at.longitude,
            latitude: at.latitude,
        }),
        proximity_proof: request.proximity_proof.clone(),
    };
    let fields: Vec<&str> = [
        request.location.as_ref().map(|_| "context.location"),
        request
            .proximity_proof
            .as_ref()
            .map(|_| "lock.proximity_proof"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let asked = attempt.clone().request("POST /locks/{id}/unlock", &fields);
    let mut is_second = false;
    let (attempt, answer) = loop {
        let login = match find_login(shared, gym, id, user).await? {
            Some(login) => login,
            None => match make_login(shared, &integration, member.clone(), user, actor).await? {
                Some(login) => login,
                None => {
                    let message = "Kisi knows another person by your e-mail: the gym has to look.";
                    let answer = refused("identity_conflict", message, None);
                    return kept(shared, gym, attempt, answer).await;
                }
            },
        };
        let kisi = as_member(shared, user, login.secret);
        let sent_at = shared.now();
        let answer = kisi
            .unlock(Lane::Grant.into(), request.lock_id, &door)
            .await;
        if matches!(&answer, Err(error) if error.status() == Some(401)) {
            // The login is gone at Kisi, and so no door was opened by it.
            member_logins::forget(&shared.db, gym, id, login.id)
                .await
                .map_err(refusal::store)?;
            if !is_second {
                is_second = true;
                continue;
            }
        }
        break (asked.clone().between(sent_at, shared.now()), answer);
    };
    match answer {
        Ok(()) => {
            let opened = UnlockResponse {
                unlocked: true,
                alert: None,
            };
            kept(shared, gym, attempt, opened).await
        }
        Err(error) => kept(shared, gym, attempt, explain(&error)).await,
    }
}

/// The answer, once the attempt is kept.
async fn kept(
    shared: &Shared,
    gym: &str,
    mut attempt: Entry,
    answer: UnlockResponse,
) -> Result<UnlockResponse, Status> {
    if let Some(alert) = &answer.alert {
        attempt.action = "unlock_refused".to_owned();
        attempt.detail.clone_from(&alert.code);
    }
    audit::append_alone(shared, gym, attempt)
        .await
        .map_err(refusal::store)?;
    Ok(answer)
}

/// What the body of a new login holds.
pub const LOGIN_FIELDS: [&str; 6] = [
    "type",
    "email",
    "device_brand",
    "device_model",
    "os_name",
    "expire",
];

/// The member's own budget at Kisi.
fn as_member(shared: &Shared, user: i64, secret: SecretString) -> HttpKisi {
    let pacer: Arc<Pacer> = shared.pacers.of_user(user, &secret);
    HttpKisi::new(shared.kisi.clone(), secret, pacer)
}

/// The member's own.
struct OwnLogin {
    id: i64,
    secret: SecretString,
}

async fn find_login(
    shared: &Shared,
    gym: &str,
    member: &str,
    user: i64,
) -> Result<Option<OwnLogin>, Status> {
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
    let opened = shared
        .sealer
        .open(Purpose::MemberLogin, gym, member, &sealed);
    let secret = opened.map_err(|error| refusal::internal(&error))?;
    Ok(Some(OwnLogin {
        id: row.login_id,
        secret,
    }))
}

/// A login of the member's own; None where it would be another person's. Of two that are made at once, by a
/// member who taps twice, the one that is kept first stays, and both open by it.
async fn make_login(
    shared: &Shared,
    integration: &integrations::Model,
    member: members::Model,
    user: i64,
    actor: &str,
) -> Result<Option<OwnLogin>, Status> {
    let gym = &integration.gym_id;
    let id = member.member_id.clone();
    let kisi = shared
        .kisi_of(integration)
        .map_err(|error| refusal::internal(&error))?;
    // To Kisi it is one more phone.
    let phones = Phones::at(shared, gym, member, user, kisi, actor);
    let Some(login) = phones.new_login("Gymflow", "unlock", "server").await? else {
        return Ok(None);
    };
    let Some((made, entry)) = phones.make(&login, "login_made", UNLOCK).await? else {
        return Ok(None);
    };
    let sealed = shared
        .sealer
        .seal(Purpose::MemberLogin, gym, &id, &made.secret, rand::random())
        .map_err(|error| refusal::internal(&error))?;
    let row = member_logins::Model {
        gym_id: gym.clone(),
        member_id: id.clone(),
        kisi_user_id: user,
        login_id: made.login.id,
        sealed_secret: sealed.bytes,
        sealing_key_id: sealed.key_id,
        created_at: shared.now(),
    };
    let written = async {
        let txn = shared.db.begin().await?;
        let is_kept = member_logins::keep(&txn, row).await?;
        audit::append(&txn, gym, &[entry], shared.now()).await?;
        txn.commit().await?;
        Ok(is_kept)
    };
    if written.await.map_err(refusal::store)? {
        return Ok(Some(OwnLogin {
            id: made.login.id,
            secret: made.secret,
        }));
    }
    phones.withdraw(made.login.id, UNLOCK).await?;
    find_login(shared, gym, &id, user).await
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
