//! The endpoints file, as `check-endpoints` and the running service read it.

use std::io;
use std::path::Path;

use billing_webhook::endpoints::{Endpoints, EndpointsError};
use secrecy::ExposeSecret;
use serde_yaml_ng::Value;

use super::said;

/// What stands in every file that the endpoints name.
const IN_FILES: &str = "whsec_SW5BRmlsZU9mSXRzT3du\n";

/// Files are not read: what an input names is a word to it and no place.
fn read_with(text: &str) -> Result<Endpoints, EndpointsError> {
    Endpoints::parse_with(text, &mut |path: &Path| match path.as_os_str().len() % 5 {
        0 => Err(io::ErrorKind::NotFound.into()),
        _ => Ok(IN_FILES.to_owned()),
    })
}

/// The text of a file.
pub fn read(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let outcome = read_with(text).map_err(|error| error.to_string());
    let again = read_with(text).map_err(|error| error.to_string());
    let shown = |outcome: &Result<Endpoints, String>| format!("{outcome:?}");
    assert_eq!(
        shown(&outcome),
        shown(&again),
        "the same text means the same"
    );
    match outcome {
        Ok(endpoints) => good(&endpoints),
        Err(said) => bad(&said, text),
    }
}

/// Each endpoint can be posted to, and shows no secret to whoever prints it.
fn good(endpoints: &Endpoints) {
    assert!(!endpoints.is_empty());
    for endpoint in endpoints.iter() {
        assert!(endpoints.find(&endpoint.provider, &endpoint.id).is_some());
        assert!(["stripe", "gocardless", "standard"].contains(&endpoint.provider.as_str()));
        let names = [&endpoint.id, &endpoint.account];
        for name in names.into_iter().chain(&endpoint.accounts) {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            assert!(
                (1..=64).contains(&name.len()) && name.bytes().all(is_plain),
                "{name}"
            );
        }
        assert!((1..=86_400).contains(&endpoint.tolerance_seconds));
        assert!(!endpoint.secrets.is_empty(), "none could sign");
        for secret in &endpoint.secrets {
            assert!(
                !secret.expose_secret().trim().is_empty(),
                "anybody could sign"
            );
        }
        if let Some(key) = &endpoint.api_key {
            let key = key.expose_secret();
            assert!(!key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()));
            assert_ne!(endpoint.provider, "standard");
        }
    }
}

/// What is wrong is named, and no value shown that could be a secret in the wrong place.
fn bad(said: &str, text: &str) {
    assert!(!said.is_empty());
    assert!(!said.contains(IN_FILES.trim()), "{said}");
    let Ok(file) = serde_yaml_ng::from_str::<Value>(text) else {
        return;
    };
    let mut values = Vec::new();
    collect(&file, &mut values);
    for value in values {
        assert!(!said.contains(value), "a value is shown: {said}");
    }
}

/// Values that look like a secret: eight and more letters with a digit or a capital among them.
/// Paths of files are shown on purpose.
fn collect<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => {
            let is_like_one = text.len() >= said::SHORTEST_PART
                && text.bytes().all(|byte| byte.is_ascii_graphic())
                && text
                    .bytes()
                    .any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
            if is_like_one {
                into.push(text);
            }
        }
        Value::Sequence(values) => values.iter().for_each(|value| collect(value, into)),
        Value::Mapping(fields) => {
            for (key, value) in fields {
                if !matches!(key.as_str(), Some("secret_files" | "api_key_file")) {
                    collect(value, into);
                }
            }
        }
        Value::Tagged(tagged) => collect(&tagged.value, into),
        _ => {}
    }
}
