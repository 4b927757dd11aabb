//! What happened to a member, and why. The timeline is not merged from the two services that know
//! yet (501).

use std::sync::Arc;

use axum::Json as AnswerJson;
use axum::extract::{Path, Query, State};
use contracts::access::v1::ExplainAccessRequest;
use contracts::wire;
use serde::Deserialize;
use service_runtime::identity::Caller;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, App};
use crate::gateway::Gateway;
use crate::http::body::instant;
use crate::http::json::history::ExplanationBody;
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

/// Why, at an instant: what was decided, since when, and what brought it about. Kept for 13 months.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/members/{member}/explain", tag = "history",
    params(("gym" = String, Path, description = "The gym"), ("member" = String, Path, description = "The member"), ExplainQuery),
    responses((status = 200, body = ExplanationBody)))]
async fn explain(
    State(gateway): App,
    caller: Caller,
    Path((gym_id, member_id)): Path<(String, String)>,
    Query(query): Query<ExplainQuery>,
) -> Answer<AnswerJson<ExplanationBody>> {
    permit::member(&caller, &gym_id, &member_id, Scope::Read)?;
    let at = match query.at.as_deref() {
        Some(text) => Some(wire::timestamp(instant("at", text)?)),
        None => None,
    };
    let request = ExplainAccessRequest {
        gym_id,
        member_id,
        at,
    };
    let explanation = gateway.explain(&caller, request).await?;
    Ok(AnswerJson(explanation.into()))
}
