//! Phones of a member. kisi-sync does not offer them yet: a permitted call is told so (501).

use std::sync::Arc;

use axum::extract::Path;
use service_runtime::identity::Caller;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Answer;
use crate::gateway::Gateway;
use crate::permit::{self, Scope, check_ids};
use crate::refusal::Refusal;

const DEVICES: &str = "device enrolment in kisi-sync";

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(list_devices, enrol_device))
        .routes(routes!(make_primary))
        .routes(routes!(reset_devices))
}

/// The member's phones. Not available yet.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/members/{member}/devices", tag = "devices",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member")),
    responses())]
async fn list_devices(caller: Caller, Path((gym, member)): Path<(String, String)>) -> Answer<()> {
    permit::member(&caller, &gym, &member, Scope::Read)?;
    Err(Refusal::NotYet(DEVICES).into())
}

/// Enrols a phone. Not available yet.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/members/{member}/devices", tag = "devices",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member")),
    responses())]
async fn enrol_device(caller: Caller, Path((gym, member)): Path<(String, String)>) -> Answer<()> {
    permit::member(&caller, &gym, &member, Scope::Override)?;
    Err(Refusal::NotYet(DEVICES).into())
}

/// Makes a phone the one that opens doors. Not available yet.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/members/{member}/devices/{id}/primary", tag = "devices",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member"),
        ("id" = String, Path, description = "The phone")),
    responses())]
async fn make_primary(
    caller: Caller,
    Path((gym, member, id)): Path<(String, String, String)>,
) -> Answer<()> {
    permit::member(&caller, &gym, &member, Scope::Override)?;
    check_ids(&[("device_id", &id)])?;
    Err(Refusal::NotYet(DEVICES).into())
}

/// Withdraws every phone of a member. Not available yet.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/members/{member}/devices/reset", tag = "devices",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member")),
    responses())]
async fn reset_devices(caller: Caller, Path((gym, member)): Path<(String, String)>) -> Answer<()> {
    check_ids(&[("gym_id", &gym), ("member_id", &member)])?;
    permit::staff(&caller, &gym, Scope::Override)?;
    Err(Refusal::NotYet(DEVICES).into())
}
