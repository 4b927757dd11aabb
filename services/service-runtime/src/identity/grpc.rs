//! Authentication for gRPC: a tower layer in front of all services of a server, health and
//! reflection excepted, and the accessor handlers use.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::Status;
use tower::{Layer, Service};

use super::{Caller, IdentityError, Verifier, authenticate_headers};

/// Open to everybody: whoever runs the system asks them without a token.
const OPEN: [&str; 2] = ["/grpc.health.v1.", "/grpc.reflection.v1"];

/// Authenticates every call before it reaches a service.
#[derive(Debug, Clone)]
pub struct AuthLayer {
    verifier: Verifier,
    services_only: bool,
}

impl AuthLayer {
    /// Any role; handlers ask the [`Caller`] what it may reach.
    pub fn any_role(verifier: Verifier) -> Self {
        Self {
            verifier,
            services_only: false,
        }
    }

    /// Role `service` only; others get `PERMISSION_DENIED`.
    pub fn services_only(verifier: Verifier) -> Self {
        Self {
            verifier,
            services_only: true,
        }
    }

    async fn admit(&self, headers: &::http::HeaderMap) -> Result<Caller, IdentityError> {
        let caller = authenticate_headers(&self.verifier, headers).await?;
        if self.services_only {
            caller.require_service()?;
        }
        Ok(caller)
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated {
            inner,
            auth: self.clone(),
        }
    }
}

/// A service behind [`AuthLayer`].
#[derive(Debug, Clone)]
pub struct Authenticated<S> {
    inner: S,
    auth: AuthLayer,
}

impl<S, B, R> Service<::http::Request<B>> for Authenticated<S>
where
    S: Service<::http::Request<B>, Response = ::http::Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: ::http::Request<B>) -> Self::Future {
        // The clone stays behind; the one that was polled ready is the one to call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let path = request.uri().path();
        if OPEN.iter().any(|open| path.starts_with(open)) {
            return Box::pin(inner.call(request));
        }
        let auth = self.auth.clone();
        Box::pin(async move {
            match auth.admit(request.headers()).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(error) => Ok(Status::from(error).into_http()),
            }
        })
    }
}

/// The caller of a gRPC request; `UNAUTHENTICATED` where no [`AuthLayer`] stood in front.
pub fn caller_of<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("a bearer token is required"))
}

impl From<IdentityError> for Status {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Unauthenticated(why) => Self::unauthenticated(why),
            IdentityError::Forbidden(why) => Self::permission_denied(why),
            IdentityError::NoKeys => Self::unavailable(error.to_string()),
        }
    }
}
