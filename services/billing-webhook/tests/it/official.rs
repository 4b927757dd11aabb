//! Signatures: what the providers' own libraries sign is accepted, and what is signed twice is not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use billing_webhook::provider::{self, Refusal};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;

use crate::fixtures::endpoint;
use crate::harness::{now, signed};

/// One body, signed, as `sign_all.py` prints it.
#[derive(Deserialize)]
struct Signed {
    provider: String,
    file: String,
    /// All that the sender signed with; a second one while it replaces the first.
    secrets: Vec<String>,
    headers: BTreeMap<String, String>,
    /// The same, with a timestamp of ten minutes ago; none where the provider signs no time.
    stale: Option<BTreeMap<String, String>>,
}

fn sign_all() -> Vec<Signed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var("GYMFLOW_PYTHON").unwrap_or_else(|_| "python3".into());
    let tools = std::env::var_os("GYMFLOW_PYTHONPATH")
        .map_or_else(|| root.join("../../.tools/py"), PathBuf::from);
    let output = Command::new(python)
        .env("PYTHONPATH", tools)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(root.join("tests/fixtures/sign_all.py"))
        .output()
        .expect("python3");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "run `make tools`: {words}");
    let lines = String::from_utf8(output.stdout).expect("text");
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a signed body"))
        .collect()
}

fn headers(of: &BTreeMap<String, String>) -> HeaderMap {
    of.iter()
        .map(|(name, value)| {
            let name: HeaderName = name.parse().expect("a header's name");
            (
                name,
                HeaderValue::from_str(value).expect("a header's value"),
            )
        })
        .collect()
}

#[test]
fn what_the_official_libraries_sign_is_accepted_and_nothing_else() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let signed = sign_all();
    let now = Timestamp::from_second(now()).expect("an instant");
    let mut by_provider = BTreeMap::<&str, usize>::new();
    for one in &signed {
        *by_provider.entry(&one.provider).or_default() += 1;
        let body = std::fs::read(folder.join(&one.file)).expect("a fixture");
        let found = provider::find(&one.provider).expect("a provider");
        let check = |secrets: &[&str], headers: &HeaderMap, body: &[u8]| {
            let mut endpoint = endpoint(&one.provider, true);
            endpoint.secrets = secrets
                .iter()
                .map(|text| SecretString::from(*text))
                .collect();
            found.verify(&endpoint, headers, body, now)
        };
        let good = headers(&one.headers);
        // Whichever of the sender's secrets we know, and whatever else is configured.
        let other = "whsec_b3RoZXIgc2VjcmV0IG9mIDI0IGJ5dGVz";
        for secret in &one.secrets {
            assert_eq!(
                check(&[other, secret], &good, &body),
                Ok(()),
                "{}",
                one.file
            );
        }
        let secret = one.secrets[0].as_str();
        let mut altered = body.clone();
        *altered.last_mut().expect("a body") ^= 1;
        for (what, outcome) in [
            ("another secret", check(&[other], &good, &body)),
            ("another body", check(&[secret], &good, &altered)),
            ("no headers", check(&[secret], &HeaderMap::new(), &body)),
        ] {
            assert!(
                matches!(outcome, Err(Refusal::Signature(_))),
                "{what}: {}",
                one.file
            );
        }
        if let Some(stale) = &one.stale {
            let outcome = check(&[secret], &headers(stale), &body);
            assert!(
                matches!(outcome, Err(Refusal::Signature(_))),
                "stale: {}",
                one.file
            );
        }
    }
    let providers: Vec<_> = by_provider.keys().copied().collect();
    assert_eq!(providers, ["gocardless", "standard", "stripe"]);
    assert!(signed.len() > 60, "{by_provider:?}");
}

#[test]
fn a_header_of_the_signature_that_stands_twice_is_refused() {
    let at = 1_791_608_403;
    let now = Timestamp::from_second(at).expect("an instant");
    for (provider, name, value) in [
        ("stripe", "stripe-signature", signed("secret", b"{}", at)),
        (
            "gocardless",
            "webhook-signature",
            "77325902caca812dc259733aacd046b73817372c777b8d95b402647474516e13".to_owned(),
        ),
    ] {
        let found = provider::find(provider).expect("a provider");
        let mut endpoint = endpoint(provider, true);
        endpoint.secrets = vec![SecretString::from("secret")];
        let mut headers = HeaderMap::new();
        let check = |headers: &HeaderMap| found.verify(&endpoint, headers, b"{}", now);
        assert!(matches!(check(&headers), Err(Refusal::Signature(_))));
        headers.append(name, value.parse().expect("a header"));
        assert_eq!(check(&headers), Ok(()), "{provider}");
        headers.append(name, value.parse().expect("a header"));
        assert!(matches!(check(&headers), Err(Refusal::Signature(_))));
    }
}
