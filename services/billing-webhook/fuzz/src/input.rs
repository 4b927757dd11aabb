//! How an input of bytes stands for a post: for a signature, one line for each header and then the
//! body; for a payload, the body alone.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue};
use billing_webhook::endpoints::{Endpoint, Endpoints};
use billing_webhook::provider::{self, Provider};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;

/// Now, for signatures that say when they were made: the time of the official vectors.
pub const NOW: i64 = 1_614_265_330;

/// How far from now a signature may be.
pub const TOLERANCE: i64 = 300;

/// The endpoints that are posted to. Where two secrets stand, the second is known to no sender.
static ENDPOINTS: LazyLock<Endpoints> = LazyLock::new(|| {
    let text = "endpoints:
- { id: main, provider: stripe, account: acct_main, secrets: [whsec_test_secret, whsec_older_secret], api_key: rk_live_never_shown_7 }
- { id: test, provider: stripe, account: acct_main, livemode: false, collects_by: payment_intents, secrets: [whsec_test_secret] }
- { id: one, provider: stripe, account: acct_main, accounts: [acct_1OtherGym], secrets: [whsec_test_secret] }
- { id: other, provider: stripe, account: acct_main, secrets: [whsec_of_nobody_here] }
- { id: main, provider: gocardless, account: OR_main, secrets: [ED7D658C-D8EB-4941-948B-3973214F2D49, older_secret_of_ours] }
- { id: one, provider: gocardless, account: OR_main, accounts: [OR0001], secrets: [ED7D658C-D8EB-4941-948B-3973214F2D49] }
- { id: other, provider: gocardless, account: OR_main, secrets: [secret_of_nobody_here] }
- { id: main, provider: standard, account: acct_desk, secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=] }
- { id: secret, provider: standard, account: acct_desk, secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw] }
- { id: public, provider: standard, account: acct_desk, secrets: [whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=] }
- { id: other, provider: standard, account: acct_desk, secrets: [whsec_b3RoZXIgc2VjcmV0IG9mIDI0IGJ5dGVz] }
";
    Endpoints::parse(text).expect("the endpoints")
});

/// Parts of the secrets above that must be seen nowhere.
pub const SECRET_PARTS: [&str; 10] = [
    "whsec_test_secret",
    "whsec_older_secret",
    "whsec_of_nobody_here",
    "rk_live_never_shown_7",
    "ED7D658C",
    "older_secret_of_ours",
    "secret_of_nobody_here",
    "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "11qYAYKxCrfVS",
    "b3RoZXIgc2VjcmV0",
];

/// A provider and its endpoint of this id.
pub fn at(provider: &str, id: &str) -> (&'static dyn Provider, &'static Endpoint) {
    (
        provider::find(provider).expect("a provider"),
        ENDPOINTS.find(provider, id).expect("an endpoint"),
    )
}

/// The first line, without its end, and what follows it.
pub fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n');
    end.map_or((input, &[]), |end| (&input[..end], &input[end + 1..]))
}

/// Headers as they arrive; `None`: no server would take them.
pub fn headers(lines: &[(&'static str, &[u8])]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(headers)
}

/// Whether the endpoint accepts the post. A refusal is one of the signature.
pub fn accepted(
    (provider, endpoint): (&dyn Provider, &Endpoint),
    lines: &[(&'static str, &[u8])],
    body: &[u8],
) -> bool {
    let Some(headers) = headers(lines) else {
        return false;
    };
    let now = Timestamp::from_second(NOW).expect("an instant");
    match provider.verify(endpoint, &headers, body, now) {
        Ok(()) => true,
        Err(refusal) => {
            super::said::of_a_signature(&refusal);
            false
        }
    }
}

/// HMAC-SHA256 of the parts, one after the other.
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// A number that every byte of the input has a part in (FNV-1a), for choices that the fuzzer steers.
pub fn number(input: &[u8]) -> u64 {
    input.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The body with one bit of it changed, or with a byte where it had none.
pub fn altered(body: &[u8], number: u64) -> Vec<u8> {
    let mut altered = body.to_vec();
    let bit = usize::try_from(number % u64::MAX).unwrap_or_default();
    match body.len() {
        0 => altered.push(b'x'),
        bytes => altered[bit / 8 % bytes] ^= 1 << (bit % 8),
    }
    altered
}
