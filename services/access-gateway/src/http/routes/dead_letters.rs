//! Messages set aside. Listing and replaying them is not offered here yet (501).

use std::sync::Arc;

use axum::extract::Path;
use service_runtime::identity::{Caller, Role};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Answer;
use crate::gateway::Gateway;
use crate::permit::{self, Scope};
use crate::refusal::Refusal;

const DEAD_LETTERS: &str = "listing and replaying of dead letters";
/// Stands for messages that belong to no gym.
const NO_GYM: &str = "_";

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(list_dead_letters))
        .routes(routes!(replay_dead_letters))
}

fn permitted(caller: &Caller, gym: &str, scope: Scope) -> Result<(), Refusal> {
    if gym == NO_GYM && caller.role != Role::Service {
        return Err(Refusal::Forbidden("this is for services only".to_owned()));
    }
    permit::staff(caller, gym, scope)
}

/// Messages of this gym that could not be handled. Not available yet.
#[utoipa::path(get, path = "/api/v1/gyms/{gym}/dead-letters", tag = "dead letters",
    params(("gym" = String, Path, description = "The gym; `_` for messages of no gym")),
    responses())]
async fn list_dead_letters(caller: Caller, Path(gym): Path<String>) -> Answer<()> {
    permitted(&caller, &gym, Scope::Read)?;
    Err(Refusal::NotYet(DEAD_LETTERS).into())
}

/// Gives them to their consumers again. Not available yet.
#[utoipa::path(post, path = "/api/v1/gyms/{gym}/dead-letters/replay", tag = "dead letters",
    params(("gym" = String, Path, description = "The gym; `_` for messages of no gym")),
    responses())]
async fn replay_dead_letters(caller: Caller, Path(gym): Path<String>) -> Answer<()> {
    permitted(&caller, &gym, Scope::Configure)?;
    Err(Refusal::NotYet(DEAD_LETTERS).into())
}
