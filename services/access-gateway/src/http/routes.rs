//! The routes, a file per part of the product.

mod dead_letters;
mod devices;
mod history;
mod integration;
pub(super) mod kisi_events;
mod members;
mod rights;
mod syncs;

use std::sync::Arc;

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;

use super::problem::HttpRefusal;
use crate::gateway::Gateway;

type App = State<Arc<Gateway>>;
type Answer<T> = Result<T, HttpRefusal>;

/// Every route that asks for a token.
pub(super) fn api() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .merge(members::routes())
        .merge(devices::routes())
        .merge(history::routes())
        .merge(integration::routes())
        .merge(rights::routes())
        .merge(syncs::routes())
        .merge(dead_letters::routes())
}
