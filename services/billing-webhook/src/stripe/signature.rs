//! `Stripe-Signature: t=<unix seconds>,v1=<hex>[,v1=<hex>…]`.
//!
//! `v1` is HMAC-SHA256 of `t`, a dot and the raw body under the whole secret as text. Several `v1`
//! stand there while a secret is rolled. Every other scheme is ignored, so that nobody can
//! downgrade; a second `t` is refused, because libraries disagree on which one counts.
//! <https://docs.stripe.com/webhooks#verify-manually>

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use crate::provider::Refusal;

/// The header's name.
pub const HEADER: &str = "stripe-signature";

/// Accepts if any of `secrets` made any `v1`, and `t` is within `tolerance_seconds` of `now`,
/// either way.
pub fn verify(
    header: &str,
    body: &[u8],
    secrets: &[SecretString],
    tolerance_seconds: i64,
    now: Timestamp,
) -> Result<(), Refusal> {
    let mut at = None;
    let mut signatures = Vec::new();
    for element in header.split(',') {
        let Some((scheme, value)) = element.split_once('=') else {
            continue;
        };
        match scheme.trim() {
            "t" if at.is_some() => {
                return Err(Refusal::Signature("the signature has two timestamps"));
            }
            "t" => at = Some(value.trim()),
            "v1" => signatures.push(hex::decode(value.trim()).unwrap_or_default()),
            _ => {}
        }
    }
    let at = at.ok_or(Refusal::Signature("the signature has no timestamp"))?;
    if signatures.is_empty() {
        return Err(Refusal::Signature("the signature has no v1"));
    }
    let seconds: i64 = at
        .parse()
        .ok()
        .filter(|_| at.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or(Refusal::Signature(
            "the signature's timestamp is no number of seconds",
        ))?;

    let mut matches = Choice::from(0);
    for secret in secrets {
        // HMAC takes keys of any length, so this cannot fail.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()) else {
            continue;
        };
        // As it stands in the header, not printed anew.
        mac.update(at.as_bytes());
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
    // Only a signer learns that it is too early or too late.
    if now.as_second().abs_diff(seconds) > tolerance_seconds.unsigned_abs() {
        return Err(Refusal::Signature(
            "the signature's timestamp is too far from now",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_test_secret";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const GOOD: &str = "10c96c6fd3f320fcfc264cdc4f476c15060ede8e8a08404cea2ddf3b72544a9c";
    const AT: i64 = 1_614_265_330;

    fn check(header: &str, secrets: &[&str], now: i64) -> Result<(), Refusal> {
        let secrets: Vec<_> = secrets
            .iter()
            .map(|secret| SecretString::from(*secret))
            .collect();
        verify(
            header,
            BODY,
            &secrets,
            300,
            Timestamp::from_second(now).expect("an instant"),
        )
    }

    #[test]
    fn official_vector_is_accepted() {
        assert_eq!(check(&format!("t={AT},v1={GOOD}"), &[SECRET], AT), Ok(()));
    }

    #[test]
    fn any_secret_and_any_v1_will_do_and_other_schemes_are_ignored() {
        let wrong = "00".repeat(32);
        for header in [
            format!("t={AT},v1={wrong},v1={GOOD}"),
            format!("t={AT},v0={wrong},v1={GOOD},v9=x"),
            format!("v1={GOOD},t={AT}"),
            format!("t={AT}, v1={}", GOOD.to_uppercase()),
        ] {
            assert_eq!(
                check(&header, &["whsec_new", SECRET], AT),
                Ok(()),
                "{header}"
            );
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let wrong = "00".repeat(32);
        for (header, now, why) in [
            (
                format!("t={AT},v1={wrong}"),
                AT,
                "the signature does not match",
            ),
            (
                format!("t={AT},v1={}", &GOOD[..62]),
                AT,
                "the signature does not match",
            ),
            (format!("t={AT},v1=zz"), AT, "the signature does not match"),
            (format!("t={AT},v0={GOOD}"), AT, "the signature has no v1"),
            (format!("v1={GOOD}"), AT, "the signature has no timestamp"),
            (
                format!("t={AT},t={AT},v1={GOOD}"),
                AT,
                "the signature has two timestamps",
            ),
            (
                format!("t=+{AT},v1={GOOD}"),
                AT,
                "the signature's timestamp is no number of seconds",
            ),
            (
                format!("t={AT},v1={GOOD}"),
                AT + 301,
                "the signature's timestamp is too far from now",
            ),
            (
                format!("t={AT},v1={GOOD}"),
                AT - 301,
                "the signature's timestamp is too far from now",
            ),
            (String::new(), AT, "the signature has no timestamp"),
        ] {
            assert_eq!(
                check(&header, &[SECRET], now),
                Err(Refusal::Signature(why)),
                "{header}"
            );
        }
        assert!(check(&format!("t={AT},v1={GOOD}"), &["whsec_other"], AT).is_err());
    }

    #[test]
    fn both_ends_of_the_tolerance_are_accepted() {
        for now in [AT - 300, AT + 300] {
            assert_eq!(check(&format!("t={AT},v1={GOOD}"), &[SECRET], now), Ok(()));
        }
    }
}
