//! What happened to a member, and why. Not merged from the two services that know yet (501).

use std::sync::Arc;

use axum::extract::{Path, Query};
use serde::Deserialize;
use service_runtime::identity::Caller;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Answer;
use crate::gateway::Gateway;
use crate::http::body::instant;
use crate::permit::{self, Scope};
use crate::refusal::Refusal;

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(get_timeline))
        .routes(routes!(explain))
}

/// What happened, newest first. Not available yet.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/members/{member}/timeline", tag = "history",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member")),
    responses())]
async fn get_timeline(caller: Caller, Path((gym, member)): Path<(String, String)>) -> Answer<()> {
    permit::member(&caller, &gym, &member, Scope::Read)?;
    Err(Refusal::NotYet("the timeline of membership-events and kisi-sync").into())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ExplainQuery {
    /// RFC 3339 instant, past or to come; now when absent.
    #[param(format = DateTime)]
    at: Option<String>,
}

/// Why, at an instant. Not available yet.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/members/{member}/explain", tag = "history",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member"), ExplainQuery),
    responses())]
async fn explain(
    caller: Caller,
    Path((gym, member)): Path<(String, String)>,
    Query(query): Query<ExplainQuery>,
) -> Answer<()> {
    permit::member(&caller, &gym, &member, Scope::Read)?;
    if let Some(at) = query.at.as_deref() {
        instant("at", at)?;
    }
    Err(Refusal::NotYet("explaining by membership-events").into())
}
