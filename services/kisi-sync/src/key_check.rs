//! Is this key good, whose is it, and may its owner do what is needed?

use kisi_client::model::{AppliesToType, AssignmentFilter};
use kisi_client::{HttpKisi, KisiRead, Lane};
use secrecy::SecretString;
use tonic::Status;

use crate::refusal;
use crate::shared::Shared;

/// What Kisi says of a key.
pub struct CheckedKey {
    pub organization: i64,
    pub organization_name: String,
    pub owner: i64,
    /// Owner of the organization; else administrator, or a role of the gym's own making.
    pub owner_is_owner: bool,
}

/// `GET /login`, `/user`, `/organization` and the owner's rights.
pub async fn check(shared: &Shared, secret: &SecretString) -> Result<CheckedKey, Status> {
    let kisi: HttpKisi = shared.kisi_with(secret.clone());
    let lane = Lane::SetUp;
    let login = kisi.current_login(lane).await.map_err(refusal::new_key)?;
    if login.kind != "api" {
        return Err(refusal::invalid(
            "api_key",
            "this is not an API key of Kisi's",
        ));
    }
    let kisi = match login.user_id {
        // From here on at the pace of its owner, whom other keys may speak for too.
        Some(owner) => shared.kisi_of_owner(owner, secret.clone()),
        None => kisi,
    };
    let user = kisi.current_user(lane).await.map_err(refusal::new_key)?;
    let organization = kisi
        .current_organization(lane)
        .await
        .map_err(refusal::new_key)?;
    let rights = kisi
        .list_role_assignments(lane, AssignmentFilter::User(user.id))
        .await;
    let rights = match rights {
        Ok(rights) => rights,
        Err(error) if error.status() == Some(403) => {
            return Err(refusal::invalid(
                "api_key",
                "the key's owner may not manage access: an administrator's key is needed",
            ));
        }
        Err(error) => return Err(refusal::new_key(error)),
    };
    let owner_is_owner = rights.items.iter().any(|right| {
        right.applies_to_type == AppliesToType::Organization && right.role_id.contains("owner")
    });
    Ok(CheckedKey {
        organization: organization.id,
        organization_name: organization.name,
        owner: user.id,
        owner_is_owner,
    })
}
