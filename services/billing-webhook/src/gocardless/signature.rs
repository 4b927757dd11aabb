//! `Webhook-Signature: <hex>`: HMAC-SHA256 of the raw body under the endpoint's secret as text.
//!
//! There is no timestamp and so no window: a post that is sent again counts once because its events
//! keep their ids. A request carries one signature, so while a secret is replaced any of those
//! configured will do.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use crate::provider::Refusal;

/// The header's name.
pub const HEADER: &str = "webhook-signature";

/// Accepts if any of `secrets` made the signature. Bytes are compared, so that the case of the hex
/// digits does not matter.
pub fn verify(header: &str, body: &[u8], secrets: &[SecretString]) -> Result<(), Refusal> {
    let signature =
        hex::decode(header).map_err(|_| Refusal::Signature("the signature is not hexadecimal"))?;
    let mut matches = Choice::from(0);
    for secret in secrets {
        // HMAC takes keys of any length, so this cannot fail.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()) else {
            continue;
        };
        mac.update(body);
        matches |= mac.finalize().into_bytes().as_slice().ct_eq(&signature);
    }
    if bool::from(matches) {
        Ok(())
    } else {
        Err(Refusal::Signature("the signature does not match"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The official client's own test: its body has no newline at the end.
    const BODY: &[u8] = include_bytes!("../../tests/fixtures/gocardless/a0_official_vector.json");
    const SECRET: &str = "ED7D658C-D8EB-4941-948B-3973214F2D49";
    const GOOD: &str = "2693754819d3e32d7e8fcb13c729631f316c6de8dc1cf634d6527f1c07276e7e";

    fn check(header: &str, body: &[u8], secrets: &[&str]) -> Result<(), Refusal> {
        let secrets: Vec<_> = secrets
            .iter()
            .map(|text| SecretString::from(*text))
            .collect();
        verify(header, body, &secrets)
    }

    #[test]
    fn the_official_vector_is_accepted_under_any_secret_and_in_either_case() {
        assert_eq!(check(GOOD, BODY, &[SECRET]), Ok(()));
        assert_eq!(check(GOOD, BODY, &["new", SECRET]), Ok(()));
        assert_eq!(check(&GOOD.to_uppercase(), BODY, &[SECRET]), Ok(()));
    }

    #[test]
    fn everything_else_is_refused() {
        let with_newline = [BODY, b"\n"].concat();
        let not_matching = Err(Refusal::Signature("the signature does not match"));
        assert_eq!(check(GOOD, &with_newline, &[SECRET]), not_matching);
        assert_eq!(check(GOOD, BODY, &["other"]), not_matching);
        assert_eq!(check(GOOD, BODY, &[]), not_matching);
        assert_eq!(check(&GOOD[..62], BODY, &[SECRET]), not_matching);
        assert_eq!(check("", BODY, &[SECRET]), not_matching);
        let not_hex = Err(Refusal::Signature("the signature is not hexadecimal"));
        for header in [
            &GOOD[1..],
            "zz",
            &format!("v1={GOOD}"),
            &format!("{GOOD},{GOOD}"),
        ] {
            assert_eq!(check(header, BODY, &[SECRET]), not_hex, "{header}");
        }
    }
}
