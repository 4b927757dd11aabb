//! `webhook-id`, `webhook-timestamp`, `webhook-signature`: Standard Webhooks 1.0.
//!
//! `v1` is base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`, keyed with the base64-decoded
//! secret. Several signatures stand there while a secret is rotated; unknown versions are skipped.
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use crate::provider::Refusal;

/// Secrets come with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The three headers.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    pub id: &'a str,
    pub timestamp: &'a str,
    pub signature: &'a str,
}

/// The key behind a secret, with or without its prefix `whsec_`.
pub fn key(secret: &str) -> Option<Vec<u8>> {
    BASE64
        .decode(secret.strip_prefix("whsec_").unwrap_or(secret))
        .ok()
        .filter(|key| !key.is_empty())
}

/// Accepts if any of `secrets` made any `v1`, and the timestamp is within `tolerance_seconds` of
/// `now`, either way.
pub fn verify(
    headers: Headers<'_>,
    body: &[u8],
    secrets: &[SecretString],
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
    let signatures: Vec<_> = headers
        .signature
        .split(' ')
        .filter_map(|entry| entry.split_once(','))
        .filter(|(version, _)| *version == "v1")
        .map(|(_, signature)| BASE64.decode(signature).unwrap_or_default())
        .collect();
    if signatures.is_empty() {
        return Err(Refusal::Signature("webhook-signature has no v1"));
    }
    let mut matches = Choice::from(0);
    for key in secrets
        .iter()
        .filter_map(|secret| key(secret.expose_secret()))
    {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else {
            continue;
        };
        mac.update(headers.id.as_bytes());
        mac.update(b".");
        mac.update(headers.timestamp.as_bytes());
        mac.update(b".");
        mac.update(body);
        let expected = mac.finalize().into_bytes();
        for signature in &signatures {
            matches |= expected.as_slice().ct_eq(signature);
        }
    }
    if !bool::from(matches) {
        return Err(Refusal::Signature("the signature does not match"));
    }
    if now.as_second().abs_diff(seconds) > tolerance_seconds.unsigned_abs() {
        return Err(Refusal::Signature("webhook-timestamp is too far from now"));
    }
    Ok(())
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
}
