//! The keys tokens are checked with: a JWKS from a file or a URL, reloaded.
//!
//! Only signatures with a public key are accepted (EdDSA, RS256, ES256), and each key only for its
//! own algorithm, so that no token can choose to be checked in another way. Keys we cannot use are
//! passed over: an issuer may publish others too.
//!
//! What was checked with a set of keys is remembered with it, and forgotten with it.

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};

use super::checked::Checked;

/// Where the JWKS is.
#[derive(Debug, Clone)]
pub(super) enum Source {
    File(PathBuf),
    Url(String),
}

impl Source {
    pub(super) fn parse(text: &str) -> Self {
        if text.starts_with("https://") || text.starts_with("http://") {
            Self::Url(text.to_owned())
        } else {
            Self::File(PathBuf::from(text.strip_prefix("file://").unwrap_or(text)))
        }
    }

    /// The keys as they are now; `None` where nothing differs from `held`.
    pub(super) async fn load(&self, held: &KeySet) -> Result<Option<KeySet>, KeySetError> {
        let text = match self {
            Self::File(path) => tokio::fs::read(path).await.map_err(KeySetError::File)?,
            Self::Url(url) => fetch(url).await.map_err(KeySetError::Url)?,
        };
        if text == held.text {
            return Ok(None);
        }
        Ok(Some(KeySet {
            keys: parse(&text)?,
            checked: Checked::default(),
            text,
        }))
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    File(#[source] std::io::Error),
    /// The address did not answer with a JWKS.
    #[error("the address did not answer")]
    Url(#[source] reqwest::Error),
    /// It is no JWKS.
    #[error("it is no JWKS")]
    Json(#[source] serde_json::Error),
    /// It holds no key that can be used.
    #[error("it holds no EdDSA, RS256 or ES256 key")]
    NoUsableKey,
}

/// Keys, and what was checked with them.
#[derive(Default)]
pub(super) struct KeySet {
    pub(super) keys: Vec<Key>,
    pub(super) checked: Checked,
    /// The JWKS they are from.
    text: Vec<u8>,
}

/// One public key with the one algorithm it is for.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

fn parse(text: &[u8]) -> Result<Vec<Key>, KeySetError> {
    // Key by key, because one of an unknown kind must not hide the others.
    let set: serde_json::Value = serde_json::from_slice(text).map_err(KeySetError::Json)?;
    let entries = set
        .get("keys")
        .and_then(serde_json::Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let jwks = JwkSet {
        keys: entries
            .iter()
            .filter_map(|entry| serde_json::from_value(entry.clone()).ok())
            .collect(),
    };
    let keys: Vec<Key> = jwks.keys.iter().filter_map(usable).collect();
    if keys.is_empty() {
        return Err(KeySetError::NoUsableKey);
    }
    Ok(keys)
}

fn usable(jwk: &Jwk) -> Option<Key> {
    if jwk.common.public_key_use == Some(PublicKeyUse::Encryption) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        // The library slices an Ed25519 key without looking at its length.
        AlgorithmParameters::OctetKeyPair(pair)
            if pair.curve == EllipticCurve::Ed25519 && pair.x.trim_end_matches('=').len() == 43 =>
        {
            Algorithm::EdDSA
        }
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(point) if point.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        _ => return None,
    };
    if let Some(stated) = jwk.common.key_algorithm
        && stated != KeyAlgorithm::from(algorithm)
    {
        return None;
    }
    Some(Key {
        id: jwk.common.key_id.clone(),
        algorithm,
        key: DecodingKey::from_jwk(jwk).ok()?,
    })
}

async fn fetch(url: &str) -> Result<Vec<u8>, reqwest::Error> {
    crate::tls::install_crypto_provider();
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .build()?;
    let answer = client.get(url).send().await?.error_for_status()?;
    Ok(answer.bytes().await?.to_vec())
}
