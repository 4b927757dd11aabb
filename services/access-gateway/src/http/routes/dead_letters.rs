//! Messages set aside.

use std::sync::Arc;

use axum::Json as AnswerJson;
use axum::extract::{Path, Query, State};
use contracts::integration::v1 as wire;
use serde::Deserialize;
use service_runtime::identity::Caller;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, App};
use crate::gateway::Gateway;
use crate::http::body::OptionalJson;
use crate::http::json::dead_letters::{DeadLettersBody, ReplayBody, ReplayedBody};
use crate::refusal::Refusal;

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(list_dead_letters))
        .routes(routes!(replay_dead_letters))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// 1 to 500; 50 when absent.
    #[param(value_type = Option<i32>, minimum = 1, maximum = 500)]
    page_size: Option<String>,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
}

/// Messages of this gym that could not be handled, with their causes. Kept for 90 days.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/dead-letters", tag = "dead letters",
    params(("gym" = String, Path, description = "The gym; `_`, for services, for messages of no gym"), ListQuery),
    responses((status = 200, body = DeadLettersBody)))]
async fn list_dead_letters(
    State(gateway): App,
    caller: Caller,
    Path(gym_id): Path<String>,
    Query(query): Query<ListQuery>,
) -> Answer<AnswerJson<DeadLettersBody>> {
    let page_size = match query.page_size.as_deref() {
        None => 0,
        Some(text) => text
            .parse()
            .ok()
            .filter(|size| *size > 0)
            .ok_or_else(|| Refusal::field("page_size", "1 to 500 is expected"))?,
    };
    let request = wire::ListDeadLettersRequest {
        gym_id,
        page_size,
        page_token: query.page_token.unwrap_or_default(),
    };
    let page = gateway.list_dead_letters(&caller, request).await?;
    Ok(AnswerJson(page.into()))
}

/// Gives them to their own consumers again: those that are named, or all of the gym's.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/dead-letters/replay", tag = "dead letters",
    params(("gym" = String, Path, description = "The gym; `_`, for services, for messages of no gym")),
    request_body = ReplayBody,
    responses((status = 200, body = ReplayedBody)))]
async fn replay_dead_letters(
    State(gateway): App,
    caller: Caller,
    Path(gym_id): Path<String>,
    OptionalJson(body): OptionalJson<ReplayBody>,
) -> Answer<AnswerJson<ReplayedBody>> {
    let request = wire::ReplayDeadLettersRequest {
        gym_id,
        ids: body.ids,
    };
    let answer = gateway.replay_dead_letters(&caller, request).await?;
    Ok(AnswerJson(ReplayedBody {
        replayed: answer.replayed,
    }))
}
