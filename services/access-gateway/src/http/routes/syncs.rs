//! Previewing, starting and following a sync; plans that wait for a person.

use std::sync::Arc;

use axum::Json as AnswerJson;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use contracts::integration::v1 as wire;
use service_runtime::identity::Caller;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, App};
use crate::gateway::Gateway;
use crate::http::body::{Json, OptionalJson};
use crate::http::json::sync::{
    ApproveBody, DiscardBody, HeldPlanBody, HeldPlansBody, PreviewBody, PreviewRequestBody,
    StartSyncBody, SyncBody,
};

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(preview))
        .routes(routes!(start_sync))
        .routes(routes!(get_sync))
        .routes(routes!(list_held_plans))
        .routes(routes!(approve))
        .routes(routes!(discard))
}

/// What a sync would do, with a digest to confirm it by. Writes nothing to Kisi.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/integration/preview", tag = "sync",
    params(("gym" = String, Path, description = "The gym")),
    request_body(content = Option<PreviewRequestBody>),
    responses((status = 200, body = PreviewBody)))]
async fn preview(
    State(gateway): App,
    caller: Caller,
    Path(gym): Path<String>,
    OptionalJson(body): OptionalJson<PreviewRequestBody>,
) -> Answer<AnswerJson<PreviewBody>> {
    let request = wire::PreviewSyncRequest {
        gym_id: gym,
        associations: body.associations.map(|associations| wire::AssociationSet {
            associations: associations.into_iter().map(Into::into).collect(),
        }),
    };
    let preview = gateway.preview_sync(&caller, request).await?;
    Ok(AnswerJson(preview.into()))
}

/// A full reconcile now; the first one opens the integration.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/integration/sync", tag = "sync",
    params(("gym" = String, Path, description = "The gym")),
    request_body(content = Option<StartSyncBody>),
    responses((status = 202, body = SyncBody)))]
async fn start_sync(
    State(gateway): App,
    caller: Caller,
    Path(gym): Path<String>,
    OptionalJson(body): OptionalJson<StartSyncBody>,
) -> Answer<(StatusCode, AnswerJson<SyncBody>)> {
    let request = wire::StartSyncRequest {
        gym_id: gym,
        digest: body.digest,
    };
    let sync = gateway.start_sync(&caller, request).await?;
    Ok((StatusCode::ACCEPTED, AnswerJson(sync.into())))
}

/// How a sync goes, and what it did.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/integration/syncs/{id}", tag = "sync",
    params(("gym" = String, Path, description = "The gym"), ("id" = String, Path, description = "The sync")),
    responses((status = 200, body = SyncBody)))]
async fn get_sync(
    State(gateway): App,
    caller: Caller,
    Path((gym, id)): Path<(String, String)>,
) -> Answer<AnswerJson<SyncBody>> {
    let request = wire::GetSyncRequest {
        gym_id: gym,
        sync_id: id,
    };
    let sync = gateway.get_sync(&caller, request).await?;
    Ok(AnswerJson(sync.into()))
}

/// Plans that wait for a person.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/integration/held-plans", tag = "sync",
    params(("gym" = String, Path, description = "The gym")),
    responses((status = 200, body = HeldPlansBody)))]
async fn list_held_plans(
    State(gateway): App,
    caller: Caller,
    Path(gym): Path<String>,
) -> Answer<AnswerJson<HeldPlansBody>> {
    let request = wire::GymRequest { gym_id: gym };
    let plans = gateway.list_held_plans(&caller, request).await?;
    Ok(AnswerJson(plans.into()))
}

/// Applies exactly the set shown under this digest. 409 when it no longer fits.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/integration/held-plans/{id}/approve", tag = "sync",
    params(("gym" = String, Path, description = "The gym"), ("id" = String, Path, description = "The held plan")),
    request_body = ApproveBody,
    responses((status = 200, body = HeldPlanBody)))]
async fn approve(
    State(gateway): App,
    caller: Caller,
    Path((gym, id)): Path<(String, String)>,
    Json(body): Json<ApproveBody>,
) -> Answer<AnswerJson<HeldPlanBody>> {
    let request = wire::DecidePlanRequest {
        gym_id: gym,
        id,
        digest: body.digest,
    };
    let plan = gateway.approve_plan(&caller, request).await?;
    Ok(AnswerJson(plan.into()))
}

/// Lets a held plan go.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/integration/held-plans/{id}/discard", tag = "sync",
    params(("gym" = String, Path, description = "The gym"), ("id" = String, Path, description = "The held plan")),
    request_body(content = Option<DiscardBody>),
    responses((status = 200, body = HeldPlanBody)))]
async fn discard(
    State(gateway): App,
    caller: Caller,
    Path((gym, id)): Path<(String, String)>,
    OptionalJson(body): OptionalJson<DiscardBody>,
) -> Answer<AnswerJson<HeldPlanBody>> {
    let request = wire::DecidePlanRequest {
        gym_id: gym,
        id,
        digest: body.digest.unwrap_or_default(),
    };
    let plan = gateway.discard_plan(&caller, request).await?;
    Ok(AnswerJson(plan.into()))
}
