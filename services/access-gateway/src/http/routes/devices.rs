//! Phones of a member.

use std::sync::Arc;

use axum::Json as AnswerJson;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use contracts::access::v1 as wire;
use service_runtime::identity::Caller;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, App};
use crate::gateway::Gateway;
use crate::http::body::Json;
use crate::http::json::devices::{DeviceBody, DevicesBody, EnrolBody, EnrolledBody};

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(list_devices, enrol_device))
        .routes(routes!(make_primary))
        .routes(routes!(reset_devices))
}

fn of(gym_id: String, member_id: String) -> wire::GetAccessStatusRequest {
    wire::GetAccessStatusRequest { gym_id, member_id }
}

/// The member's phones.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/members/{member}/devices", tag = "devices",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member")),
    responses((status = 200, body = DevicesBody)))]
async fn list_devices(
    State(gateway): App,
    caller: Caller,
    Path((gym, member)): Path<(String, String)>,
) -> Answer<AnswerJson<DevicesBody>> {
    let devices = gateway.list_devices(&caller, of(gym, member)).await?;
    Ok(AnswerJson(devices.into()))
}

/// Enrols a phone. Its secret is answered this once and kept nowhere.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/members/{member}/devices", tag = "devices",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member")),
    request_body = EnrolBody,
    responses((status = 201, body = EnrolledBody)))]
async fn enrol_device(
    State(gateway): App,
    caller: Caller,
    Path((gym_id, member_id)): Path<(String, String)>,
    Json(body): Json<EnrolBody>,
) -> Answer<(StatusCode, AnswerJson<EnrolledBody>)> {
    let request = wire::EnrolDeviceRequest {
        gym_id,
        member_id,
        brand: body.brand,
        model: body.model,
        os_name: body.os_name,
    };
    let enrolled = gateway.enrol_device(&caller, request).await?;
    Ok((StatusCode::CREATED, AnswerJson(enrolled.into())))
}

/// Makes a phone the one that opens doors.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/members/{member}/devices/{id}/primary", tag = "devices",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member"),
        ("id" = String, Path, description = "The phone")),
    responses((status = 200, body = DeviceBody)))]
async fn make_primary(
    State(gateway): App,
    caller: Caller,
    Path((gym_id, member_id, device_id)): Path<(String, String, String)>,
) -> Answer<AnswerJson<DeviceBody>> {
    let request = wire::DeviceRequest {
        gym_id,
        member_id,
        device_id,
    };
    let device = gateway.make_primary(&caller, request).await?;
    Ok(AnswerJson(device.into()))
}

/// Withdraws every phone of a member. For staff.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/members/{member}/devices/reset", tag = "devices",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member")),
    responses((status = 200, body = DevicesBody)))]
async fn reset_devices(
    State(gateway): App,
    caller: Caller,
    Path((gym, member)): Path<(String, String)>,
) -> Answer<AnswerJson<DevicesBody>> {
    let left = gateway.reset_devices(&caller, of(gym, member)).await?;
    Ok(AnswerJson(left.into()))
}
