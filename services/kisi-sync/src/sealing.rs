//! Secrets at rest: XChaCha20-Poly1305 under keys that can be rotated from day one.
//!
//! The associated data is the purpose, the gym, the row and the sealing key's id, so that sealed
//! bytes copied to another row, gym or purpose do not open. The first key of `SEALING_KEYS` seals;
//! any opens. What is stored is `nonce || ciphertext`, with the key's id beside it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use secrecy::{ExposeSecret, SecretString};

const NONCE_BYTES: usize = 24;

/// What a sealed secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A gym's Kisi API key.
    ApiKey,
    /// A member's Kisi login for unlocks from the server.
    MemberLogin,
    /// What Kisi signs a gym's event webhooks with.
    EventSignature,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "kisi-api-key",
            Self::MemberLogin => "kisi-member-login",
            Self::EventSignature => "kisi-event-signature",
        }
    }
}

/// A sealed secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which key of `SEALING_KEYS` opens it.
    pub key_id: String,
    pub bytes: Vec<u8>,
}

/// Why `SEALING_KEYS` cannot be used, or sealed bytes do not open. Never says a secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealingError {
    #[error("bad setting SEALING_KEYS: entry {0} is not id:base64 of 32 bytes")]
    BadKey(usize),
    #[error("bad setting SEALING_KEYS: the id {0} stands twice")]
    RepeatedId(String),
    #[error("the sealing key {0} is not in SEALING_KEYS")]
    UnknownKey(String),
    #[error("sealed bytes do not open under key {0}")]
    DoesNotOpen(String),
}

/// The keys, newest first.
pub struct Sealer {
    keys: Vec<(String, XChaCha20Poly1305)>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    /// Reads `id:base64` entries, separated by commas or white space.
    pub fn parse(text: &SecretString) -> Result<Self, SealingError> {
        let mut keys: Vec<(String, XChaCha20Poly1305)> = Vec::new();
        let entries = text
            .expose_secret()
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|entry| !entry.is_empty());
        for (index, entry) in entries.enumerate() {
            let bad = SealingError::BadKey(index + 1);
            let Some((id, encoded)) = entry.split_once(':') else {
                return Err(bad);
            };
            let Ok(bytes) = STANDARD.decode(encoded) else {
                return Err(bad);
            };
            let Ok(cipher) = XChaCha20Poly1305::new_from_slice(&bytes) else {
                return Err(bad);
            };
            if id.is_empty() {
                return Err(bad);
            }
            if keys.iter().any(|(known, _)| known == id) {
                return Err(SealingError::RepeatedId(id.to_owned()));
            }
            keys.push((id.to_owned(), cipher));
        }
        if keys.is_empty() {
            return Err(SealingError::BadKey(1));
        }
        Ok(Self { keys })
    }

    /// The id of the key that seals.
    pub fn newest(&self) -> &str {
        &self.keys[0].0
    }

    /// Seals `secret` for one row of one gym. `nonce` must be random and never used before.
    pub fn seal(
        &self,
        purpose: Purpose,
        gym: &str,
        row: &str,
        secret: &SecretString,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Sealed, SealingError> {
        let (key_id, cipher) = &self.keys[0];
        let aad = associated(purpose, gym, row, key_id);
        let payload = Payload {
            msg: secret.expose_secret().as_bytes(),
            aad: &aad,
        };
        let sealed = cipher
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| SealingError::DoesNotOpen(key_id.clone()))?;
        let mut bytes = nonce.to_vec();
        bytes.extend(sealed);
        Ok(Sealed {
            key_id: key_id.clone(),
            bytes,
        })
    }

    /// Opens what was sealed for this row of this gym.
    pub fn open(
        &self,
        purpose: Purpose,
        gym: &str,
        row: &str,
        sealed: &Sealed,
    ) -> Result<SecretString, SealingError> {
        let (key_id, cipher) = self
            .keys
            .iter()
            .find(|(id, _)| *id == sealed.key_id)
            .ok_or_else(|| SealingError::UnknownKey(sealed.key_id.clone()))?;
        let refused = || SealingError::DoesNotOpen(key_id.clone());
        let (nonce, message) = sealed
            .bytes
            .split_at_checked(NONCE_BYTES)
            .ok_or_else(refused)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| refused())?;
        let aad = associated(purpose, gym, row, key_id);
        let payload = Payload {
            msg: message,
            aad: &aad,
        };
        let opened = cipher
            .decrypt(&XNonce::from(nonce), payload)
            .map_err(|_| refused())?;
        String::from_utf8(opened)
            .map(SecretString::from)
            .map_err(|_| refused())
    }
}

/// Ids hold no line break, so the parts cannot run into each other.
fn associated(purpose: Purpose, gym: &str, row: &str, key_id: &str) -> Vec<u8> {
    format!("{}\n{gym}\n{row}\n{key_id}", purpose.as_str()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(entries: &[(&str, u8)]) -> SecretString {
        let entries: Vec<String> = entries
            .iter()
            .map(|(id, byte)| format!("{id}:{}", STANDARD.encode([*byte; 32])))
            .collect();
        SecretString::from(entries.join(","))
    }

    #[test]
    fn the_newest_key_seals_and_an_older_one_still_opens() {
        let old = Sealer::parse(&keys(&[("k1", 1)])).unwrap();
        let both = Sealer::parse(&keys(&[("k2", 2), ("k1", 1)])).unwrap();
        let secret = SecretString::from("kisi-secret");
        let sealed = old
            .seal(Purpose::ApiKey, "g", "-", &secret, [7; 24])
            .unwrap();
        let opened = both.open(Purpose::ApiKey, "g", "-", &sealed).unwrap();
        assert_eq!(opened.expose_secret(), "kisi-secret");
        let again = both
            .seal(Purpose::ApiKey, "g", "-", &secret, [8; 24])
            .unwrap();
        assert_eq!(again.key_id, "k2");
        assert_eq!(
            old.open(Purpose::ApiKey, "g", "-", &again).err(),
            Some(SealingError::UnknownKey("k2".to_owned()))
        );
    }

    #[test]
    fn sealed_bytes_open_only_for_their_own_purpose_gym_and_row() {
        let sealer = Sealer::parse(&keys(&[("k1", 1)])).unwrap();
        let secret = SecretString::from("s");
        let sealed = sealer
            .seal(Purpose::MemberLogin, "g", "m", &secret, [1; 24])
            .unwrap();
        for (purpose, gym, row) in [
            (Purpose::ApiKey, "g", "m"),
            (Purpose::MemberLogin, "h", "m"),
            (Purpose::MemberLogin, "g", "n"),
        ] {
            assert!(sealer.open(purpose, gym, row, &sealed).is_err());
        }
        let mut broken = sealed.clone();
        broken.bytes[30] ^= 1;
        assert!(
            sealer
                .open(Purpose::MemberLogin, "g", "m", &broken)
                .is_err()
        );
    }

    #[test]
    fn a_bad_key_is_named_by_its_place_and_never_shown() {
        let error = Sealer::parse(&SecretString::from("k1:c2hvcnQ=")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bad setting SEALING_KEYS: entry 1 is not id:base64 of 32 bytes"
        );
        assert!(Sealer::parse(&keys(&[("k1", 1), ("k1", 2)])).is_err());
    }
}
