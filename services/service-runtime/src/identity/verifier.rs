//! Checking a token: signature, issuer, audience, times, and claims that make sense.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use clap::Args;
use jsonwebtoken::Validation;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::checked::Claims;
use super::key_set::{KeySet, KeySetError, Source};
use super::{Caller, IdentityError, Role, is_id, is_printable};
use crate::clock::Clock;
use crate::lifecycle::chain;

/// How far the issuer's clock may be from ours.
const LEEWAY_SECONDS: i64 = 30;
/// Tokens of an unknown key make us look for new keys, but no more often than this.
const RELOAD_AT_MOST_EVERY: Duration = Duration::from_secs(2);
/// A withdrawn key stops counting after this.
const RELOAD_FILE_EVERY: Duration = Duration::from_secs(2);
const RELOAD_URL_EVERY: Duration = Duration::from_secs(300);

/// Whose tokens count.
#[derive(Debug, Clone, Args)]
pub struct IdentitySettings {
    /// JWKS with the keys of tokens: a file or an http(s) address. It is read again as it changes.
    #[arg(long, env = "JWT_JWKS")]
    pub jwt_jwks: String,
    /// The iss that a token must name.
    #[arg(long, env = "JWT_ISSUER")]
    pub jwt_issuer: String,
    /// The aud that a token must name.
    #[arg(long, env = "JWT_AUDIENCE")]
    pub jwt_audience: String,
}

/// Why tokens cannot be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// The file named by `JWT_JWKS` is not usable.
    #[error("bad setting JWT_JWKS: {}", chain(.0))]
    Keys(KeySetError),
}

/// Checks tokens. Clones share the keys.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    source: Source,
    keys: ArcSwap<KeySet>,
    validation: Validation,
    clock: Arc<dyn Clock>,
    last_reload: Mutex<Instant>,
}

impl Verifier {
    /// Loads the keys and reloads them in the background until `shutdown`. A file that cannot be
    /// used stops the start; an address that does not answer does not, and calls get
    /// [`IdentityError::NoKeys`] until it does.
    pub async fn start(
        settings: &IdentitySettings,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<Self, VerifierError> {
        let source = Source::parse(&settings.jwt_jwks);
        let none = KeySet::default();
        let keys = match source.load(&none).await {
            Ok(keys) => keys.unwrap_or(none),
            Err(error) if matches!(source, Source::File(_)) => {
                return Err(VerifierError::Keys(error));
            }
            Err(error) => {
                warn!("No keys to check tokens with yet: {}", chain(&error));
                none
            }
        };
        let mut validation = Validation::default();
        validation.set_issuer(&[&settings.jwt_issuer]);
        validation.set_audience(&[&settings.jwt_audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Times are checked below, against the clock we were given.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let verifier = Self(Arc::new(Inner {
            source,
            keys: ArcSwap::from_pointee(keys),
            validation,
            clock,
            last_reload: Mutex::new(Instant::now()),
        }));
        tokio::spawn(verifier.clone().keep_fresh(shutdown));
        Ok(verifier)
    }

    /// The caller a token speaks of.
    pub async fn verify(&self, token: &str) -> Result<Caller, IdentityError> {
        match self.verify_now(token) {
            Err(Refusal::UnknownKey) => {
                self.reload_if_due(RELOAD_AT_MOST_EVERY).await;
                self.verify_now(token).map_err(Refusal::into_error)
            }
            answer => answer.map_err(Refusal::into_error),
        }
    }

    fn verify_now(&self, token: &str) -> Result<Caller, Refusal> {
        let set = self.0.keys.load();
        // Checked with these very keys, byte by byte the same. Its times are looked at each time.
        let claims = match set.checked.find(token) {
            Some(claims) => claims,
            None => {
                let claims = Arc::new(self.check(token, &set)?);
                set.checked.remember(token, Arc::clone(&claims));
                claims
            }
        };
        self.caller(&claims)
    }

    /// Signature, issuer and audience.
    fn check(&self, token: &str, set: &KeySet) -> Result<Claims, Refusal> {
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| Refusal::Bad("the token is malformed"))?;
        if set.keys.is_empty() {
            return Err(Refusal::NoKeys);
        }
        let mut fitting = set
            .keys
            .iter()
            .filter(|key| key.algorithm == header.alg)
            .filter(|key| header.kid.is_none() || key.id == header.kid)
            .peekable();
        if fitting.peek().is_none() {
            return Err(Refusal::UnknownKey);
        }
        let mut validation = self.0.validation.clone();
        validation.algorithms = vec![header.alg];
        let mut refusal = Refusal::UnknownKey;
        for key in fitting {
            match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => refusal = explain(&error),
            }
        }
        Err(refusal)
    }

    fn caller(&self, claims: &Claims) -> Result<Caller, Refusal> {
        let now = self.0.clock.now().as_second();
        if claims.exp.saturating_add(LEEWAY_SECONDS) <= now {
            return Err(Refusal::Bad("the token has expired"));
        }
        if claims
            .nbf
            .is_some_and(|nbf| nbf.saturating_sub(LEEWAY_SECONDS) > now)
        {
            return Err(Refusal::Bad("the token is not valid yet"));
        }
        let role = match claims.role.as_str() {
            "member" => Role::Member,
            "staff" => Role::Staff,
            "service" => Role::Service,
            _ => return Err(Refusal::Bad("the token's role is unknown")),
        };
        if !is_printable(&claims.sub) || (role == Role::Member && !is_id(&claims.sub)) {
            return Err(Refusal::Bad("the token's sub is malformed"));
        }
        let gym = claims.gym.clone().filter(|_| role != Role::Service);
        if role != Role::Service && !gym.as_deref().is_some_and(is_id) {
            return Err(Refusal::Bad("the token's gym is missing or malformed"));
        }
        let scopes = match (role, &claims.scope) {
            (Role::Staff, Some(scope)) => scope.split_whitespace().map(str::to_owned).collect(),
            _ => Default::default(),
        };
        Ok(Caller {
            role,
            sub: claims.sub.clone(),
            gym,
            scopes,
            on_behalf_of: None,
        })
    }

    async fn keep_fresh(self, shutdown: CancellationToken) {
        let every = match self.0.source {
            Source::File(_) => RELOAD_FILE_EVERY,
            Source::Url(_) => RELOAD_URL_EVERY,
        };
        while shutdown
            .run_until_cancelled(tokio::time::sleep(every.min(self.patience())))
            .await
            .is_some()
        {
            self.reload_if_due(Duration::ZERO).await;
        }
    }

    /// Without keys we look for some more often.
    fn patience(&self) -> Duration {
        if self.0.keys.load().keys.is_empty() {
            RELOAD_AT_MOST_EVERY
        } else {
            Duration::MAX
        }
    }

    /// Loads the keys again unless that was done within `pause`. Old keys stay when it fails.
    async fn reload_if_due(&self, pause: Duration) {
        let mut last = self.0.last_reload.lock().await;
        if last.elapsed() < pause {
            return;
        }
        *last = Instant::now();
        match self.0.source.load(&self.0.keys.load_full()).await {
            Ok(Some(keys)) => self.0.keys.store(Arc::new(keys)),
            Ok(None) => {}
            Err(error) => warn!("The keys of tokens were not reloaded: {}", chain(&error)),
        }
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Verifier").field(&self.0.source).finish()
    }
}

enum Refusal {
    UnknownKey,
    NoKeys,
    Bad(&'static str),
}

impl Refusal {
    fn into_error(self) -> IdentityError {
        match self {
            Self::UnknownKey => IdentityError::Unauthenticated("the token's key is unknown"),
            Self::NoKeys => IdentityError::NoKeys,
            Self::Bad(why) => IdentityError::Unauthenticated(why),
        }
    }
}

fn explain(error: &jsonwebtoken::errors::Error) -> Refusal {
    use jsonwebtoken::errors::ErrorKind;
    Refusal::Bad(match error.kind() {
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::InvalidIssuer => "the token's issuer is not ours",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks a claim",
        _ => "the token is malformed",
    })
}

#[cfg(test)]
mod tests {
    use testkit::TokenIssuer;

    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test]
    async fn good_tokens_alone_are_remembered_and_with_their_keys_alone() {
        let (issuer, other) = (TokenIssuer::new(), TokenIssuer::new());
        let (issuer, other) = (issuer.expect("keys"), other.expect("keys"));
        let settings = IdentitySettings {
            jwt_jwks: issuer.jwks_path().display().to_string(),
            jwt_issuer: issuer.issuer().to_owned(),
            jwt_audience: issuer.audience().to_owned(),
        };
        let verifier =
            Verifier::start(&settings, Arc::new(SystemClock), CancellationToken::new()).await;
        let verifier = verifier.expect("a verifier");
        let (good, bad) = (issuer.service("crm"), other.service("crm"));
        let is_known = |token: &str| verifier.0.keys.load().checked.find(token).is_some();
        assert!(verifier.verify(&good).await.is_ok());
        assert!(verifier.verify(&bad).await.is_err());
        assert!(is_known(&good) && !is_known(&bad));

        verifier.reload_if_due(Duration::ZERO).await;
        assert!(is_known(&good), "the keys are the same");
        std::fs::copy(other.jwks_path(), issuer.jwks_path()).expect("a copy");
        verifier.reload_if_due(Duration::ZERO).await;
        assert!(!is_known(&good));
    }
}
