//! The stack's own issuer of tokens: an Ed25519 key kept in `DATA_DIR`, its JWKS file, and tokens
//! for people to try things with. In production the issuer is Gymflow's.

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::json;

use crate::folder::Folder;

/// `JWT_ISSUER` of the stack.
pub const ISSUER: &str = "https://gymflow.localhost";
/// `JWT_AUDIENCE` of the stack.
pub const AUDIENCE: &str = "gymflow-access";

const KEY_ID: &str = "dev-stack";
/// Every scope of DESIGN's "Who may call".
const ALL_SCOPES: &str = "read override configure approve";
/// PKCS#8 wrapping of a bare Ed25519 seed (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Signs tokens with the kept key.
pub struct Issuer {
    key: EncodingKey,
}

impl Issuer {
    /// Reads the key, or makes one, and writes `jwks.json` and `service.token`.
    pub fn open(folder: &Folder, now: Timestamp) -> anyhow::Result<Self> {
        let seed = folder.keep("token.key", || {
            BASE64_STANDARD.encode(rand::random::<[u8; 32]>())
        })?;
        let seed = BASE64_STANDARD
            .decode(seed.trim())
            .context("DATA_DIR/token.key is not base64: remove it to have a new one made")?;
        let mut der = PKCS8_PREFIX.to_vec();
        der.extend(seed);
        let issuer = Self {
            key: EncodingKey::from_ed_der(&der),
        };
        let mut jwk = Jwk::from_encoding_key(&issuer.key, Algorithm::EdDSA)
            .context("DATA_DIR/token.key is no Ed25519 key: remove it to have a new one made")?;
        jwk.common.key_id = Some(KEY_ID.to_owned());
        folder.write("jwks.json", &json!({ "keys": [jwk] }).to_string())?;
        // The services' own token outlives any session at a desk; it is made anew at each start.
        let services = issuer.sign(
            json!({ "role": "service", "sub": "dev-stack" }),
            now,
            SignedDuration::from_hours(24 * 365),
        )?;
        folder.write("service.token", &services)?;
        Ok(issuer)
    }

    /// A service's token for 24 hours.
    pub fn service(&self, now: Timestamp) -> anyhow::Result<String> {
        self.day(json!({ "role": "service", "sub": "dev-stack" }), now)
    }

    /// A token for staff of `gym` with all scopes for 24 hours.
    pub fn staff(&self, gym: &str, now: Timestamp) -> anyhow::Result<String> {
        let sub = format!("{gym}-staff");
        self.day(
            json!({ "role": "staff", "sub": sub, "gym": gym, "scope": ALL_SCOPES }),
            now,
        )
    }

    /// A token for one member for 24 hours.
    pub fn member(&self, gym: &str, member: &str, now: Timestamp) -> anyhow::Result<String> {
        self.day(json!({ "role": "member", "sub": member, "gym": gym }), now)
    }

    fn day(&self, claims: serde_json::Value, now: Timestamp) -> anyhow::Result<String> {
        self.sign(claims, now, SignedDuration::from_hours(24))
    }

    fn sign(
        &self,
        mut claims: serde_json::Value,
        now: Timestamp,
        valid_for: SignedDuration,
    ) -> anyhow::Result<String> {
        claims["iss"] = ISSUER.into();
        claims["aud"] = AUDIENCE.into();
        claims["iat"] = now.as_second().into();
        claims["exp"] = now.as_second().saturating_add(valid_for.as_secs()).into();
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(KEY_ID.to_owned());
        jsonwebtoken::encode(&header, &claims, &self.key).context("signing a token")
    }
}
