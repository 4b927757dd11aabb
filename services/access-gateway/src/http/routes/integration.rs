//! Setting an integration up, step by step, and changing it.

use std::sync::Arc;

use axum::Json as AnswerJson;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use contracts::integration::v1 as wire;
use serde::Deserialize;
use service_runtime::identity::Caller;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, App};
use crate::gateway::Gateway;
use crate::http::body::Json;
use crate::http::json::integration::{
    ApiKeyBody, GroupsBody, IntegrationBody, PlacesBody, PoliciesBody, PutAssociationsBody,
    PutPoliciesBody, SelectPlaceBody,
};

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(get_integration, enable, disable))
        .routes(routes!(list_places))
        .routes(routes!(select_place))
        .routes(routes!(list_groups))
        .routes(routes!(put_associations))
        .routes(routes!(rotate_api_key))
        .routes(routes!(get_policies, put_policies))
}

fn of(gym: String) -> wire::GymRequest {
    wire::GymRequest { gym_id: gym }
}

/// The integration's state: key, place, associations, what needs attention.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/integration", tag = "integration",
    params(("gym" = String, Path, description = "The gym")),
    responses((status = 200, body = IntegrationBody)))]
async fn get_integration(
    State(gateway): App,
    caller: Caller,
    Path(gym): Path<String>,
) -> Answer<AnswerJson<IntegrationBody>> {
    let integration = gateway.get_integration(&caller, of(gym)).await?;
    Ok(AnswerJson(integration.into()))
}

/// Saves a Kisi API key after checking it. 409 when the integration is enabled already.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/integration", tag = "integration",
    params(("gym" = String, Path, description = "The gym")),
    request_body = ApiKeyBody,
    responses((status = 201, body = IntegrationBody)))]
async fn enable(
    State(gateway): App,
    caller: Caller,
    Path(gym): Path<String>,
    Json(body): Json<ApiKeyBody>,
) -> Answer<(StatusCode, AnswerJson<IntegrationBody>)> {
    let request = wire::EnableIntegrationRequest {
        gym_id: gym,
        api_key: body.api_key,
    };
    let integration = gateway.enable_integration(&caller, request).await?;
    Ok((StatusCode::CREATED, AnswerJson(integration.into())))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DisableQuery {
    /// `keep` leaves what Kisi holds, `revoke` takes ours back.
    #[param(required = true)]
    access: Option<String>,
    /// With `revoke`: of a preview.
    digest: Option<String>,
}

/// Ends the integration.
#[utoipa::path(delete, path = "/api/v1/gyms/{gym}/integration", tag = "integration",
    params(("gym" = String, Path, description = "The gym"), DisableQuery),
    responses((status = 200, body = IntegrationBody)))]
async fn disable(
    State(gateway): App,
    caller: Caller,
    Path(gym): Path<String>,
    Query(query): Query<DisableQuery>,
) -> Answer<AnswerJson<IntegrationBody>> {
    let request = wire::DisableIntegrationRequest {
        gym_id: gym,
        access: query.access.unwrap_or_default(),
        digest: query.digest.filter(|digest| !digest.is_empty()),
    };
    let integration = gateway.disable_integration(&caller, request).await?;
    Ok(AnswerJson(integration.into()))
}

/// Places of the key's organization.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/integration/places", tag = "integration",
    params(("gym" = String, Path, description = "The gym")),
    responses((status = 200, body = PlacesBody)))]
async fn list_places(
    State(gateway): App,
    caller: Caller,
    Path(gym): Path<String>,
) -> Answer<AnswerJson<PlacesBody>> {
    let places = gateway.list_places(&caller, of(gym)).await?;
    Ok(AnswerJson(places.into()))
}

/// Chooses the place.
#[utoipa::path(put, path = "/api/v1/gyms/{gym}/integration/place", tag = "integration",
    params(("gym" = String, Path, description = "The gym")),
    request_body = SelectPlaceBody,
    responses((status = 200, body = IntegrationBody)))]
async fn select_place(
    State(gateway): App,
    caller: Caller,
    Path(gym): Path<String>,
    Json(body): Json<SelectPlaceBody>,
) -> Answer<AnswerJson<IntegrationBody>> {
    let request = wire::SelectPlaceRequest {
        gym_id: gym,
        place_id: body.place_id,
    };
    let integration = gateway.select_place(&caller, request).await?;
    Ok(AnswerJson(integration.into()))
}

/// Groups a plan can open: the place's, and the organization's that hold one of its doors.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/integration/groups", tag = "integration",
    params(("gym" = String, Path, description = "The gym")),
    responses((status = 200, body = GroupsBody)))]
async fn list_groups(
    State(gateway): App,
    caller: Caller,
    Path(gym): Path<String>,
) -> Answer<AnswerJson<GroupsBody>> {
    let groups = gateway.list_groups(&caller, of(gym)).await?;
    Ok(AnswerJson(groups.into()))
}

/// Replaces the whole set of associations. It applies at once after the first sync; before it
/// nothing is written to Kisi. 409 when the digest is of no preview of these associations.
#[utoipa::path(put, path = "/api/v1/gyms/{gym}/integration/associations", tag = "integration",
    params(("gym" = String, Path, description = "The gym")),
    request_body = PutAssociationsBody,
    responses((status = 200, body = IntegrationBody)))]
async fn put_associations(
    State(gateway): App,
    caller: Caller,
    Path(gym): Path<String>,
    Json(body): Json<PutAssociationsBody>,
) -> Answer<AnswerJson<IntegrationBody>> {
    let request = wire::SetAssociationsRequest {
        gym_id: gym,
        associations: body.associations.into_iter().map(Into::into).collect(),
        digest: body.digest,
    };
    let integration = gateway.set_associations(&caller, request).await?;
    Ok(AnswerJson(integration.into()))
}

/// Replaces the key; waiting work goes on. 409 for another organization's key while associations
/// stand.
#[utoipa::path(put, path = "/api/v1/gyms/{gym}/integration/api-key", tag = "integration",
    params(("gym" = String, Path, description = "The gym")),
    request_body = ApiKeyBody,
    responses((status = 200, body = IntegrationBody)))]
async fn rotate_api_key(
    State(gateway): App,
    caller: Caller,
    Path(gym): Path<String>,
    Json(body): Json<ApiKeyBody>,
) -> Answer<AnswerJson<IntegrationBody>> {
    let request = wire::EnableIntegrationRequest {
        gym_id: gym,
        api_key: body.api_key,
    };
    let integration = gateway.rotate_api_key(&caller, request).await?;
    Ok(AnswerJson(integration.into()))
}

/// The gym's policies.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/integration/policies", tag = "integration",
    params(("gym" = String, Path, description = "The gym")),
    responses((status = 200, body = PoliciesBody)))]
async fn get_policies(
    State(gateway): App,
    caller: Caller,
    Path(gym): Path<String>,
) -> Answer<AnswerJson<PoliciesBody>> {
    let integration = gateway.get_integration(&caller, of(gym)).await?;
    Ok(AnswerJson(integration.policies.unwrap_or_default().into()))
}

/// Changes the gym's policies; what is absent stays as it is.
#[utoipa::path(put, path = "/api/v1/gyms/{gym}/integration/policies", tag = "integration",
    params(("gym" = String, Path, description = "The gym")),
    request_body = PutPoliciesBody,
    responses((status = 200, body = IntegrationBody)))]
async fn put_policies(
    State(gateway): App,
    caller: Caller,
    Path(gym): Path<String>,
    Json(body): Json<PutPoliciesBody>,
) -> Answer<AnswerJson<IntegrationBody>> {
    let integration = gateway.change_policies(&caller, gym, body.into()).await?;
    Ok(AnswerJson(integration.into()))
}
