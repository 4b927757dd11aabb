//! Who else opens these doors.

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
use crate::http::json::rights::RightsBody;
use crate::refusal::Refusal;

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(list_rights))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RightsQuery {
    /// `true`: Kisi is asked now; else what the last reading found is answered.
    #[param(value_type = Option<bool>)]
    refresh: Option<String>,
    /// 1 to 1000; 100 when absent.
    #[param(value_type = Option<i32>, minimum = 1, maximum = 1000)]
    page_size: Option<String>,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
}

/// Rights that others gave and that open the same doors: of teams, guests, staff, access links and
/// other groups. Read once a day, for each preview, and with `refresh`.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/integration/rights", tag = "integration",
    params(("gym" = String, Path, description = "The gym"), RightsQuery),
    responses((status = 200, body = RightsBody)))]
async fn list_rights(
    State(gateway): App,
    caller: Caller,
    Path(gym_id): Path<String>,
    Query(query): Query<RightsQuery>,
) -> Answer<AnswerJson<RightsBody>> {
    let refresh = match query.refresh.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Refusal::field("refresh", "true or false is expected").into()),
    };
    let page_size = match query.page_size.as_deref() {
        None => 0,
        Some(text) => text
            .parse()
            .ok()
            .filter(|size| *size > 0)
            .ok_or_else(|| Refusal::field("page_size", "1 to 1000 is expected"))?,
    };
    let request = wire::ListOtherRightsRequest {
        gym_id,
        refresh,
        page_size,
        page_token: query.page_token.unwrap_or_default(),
    };
    let page = gateway.list_other_rights(&caller, request).await?;
    Ok(AnswerJson(page.into()))
}
