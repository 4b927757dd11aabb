//! Is this key good, whose is it, and may its owner do what is needed?
//!
//! Asked when a key is saved, and again with each reconcile: the owner's role first, because that fails
//! when the key is dead. What is found is kept, and what differs from the check before is kept as a
//! change, so that each shows once.

use std::collections::BTreeSet;

use kisi_client::model::{AppliesToType, AssignmentFilter, Integration, RoleAssignment};
use kisi_client::{HttpKisi, KisiError, KisiRead, Lane};
use sea_orm::{ConnectionTrait, DbErr};
use secrecy::SecretString;
use tonic::Status;

use crate::refusal;
use crate::shared::Shared;
use crate::store::integrations;
use crate::store::key_checks::{self, OtherIntegration};

/// What our own event webhooks are called, by the gym.
const OURS: &str = "Gymflow ";

/// Where others can add rights or people to what we do.
const WEBHOOK: &str = "event_webhook";

/// What Kisi says of a key.
pub struct CheckedKey {
    pub organization: i64,
    pub organization_name: String,
    pub owner: i64,
    /// Owner of the organization; else administrator, or a role of the gym's own making.
    pub owner_is_owner: bool,
    pub owner_role: String,
    /// The rest; None where the key may not be told.
    pub surroundings: Option<Surroundings>,
}

/// What else there is in the organization and at the owner's account.
pub struct Surroundings {
    pub dedicated: bool,
    pub integrations: Vec<OtherIntegration>,
}

/// A key that Kisi knows, and whose it is.
pub struct Login {
    pub secret: SecretString,
    pub owner: Option<i64>,
}

/// `GET /login`.
pub async fn log_in(shared: &Shared, secret: SecretString) -> Result<Login, Status> {
    let kisi: HttpKisi = shared.kisi_with(secret.clone());
    let login = kisi.current_login(Lane::SetUp).await;
    let login = login.map_err(refusal::new_key)?;
    if login.kind != "api" {
        return Err(refusal::invalid(
            "api_key",
            "this is not an API key of Kisi's",
        ));
    }
    Ok(Login {
        secret,
        owner: login.user_id,
    })
}

/// `GET /user`, `/organization`, the owner's rights and logins, and the integrations.
pub async fn check(shared: &Shared, login: &Login) -> Result<CheckedKey, Status> {
    let lane = Lane::SetUp;
    let kisi = match login.owner {
        // From here on at the pace of its owner, whom other keys may speak for too.
        Some(owner) => shared.kisi_of_owner(owner, login.secret.clone()),
        None => shared.kisi_with(login.secret.clone()),
    };
    let user = kisi.current_user(lane).await.map_err(refusal::new_key)?;
    let organization = kisi
        .current_organization(lane)
        .await
        .map_err(refusal::new_key)?;
    let role = match role_that_works(&kisi, lane, user.id).await {
        Ok(role) => role,
        Err(error) if error.status() == Some(403) => {
            return Err(refusal::invalid(
                "api_key",
                "the key's owner may not manage access: an administrator's key is needed",
            ));
        }
        Err(error) => return Err(refusal::new_key(error)),
    };
    let surroundings = look_around(&kisi, lane, user.id, &role).await;
    Ok(CheckedKey {
        organization: organization.id,
        organization_name: organization.name,
        owner: user.id,
        owner_is_owner: role.is_owner,
        owner_role: role.id,
        surroundings: surroundings.map_err(refusal::new_key)?,
    })
}

/// The widest role of a key's owner.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct OwnerRole {
    /// Kisi's id of it; empty where the owner has none on the organization or a place.
    pub id: String,
    /// Everything in the organization.
    pub is_owner: bool,
}

/// One request; it fails when the key is dead.
pub async fn owner_role(kisi: &HttpKisi, lane: Lane, owner: i64) -> Result<OwnerRole, KisiError> {
    let rights = kisi
        .list_role_assignments(lane, AssignmentFilter::User(owner))
        .await?;
    Ok(widest(&rights.items))
}

/// The same, where Kisi answers as to an administrator. A role that comes by a team is in no list of the
/// owner's own rights; what only administrators may ask is answered all the same.
async fn role_that_works(kisi: &HttpKisi, lane: Lane, owner: i64) -> Result<OwnerRole, KisiError> {
    let role = owner_role(kisi, lane, owner).await?;
    if role.id.is_empty() {
        kisi.list_integrations(lane).await?;
    }
    Ok(role)
}

/// Whether the key can still do what it is for, after Kisi has forbidden something.
pub async fn still_may(kisi: &HttpKisi, lane: Lane, owner: i64) -> Result<bool, KisiError> {
    match role_that_works(kisi, lane, owner).await {
        Ok(_) => Ok(true),
        Err(error) if error.status() == Some(403) => Ok(false),
        Err(error) => Err(error),
    }
}

fn widest(rights: &[RoleAssignment]) -> OwnerRole {
    let on = |kind: AppliesToType| {
        let mut roles: Vec<&str> = rights
            .iter()
            .filter(|right| right.applies_to_type == kind)
            .map(|right| right.role_id.as_str())
            .filter(|role| !role.ends_with("_basic"))
            .collect();
        roles.sort_by_key(|role| (!role.contains("owner"), !role.contains("admin")));
        roles.first().map(|role| (*role).to_owned())
    };
    let organization = on(AppliesToType::Organization);
    OwnerRole {
        is_owner: organization
            .as_ref()
            .is_some_and(|role| role.contains("owner")),
        id: organization
            .or_else(|| on(AppliesToType::Place))
            .unwrap_or_default(),
    }
}

/// The owner's logins and the organization's integrations; None where the key may not see them.
pub async fn look_around(
    kisi: &HttpKisi,
    lane: Lane,
    owner: i64,
    role: &OwnerRole,
) -> Result<Option<Surroundings>, KisiError> {
    let looked = async {
        let logins = kisi.list_logins(lane, owner).await?;
        let integrations = kisi.list_integrations(lane).await?;
        Ok((logins.items, integrations.items))
    };
    let (logins, integrations) = match looked.await {
        Ok(found) => found,
        Err(error) if KisiError::status(&error) == Some(403) => return Ok(None),
        Err(error) => return Err(error),
    };
    let keys = logins.iter().filter(|login| login.kind == "api").count();
    Ok(Some(Surroundings {
        // Whoever owns the organization is somebody.
        dedicated: !role.is_owner && keys == 1 && logins.len() == 1,
        integrations: others(&integrations),
    }))
}

fn others(integrations: &[Integration]) -> Vec<OtherIntegration> {
    let ours = |row: &&Integration| row.kind == WEBHOOK && row.name.starts_with(OURS);
    let others: BTreeSet<OtherIntegration> = integrations
        .iter()
        .filter(|row| !ours(row))
        .map(|row| OtherIntegration {
            id: row.id,
            kind: row.kind.clone(),
            enabled: row.enabled,
        })
        .collect();
    others.into_iter().collect()
}

/// Keeps what the check of a saved key found; `before` is the integration with the key before it, if it
/// had one.
pub async fn keep_saved<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    before: Option<&integrations::Model>,
    key: &CheckedKey,
    now: i64,
) -> Result<(), DbErr> {
    match before {
        Some(before) => {
            let held = key_checks::find(db, gym).await?;
            let mut row = held.unwrap_or_else(|| key_checks::Model::unchecked(gym));
            let id = |id: Option<i64>| id.map(|id| id.to_string()).unwrap_or_default();
            row.note("status", &before.key_status, "ok", now)?;
            let (from, to) = (id(before.owner_user_id), id(Some(key.owner)));
            row.note("owner", &from, &to, now)?;
            let (from, to) = (id(before.organization_id), id(Some(key.organization)));
            row.note("organization", &from, &to, now)?;
            key_checks::put(db, row).await?;
        }
        None => key_checks::put(db, key_checks::Model::unchecked(gym)).await?,
    }
    let surroundings = key.surroundings.as_ref();
    keep(db, gym, &key.owner_role, surroundings, now).await
}

/// Keeps what a check found, and what it found changed.
pub async fn keep<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    role: &str,
    surroundings: Option<&Surroundings>,
    now: i64,
) -> Result<(), DbErr> {
    let held = key_checks::find(db, gym).await?;
    let is_first = held.as_ref().is_none_or(|row| row.wholly_checked_at == 0);
    let mut row = held.unwrap_or_else(|| key_checks::Model::unchecked(gym));
    if !is_first {
        let before = row.owner_role.clone();
        row.note("owner_role", &before, role, now)?;
    }
    role.clone_into(&mut row.owner_role);
    if let Some(found) = surroundings {
        if !is_first {
            note_surroundings(&mut row, found, now)?;
        }
        row.dedicated = found.dedicated;
        row.integrations =
            serde_json::to_string(&found.integrations).unwrap_or_else(|_| "[]".to_owned());
        row.wholly_checked_at = now;
    }
    key_checks::put(db, row).await
}

fn note_surroundings(
    row: &mut key_checks::Model,
    found: &Surroundings,
    now: i64,
) -> Result<(), DbErr> {
    let (before, after) = (row.dedicated.to_string(), found.dedicated.to_string());
    row.note("dedicated_account", &before, &after, now)?;
    let known = row.integrations()?;
    let shown = |one: &OtherIntegration| format!("{} {}", one.kind, one.id);
    let lacks = |list: &[OtherIntegration], id: i64| list.iter().all(|one| one.id != id);
    for new in found
        .integrations
        .iter()
        .filter(|one| lacks(&known, one.id))
    {
        row.note("integration_added", "", &shown(new), now)?;
    }
    for old in known
        .iter()
        .filter(|one| lacks(&found.integrations, one.id))
    {
        row.note("integration_removed", &shown(old), "", now)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_role_is_the_organization_s_and_a_mere_member_has_none() {
        let right = |kind: &str, role: &str| -> RoleAssignment {
            serde_json::from_value(serde_json::json!({
                "id": 1, "role_id": role, "applies_to_type": kind, "applies_to_id": 1,
                "assignee_type": "User", "assignee_id": 1,
            }))
            .unwrap()
        };
        let place = right("Place", "place_administrator");
        let cases = [
            (vec![], "", false),
            (vec![right("Organization", "organization_basic")], "", false),
            (vec![right("Group", "group_manager")], "", false),
            (vec![place.clone()], "place_administrator", false),
            (
                vec![
                    place.clone(),
                    right("Organization", "organization_administrator"),
                ],
                "organization_administrator",
                false,
            ),
            (
                vec![
                    right("Organization", "organization_administrator"),
                    right("Organization", "organization_owner"),
                    place,
                ],
                "organization_owner",
                true,
            ),
            (vec![right("Organization", "custom_7")], "custom_7", false),
        ];
        for (rights, id, is_owner) in cases {
            let id = id.to_owned();
            assert_eq!(widest(&rights), OwnerRole { id, is_owner });
        }
    }
}
