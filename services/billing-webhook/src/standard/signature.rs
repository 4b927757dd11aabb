//! `webhook-id`, `webhook-timestamp`, `webhook-signature`: Standard Webhooks 1.0.
//!
//! `v1` is base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`, keyed with the base64-decoded
//! secret; `v1a` is base64 of the Ed25519 signature of the same text, for which the endpoint has the
//! sender's public key, `whpk_…`, among its secrets. Several signatures stand there while a key is
//! replaced; unknown versions are skipped, and so is `v1a` where no public key is configured.
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use ring::signature::{ED25519, ED25519_PUBLIC_KEY_LEN, UnparsedPublicKey};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use crate::provider::Refusal;

/// Secrets come with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How many `v1a` are looked at: each reads the whole body, and a change of keys needs two.
const MOST_ASYMMETRIC: usize = 8;

/// The three headers.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    pub id: &'a str,
    pub timestamp: &'a str,
    pub signature: &'a str,
}

/// What a signature is checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Shared with the sender, for `v1`.
    Secret(Vec<u8>),
    /// The sender's, for `v1a`: Ed25519, 32 bytes.
    Public(Vec<u8>),
}

/// The key as it is written: `whpk_` begins a public one, and `whsec_` may begin a shared one.
///
/// # Errors
/// Says what is wrong with it, without it.
pub fn key(text: &str) -> Result<Key, &'static str> {
    if text.starts_with("whsk_") {
        return Err("must not be a sender's private key; its public one begins with whpk_");
    }
    if let Some(public) = text.strip_prefix("whpk_") {
        return BASE64
            .decode(public)
            .ok()
            .filter(|key| key.len() == ED25519_PUBLIC_KEY_LEN)
            .map(Key::Public)
            .ok_or("must be base64 of 32 bytes after whpk_");
    }
    BASE64
        .decode(text.strip_prefix("whsec_").unwrap_or(text))
        .ok()
        .filter(|key| !key.is_empty())
        .map(Key::Secret)
        .ok_or("must be base64, with or without its prefix")
}

/// Accepts if any of `keys` made any signature of its version, and the timestamp is within
/// `tolerance_seconds` of `now`, either way.
pub fn verify(
    headers: Headers<'_>,
    body: &[u8],
    keys: &[SecretString],
    tolerance_seconds: i64,
    now: Timestamp,
) -> Result<(), Refusal> {
    // The dot separates the signed parts, so an id with one could be cut elsewhere.
    if headers.id.is_empty() || headers.id.contains('.') {
        return Err(Refusal::Signature("webhook-id must be an id without a dot"));
    }
    let seconds: i64 = headers
        .timestamp
        .parse()
        .ok()
        .filter(|_| headers.timestamp.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or(Refusal::Signature("webhook-timestamp must be Unix seconds"))?;
    // Each key reads the body once, however many signatures a stranger writes.
    let parts = [
        headers.id.as_bytes(),
        b".",
        headers.timestamp.as_bytes(),
        b".",
        body,
    ];
    let (mut expected, mut public_keys) = (Vec::new(), Vec::new());
    for key in keys
        .iter()
        .filter_map(|text| key(text.expose_secret()).ok())
    {
        match key {
            Key::Secret(key) => expected.extend(hmac_of(&key, parts)),
            Key::Public(key) => public_keys.push(UnparsedPublicKey::new(&ED25519, key)),
        }
    }
    let entries = headers.signature.split(' ');
    let (mut v1, mut v1a) = (Vec::new(), Vec::new());
    for (version, signature) in entries.filter_map(|entry| entry.split_once(',')) {
        let signature = || BASE64.decode(signature).unwrap_or_default();
        match version {
            "v1" if !expected.is_empty() => v1.push(signature()),
            "v1a" if !public_keys.is_empty() => v1a.push(signature()),
            _ => {}
        }
    }
    if v1.is_empty() && v1a.is_empty() {
        return Err(Refusal::Signature(
            "webhook-signature has no version that this endpoint has a key for",
        ));
    }
    if v1a.len() > MOST_ASYMMETRIC {
        return Err(Refusal::Signature("webhook-signature has too many v1a"));
    }
    let mut matches = Choice::from(0);
    for (expected, signature) in expected.iter().flat_map(|e| v1.iter().map(move |s| (e, s))) {
        matches |= expected.ct_eq(signature);
    }
    if !v1a.is_empty() {
        let text = parts.concat();
        let is_good = |signature: &Vec<u8>| {
            public_keys
                .iter()
                .any(|key| key.verify(&text, signature).is_ok())
        };
        // Nothing here is secret.
        matches |= Choice::from(u8::from(v1a.iter().any(is_good)));
    }
    if !bool::from(matches) {
        return Err(Refusal::Signature("the signature does not match"));
    }
    // Only a signer learns that it is too early or too late.
    if now.as_second().abs_diff(seconds) > tolerance_seconds.unsigned_abs() {
        return Err(Refusal::Signature("webhook-timestamp is too far from now"));
    }
    Ok(())
}

fn hmac_of(secret: &[u8], parts: [&[u8]; 5]) -> Option<Vec<u8>> {
    // HMAC takes keys of any length, so this cannot fail.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    for part in parts {
        mac.update(part);
    }
    Some(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const GOOD: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const AT: i64 = 1_614_265_330;

    fn check(id: &str, signature: &str, secret: &str, now: i64) -> Result<(), Refusal> {
        let timestamp = AT.to_string();
        let headers = Headers {
            id,
            timestamp: &timestamp,
            signature,
        };
        let now = Timestamp::from_second(now).expect("an instant");
        let secrets = [
            SecretString::from("whsec_b3RoZXI="),
            SecretString::from(secret),
        ];
        verify(headers, br#"{"test": 2432232314}"#, &secrets, 300, now)
    }

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";

    #[test]
    fn official_vectors_hold() {
        assert_eq!(check(ID, GOOD, SECRET, AT), Ok(()));
        assert_eq!(
            check(ID, GOOD, &SECRET["whsec_".len()..], AT),
            Ok(()),
            "without its prefix"
        );
        let several =
            format!("v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v2,x {GOOD} nonsense");
        assert_eq!(check(ID, &several, SECRET, AT), Ok(()));
    }

    #[test]
    fn everything_else_is_refused() {
        let altered = GOOD.replace("OE=", "OA=");
        let only_v1a = GOOD.replace("v1,", "v1a,");
        for (id, signature, now) in [
            (ID, altered.as_str(), AT),
            (ID, only_v1a.as_str(), AT),
            (ID, "", AT),
            ("msg.p5j", GOOD, AT),
            ("other", GOOD, AT),
            (ID, GOOD, AT + 301),
            (ID, GOOD, AT - 301),
        ] {
            assert!(
                check(id, signature, SECRET, now).is_err(),
                "{id} {signature} {now}"
            );
        }
        assert!(check(ID, GOOD, "whsec_d3Jvbmc=", AT).is_err());
    }

    /// The seed of RFC 8032, test 1.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

    fn asymmetric() -> (String, String) {
        use ring::signature::{Ed25519KeyPair, KeyPair};
        let seed = hex::decode(SEED).expect("hex");
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a pair");
        let text = format!("{ID}.{AT}.{{\"test\": 2432232314}}");
        let signature = BASE64.encode(pair.sign(text.as_bytes()).as_ref());
        let public = BASE64.encode(pair.public_key().as_ref());
        (format!("whpk_{public}"), format!("v1a,{signature}"))
    }

    #[test]
    fn an_asymmetric_signature_counts_where_its_public_key_is_configured() {
        let (public, signature) = asymmetric();
        assert_eq!(check(ID, &signature, &public, AT), Ok(()));
        let unpadded = public.trim_end_matches('=');
        assert_eq!(
            check(ID, &format!("v1,x {signature}"), unpadded, AT),
            Ok(())
        );
        let other = "whpk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert_eq!(
            check(ID, &signature, other, AT),
            Err(Refusal::Signature("the signature does not match"))
        );
        let many = format!("{}{signature}", "v1a,x ".repeat(MOST_ASYMMETRIC));
        assert_eq!(
            check(ID, &many, &public, AT),
            Err(Refusal::Signature("webhook-signature has too many v1a"))
        );
        assert!(check("other", &signature, &public, AT).is_err());
        assert!(check(ID, &signature, &public, AT + 301).is_err());
        // Neither kind of key is taken for the other.
        assert_eq!(
            check(ID, &signature, SECRET, AT),
            Err(Refusal::Signature(
                "webhook-signature has no version that this endpoint has a key for"
            ))
        );
        let as_secret = public.replace("whpk_", "whsec_");
        assert!(check(ID, &signature, &as_secret, AT).is_err());
        let as_v1 = signature.replace("v1a,", "v1,");
        assert!(check(ID, &as_v1, &public, AT).is_err());
        assert!(check(ID, &GOOD.replace("v1,", "v1a,"), &public, AT).is_err());
    }

    #[test]
    fn keys_are_told_apart_by_their_prefix() {
        let (public, _) = asymmetric();
        assert!(matches!(key(&public), Ok(Key::Public(_))));
        assert!(matches!(key(SECRET), Ok(Key::Secret(_))));
        for bad in [
            "",
            "whsec_",
            "whsec_!!",
            "whpk_",
            "whpk_b3RoZXI=",
            "whpk_!!",
        ] {
            assert!(key(bad).is_err(), "{bad}");
        }
        assert!(key(&public.replace("whpk_", "whsk_")).is_err());
    }
}
