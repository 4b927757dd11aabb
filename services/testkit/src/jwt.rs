//! An issuer of tokens for tests: an Ed25519 key, its JWKS file, and signing.
//!
//! Claims are those of the product: `role`, `sub`, `gym`, `scope`. Whatever a test wants to be
//! wrong is said with [`TokenIssuer::sign`], which takes the claims as they are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The `iss` of every token.
pub const ISSUER: &str = "https://auth.gymflow.test";
/// The `aud` of every token.
pub const AUDIENCE: &str = "gymflow-access";

/// PKCS#8 wrapping of a bare Ed25519 seed (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A key with its JWKS file, which is removed on drop.
pub struct TokenIssuer {
    key: EncodingKey,
    key_id: String,
    folder: TempDir,
}

impl TokenIssuer {
    /// Makes a new key and writes its JWKS file.
    pub fn new() -> anyhow::Result<Self> {
        Self::with_key_id("test-1")
    }

    /// As [`Self::new`], with a `kid` of the caller's choice.
    pub fn with_key_id(key_id: &str) -> anyhow::Result<Self> {
        let mut der = PKCS8_PREFIX.to_vec();
        der.extend(rand::random::<[u8; 32]>());
        let issuer = Self {
            key: EncodingKey::from_ed_der(&der),
            key_id: key_id.to_owned(),
            folder: tempfile::Builder::new().prefix("gymflow-jwks-").tempdir()?,
        };
        let jwks = json!({ "keys": [issuer.jwk()?] });
        fs::write(issuer.jwks_path(), jwks.to_string()).context("jwks.json")?;
        Ok(issuer)
    }

    /// The public key as a JWK with its `kid`.
    pub fn jwk(&self) -> anyhow::Result<Value> {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::EdDSA)?;
        jwk.common.key_id = Some(self.key_id.clone());
        Ok(serde_json::to_value(jwk)?)
    }

    /// The JWKS file: the value of `JWT_JWKS`.
    pub fn jwks_path(&self) -> PathBuf {
        self.folder.path().join("jwks.json")
    }

    /// The value of `JWT_ISSUER`.
    pub fn issuer(&self) -> &'static str {
        ISSUER
    }

    /// The value of `JWT_AUDIENCE`.
    pub fn audience(&self) -> &'static str {
        AUDIENCE
    }

    /// A member's token for one hour.
    pub fn member(&self, gym: &str, member: &str) -> String {
        self.sign(&claims("member", member, Some(gym), None))
    }

    /// A staff member's token for one hour; `scope` is space-separated.
    pub fn staff(&self, gym: &str, sub: &str, scope: &str) -> String {
        self.sign(&claims("staff", sub, Some(gym), Some(scope)))
    }

    /// Another service's token for one hour.
    pub fn service(&self, sub: &str) -> String {
        self.sign(&claims("service", sub, None, None))
    }

    /// Writes a service token to a file: the value of `SERVICE_TOKEN_FILE`.
    pub fn service_token_file(&self, sub: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(format!("{sub}.token"));
        write(&path, &self.service(sub))?;
        Ok(path)
    }

    /// Signs `claims` as they are.
    ///
    /// # Panics
    /// When the key cannot sign, which would be a bug here.
    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, claims, &self.key)
            .unwrap_or_else(|e| panic!("signing a test token: {e}"))
    }
}

/// Valid claims, to be changed by a test that wants them wrong.
#[expect(clippy::disallowed_methods, reason = "tokens are for the system clock")]
pub fn claims(role: &str, sub: &str, gym: Option<&str>, scope: Option<&str>) -> Value {
    let now = jiff::Timestamp::now().as_second();
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 3_600,
        "role": role, "sub": sub,
    });
    if let Some(gym) = gym {
        claims["gym"] = gym.into();
    }
    if let Some(scope) = scope {
        claims["scope"] = scope.into();
    }
    claims
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}
