//! Kisi's own event webhooks, passed on raw to the holder of the secret that checks them.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use contracts::kisi::v1::PassKisiEventRequest;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, App};
use crate::gateway::Gateway;
use crate::http::body::bytes;
use crate::http::problem::HttpRefusal;

const SIGNATURE: &str = "x-signature";

pub(in crate::http) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(pass_event))
}

/// A Kisi event webhook, as Kisi sends it. 503: send it again.
#[utoipa::path(post, path = "/kisi/events/{gym}", tag = "kisi",
    params(("gym" = String, Path, description = "The gym"),
        ("X-Signature" = String, Header, description = "HMAC-SHA256 of the body, by Kisi")),
    request_body(content = String, content_type = "application/json", description = "Kisi's event"),
    security(()),
    responses((status = 200, description = "Taken, or of no interest")))]
async fn pass_event(
    State(gateway): App,
    Path(gym): Path<String>,
    request: Request,
) -> Answer<StatusCode> {
    let signature = request
        .headers()
        .get(SIGNATURE)
        .and_then(|value| value.to_str().ok())
        .filter(|value| !value.is_empty() && value.len() <= 512)
        .map(str::to_owned)
        .ok_or_else(|| {
            HttpRefusal::of_http(
                StatusCode::UNAUTHORIZED,
                "unauthenticated",
                "the header X-Signature is required",
            )
        })?;
    let received_at = Some(contracts::wire::timestamp(gateway.now()));
    let event = PassKisiEventRequest {
        gym_id: gym,
        body: bytes(request, &()).await?.to_vec(),
        signature,
        received_at,
    };
    gateway.pass_kisi_event(event).await?;
    Ok(StatusCode::OK)
}
