//! A member's page and what can be done from it.

use std::sync::Arc;

use axum::Json as AnswerJson;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use contracts::access::v1 as wire;
use contracts::integration::v1::SyncMemberRequest;
use serde::Deserialize;
use service_runtime::identity::Caller;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, App};
use crate::gateway::Gateway;
use crate::http::body::{Json, OptionalJson};
use crate::http::json::access::{
    AccessBody, AlertsBody, MembersBody, OutcomeBody, PermissionsBody, ResumeBody, UnlockBody,
    UnlockedBody,
};
use crate::permissions::PhonePermissions;
use crate::refusal::Refusal;

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(get_access))
        .routes(routes!(unlock))
        .routes(routes!(resume))
        .routes(routes!(sync_member))
        .routes(routes!(report_permissions))
        .routes(routes!(list_members))
}

/// A member's page: what is decided, what Kisi accepted, doors, alerts and ways back in.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/members/{member}/access", tag = "members",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member")),
    responses((status = 200, body = AccessBody)))]
async fn get_access(
    State(gateway): App,
    caller: Caller,
    Path((gym, member)): Path<(String, String)>,
) -> Answer<AnswerJson<AccessBody>> {
    let access = gateway.access_status(&caller, &gym, &member).await?;
    Ok(AnswerJson(access.into()))
}

/// Opens a door as the member.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/members/{member}/unlock", tag = "members",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member")),
    request_body = UnlockBody,
    responses((status = 200, body = UnlockedBody)))]
async fn unlock(
    State(gateway): App,
    caller: Caller,
    Path((gym, member)): Path<(String, String)>,
    Json(body): Json<UnlockBody>,
) -> Answer<AnswerJson<UnlockedBody>> {
    if let Some(location) = &body.location {
        // NaN is in no range.
        let ranges = [
            ("location.latitude", location.latitude, 90.0),
            ("location.longitude", location.longitude, 180.0),
        ];
        for (field, value, most) in ranges {
            if !(-most..=most).contains(&value) {
                let message = format!("degrees from -{most} to {most} are expected");
                return Err(Refusal::field(field, message).into());
            }
        }
    }
    let request = wire::UnlockRequest {
        gym_id: gym,
        member_id: member,
        lock_id: body.lock_id,
        location: body.location.map(|location| wire::Location {
            latitude: location.latitude,
            longitude: location.longitude,
            accuracy_metres: location.accuracy_metres,
        }),
        proximity_proof: body.proximity_proof,
    };
    let answer = gateway.unlock(&caller, request).await?;
    Ok(AnswerJson(UnlockedBody {
        unlocked: answer.unlocked,
        alert: answer.alert.map(Into::into),
    }))
}

/// Asks to be resumed, by the gym's `member_resume` policy.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/members/{member}/resume", tag = "members",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member")),
    request_body(content = Option<ResumeBody>),
    responses((status = 200, body = OutcomeBody)))]
async fn resume(
    State(gateway): App,
    caller: Caller,
    Path((gym, member)): Path<(String, String)>,
    OptionalJson(body): OptionalJson<ResumeBody>,
) -> Answer<AnswerJson<OutcomeBody>> {
    let request = wire::ResumeAccessRequest {
        gym_id: gym,
        member_id: member,
        membership_id: body.membership_id.unwrap_or_default(),
    };
    let outcome = gateway.resume(&caller, &request).await?;
    Ok(AnswerJson(OutcomeBody {
        outcome: outcome.as_str().to_owned(),
    }))
}

/// Makes Kisi match for one member, now.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/members/{member}/sync", tag = "members",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member")),
    responses((status = 202, body = OutcomeBody)))]
async fn sync_member(
    State(gateway): App,
    caller: Caller,
    Path((gym, member)): Path<(String, String)>,
) -> Answer<(StatusCode, AnswerJson<OutcomeBody>)> {
    let request = SyncMemberRequest {
        gym_id: gym,
        member_id: member,
    };
    let outcome = gateway.sync_member(&caller, request).await?.outcome;
    Ok((StatusCode::ACCEPTED, AnswerJson(OutcomeBody { outcome })))
}

/// What the phone says of its own permissions; shown as alerts until it allows all.
#[utoipa::path(put, path = "/api/v1/gyms/{gym}/members/{member}/permissions", tag = "devices",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member")),
    request_body = PermissionsBody,
    responses((status = 200, body = AlertsBody)))]
async fn report_permissions(
    State(gateway): App,
    caller: Caller,
    Path((gym, member)): Path<(String, String)>,
    Json(body): Json<PermissionsBody>,
) -> Answer<AnswerJson<AlertsBody>> {
    let phone = PhonePermissions {
        bluetooth: body.bluetooth,
        location: body.location,
    };
    let alerts = gateway.report_permissions(&caller, &gym, &member, phone)?;
    Ok(AnswerJson(AlertsBody {
        alerts: alerts
            .into_iter()
            .map(|alert| wire::Alert::from(alert).into())
            .collect(),
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct MembersQuery {
    /// Part of a name or an e-mail.
    query: Option<String>,
    /// `granted`, `granting`, `denied`, `revoking` or `held`.
    status: Option<String>,
    /// 1 to 500; 100 when absent.
    page_size: Option<String>,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
}

/// Members with their access, a page at a time.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/members", tag = "members",
    params(("gym" = String, Path, description = "The gym"), MembersQuery),
    responses((status = 200, body = MembersBody)))]
async fn list_members(
    State(gateway): App,
    caller: Caller,
    Path(gym): Path<String>,
    Query(query): Query<MembersQuery>,
) -> Answer<AnswerJson<MembersBody>> {
    let page_size = match query.page_size.as_deref() {
        None | Some("") => 0,
        Some(text) => text
            .parse()
            .ok()
            .filter(|size| *size > 0)
            .ok_or_else(|| Refusal::field("page_size", "1 to 500 is expected"))?,
    };
    let request = wire::ListMembersAccessRequest {
        gym_id: gym,
        query: query.query.unwrap_or_default(),
        status: query.status.unwrap_or_default(),
        page_size,
        page_token: query.page_token.unwrap_or_default(),
    };
    let page = gateway.list_members(&caller, &request).await?;
    Ok(AnswerJson(page.into()))
}
