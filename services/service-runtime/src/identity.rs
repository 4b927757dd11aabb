//! Who is calling: bearer JWTs checked against a JWKS, and what the caller may reach.
//!
//! Authentication is done once, at the edge, by [`http::authenticate`] or [`grpc::AuthLayer`]; the
//! resulting [`Caller`] is a value that handlers ask. No token or a bad one is 401
//! (`UNAUTHENTICATED`), a good one for somebody else's data 403 (`PERMISSION_DENIED`).

mod checked;
pub mod grpc;
pub mod http;
mod key_set;
mod service_token;
mod verifier;

use std::collections::BTreeSet;

pub use service_token::{ServiceToken, ServiceTokenError};
pub use verifier::{IdentitySettings, Verifier, VerifierError};

/// The metadata or header in which a service names the human it calls for, such as `staff:u_1`.
pub const ACTOR_HEADER: &str = "x-gymflow-actor";

/// The claim `role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A member: their own data in their own gym.
    Member,
    /// Staff of one gym, within their scopes.
    Staff,
    /// Another Gymflow service: every gym.
    Service,
}

impl Role {
    /// The word of the claim.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Staff => "staff",
            Self::Service => "service",
        }
    }
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// What kind of caller it is.
    pub role: Role,
    /// The token's `sub`: a member's id, a staff user's id or a service's name.
    pub sub: String,
    /// The token's `gym`; always there for members and staff.
    pub gym: Option<String>,
    /// The words of `scope`; empty but for staff.
    pub scopes: BTreeSet<String>,
    /// For whom a service calls; only ever set for role service.
    pub on_behalf_of: Option<String>,
}

impl Caller {
    /// The actor to keep on records: `role:sub`, or whom a service named.
    pub fn actor(&self) -> String {
        match &self.on_behalf_of {
            Some(actor) => actor.clone(),
            None => format!("{}:{}", self.role.as_str(), self.sub),
        }
    }

    /// Services only.
    pub fn require_service(&self) -> Result<(), IdentityError> {
        match self.role {
            Role::Service => Ok(()),
            _ => Err(IdentityError::Forbidden("this is for services only")),
        }
    }

    /// Staff of `gym` who hold `scope`, or a service.
    pub fn require_scope(&self, gym: &str, scope: &str) -> Result<(), IdentityError> {
        self.require_gym(gym)?;
        match self.role {
            Role::Service => Ok(()),
            Role::Staff if self.scopes.contains(scope) => Ok(()),
            Role::Staff => Err(IdentityError::Forbidden("the scope is missing")),
            Role::Member => Err(IdentityError::Forbidden("this is for staff only")),
        }
    }

    /// The member themself, staff of the gym with scope `read`, or a service.
    pub fn require_member(&self, gym: &str, member: &str) -> Result<(), IdentityError> {
        match self.role {
            Role::Member if self.gym.as_deref() == Some(gym) && self.sub == member => Ok(()),
            Role::Member => Err(IdentityError::Forbidden("this is another member's")),
            Role::Staff | Role::Service => self.require_scope(gym, "read"),
        }
    }

    /// Anybody of `gym`, or a service.
    pub fn require_gym(&self, gym: &str) -> Result<(), IdentityError> {
        if self.role == Role::Service || self.gym.as_deref() == Some(gym) {
            return Ok(());
        }
        Err(IdentityError::Forbidden("this is another gym's"))
    }
}

/// Why a call is refused. The text may be shown to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// 401, `UNAUTHENTICATED`.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// 403, `PERMISSION_DENIED`.
    #[error("{0}")]
    Forbidden(&'static str),
    /// 503, `UNAVAILABLE`: there are no keys to check with.
    #[error("tokens cannot be checked now")]
    NoKeys,
}

/// The token of an `authorization` header's value.
fn bearer(headers: &::http::HeaderMap) -> Result<&str, IdentityError> {
    let value = headers
        .get(::http::header::AUTHORIZATION)
        .ok_or(IdentityError::Unauthenticated("a bearer token is required"))?;
    let malformed = IdentityError::Unauthenticated("the authorization header is malformed");
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or(malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim())
    } else {
        Err(malformed)
    }
}

/// Authenticates a request by its headers; the actor header counts only from a service.
async fn authenticate_headers(
    verifier: &Verifier,
    headers: &::http::HeaderMap,
) -> Result<Caller, IdentityError> {
    let mut caller = verifier.verify(bearer(headers)?).await?;
    if caller.role == Role::Service
        && let Some(actor) = headers.get(ACTOR_HEADER)
    {
        caller.on_behalf_of = Some(parse_actor(actor)?);
    }
    Ok(caller)
}

/// `role:id`, both short and printable: it goes to records and logs as it is.
fn parse_actor(value: &::http::HeaderValue) -> Result<String, IdentityError> {
    value
        .to_str()
        .ok()
        .filter(|actor| {
            actor.len() <= 160
                && actor.split_once(':').is_some_and(|(role, id)| {
                    matches!(role, "member" | "staff" | "service") && is_printable(id)
                })
        })
        .map(str::to_owned)
        .ok_or(IdentityError::Unauthenticated(
            "x-gymflow-actor is malformed",
        ))
}

fn is_printable(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The alphabet of ids: `[A-Za-z0-9_-]{1,64}`.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}
