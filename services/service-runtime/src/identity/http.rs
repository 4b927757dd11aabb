//! Authentication for axum: a middleware that puts the [`Caller`] into the request, and the
//! extractor that takes it out. A route that forgot the middleware refuses everybody.

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::time::Duration;

use super::{Caller, IdentityError, Verifier, authenticate_headers};
use crate::problem::Problem;

/// Middleware: `router.layer(axum::middleware::from_fn_with_state(verifier, http::authenticate))`.
pub async fn authenticate(
    State(verifier): State<Verifier>,
    mut request: Request,
    next: Next,
) -> Response {
    match authenticate_headers(&verifier, request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => Problem::from(error).into_response(),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut ::http::request::Parts,
        _state: &S,
    ) -> Result<Self, Problem> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Problem::unauthenticated("a bearer token is required"))
    }
}

impl From<IdentityError> for Problem {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Unauthenticated(why) => Self::unauthenticated(why),
            IdentityError::Forbidden(why) => Self::forbidden(why),
            IdentityError::NoKeys => Self::unavailable(error.to_string(), Duration::from_secs(5)),
        }
    }
}
