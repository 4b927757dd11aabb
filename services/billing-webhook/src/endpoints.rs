//! The billing endpoints: who may post where, and with which secrets.
//!
//! `BILLING_ENDPOINTS_FILE` is YAML, read strictly: a field that nobody knows is more likely a
//! mistake than a wish. What is wrong is named by line and field.

mod locate;
pub mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use access_domain::ids::{AccountId, EventId};
use secrecy::SecretString;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::provider;
use crate::standard::signature::key;

/// Tolerance of Stripe's and Standard Webhooks' libraries.
const DEFAULT_TOLERANCE: i64 = 300;

/// Of everything that a look at the file has read.
type Fingerprint = [u8; 32];

/// How a file that the endpoints name is read.
pub type ReadFile<'a> = dyn FnMut(&Path) -> std::io::Result<String> + 'a;

/// One endpoint, checked.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The last part of its path.
    pub id: String,
    /// The name of its provider.
    pub provider: String,
    /// The account of events that name none.
    pub account: String,
    /// The accounts it takes besides; empty: every one that an event names.
    pub accounts: Vec<String>,
    /// Whether it takes live events or test ones; never both. Live unless the file says otherwise.
    pub livemode: bool,
    /// Newest first; any of them may have signed.
    pub secrets: Vec<SecretString>,
    /// How far a signature's time may be from ours, either way.
    pub tolerance_seconds: i64,
    /// Which of Stripe's events tell of payments.
    pub collects_by: CollectsBy,
    /// Of the provider's API, for catching up; none: it is not caught up.
    pub api_key: Option<SecretString>,
}

/// How a Stripe account collects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CollectsBy {
    /// By Stripe's invoices, which tell all there is to tell.
    #[default]
    Invoices,
    /// Also by plain payment intents, whose metadata names the invoice (`gymflow_invoice_id`).
    PaymentIntents,
}

impl Endpoint {
    /// Whether events of this account are this endpoint's.
    pub fn takes_account(&self, account: &str) -> bool {
        self.accounts.is_empty()
            || account == self.account
            || self.accounts.iter().any(|known| known == account)
    }
}

/// All endpoints, by (provider, id).
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    by_path: BTreeMap<(String, String), Endpoint>,
}

impl Endpoints {
    /// The endpoint at `/webhooks/{provider}/{id}`.
    pub fn find(&self, provider: &str, id: &str) -> Option<&Endpoint> {
        self.by_path.get(&(provider.to_owned(), id.to_owned()))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.by_path.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// Reads and checks a file, and the secrets in files that it names.
    pub fn read(path: &Path) -> Result<Self, EndpointsError> {
        Self::look(path).1
    }

    /// As [`Self::read`], with the fingerprint of everything that was read: the same one means the
    /// same answer.
    fn look(path: &Path) -> (Fingerprint, Result<Self, EndpointsError>) {
        let mut seen = Sha256::new();
        let mut read = |path: &Path| {
            let content = std::fs::read_to_string(path);
            seen.update(path.as_os_str().as_encoded_bytes());
            match &content {
                Ok(text) => seen.update(Sha256::digest(text)),
                Err(error) => seen.update(error.kind().to_string()),
            }
            content
        };
        let endpoints = read(path)
            .map_err(|source| EndpointsError::Unreadable {
                path: path.to_owned(),
                source,
            })
            .and_then(|text| Self::parse_with(&text, &mut read));
        (seen.finalize().into(), endpoints)
    }

    /// Checks the text of a file.
    pub fn parse(text: &str) -> Result<Self, EndpointsError> {
        Self::parse_with(text, &mut |path| std::fs::read_to_string(path))
    }

    /// As [`Self::parse`], with files that it names from `read`.
    pub fn parse_with(text: &str, read: &mut ReadFile<'_>) -> Result<Self, EndpointsError> {
        let file: File = serde_yaml_ng::from_str(text)
            .map_err(|error| EndpointsError::Invalid(locate::explain(&error)))?;
        let mut by_path = BTreeMap::new();
        for (index, written) in file.endpoints.into_iter().enumerate() {
            let wrong = |field: &str, why: &str| {
                let at = locate::line_of(text, index, field).map_or_else(
                    || format!("endpoint {}", index + 1),
                    |n| format!("line {n}"),
                );
                EndpointsError::Invalid(format!("{at}: `{field}` {why}"))
            };
            let endpoint = written.check(read, wrong)?;
            let path = (endpoint.provider.clone(), endpoint.id.clone());
            if by_path.insert(path, endpoint).is_some() {
                return Err(wrong(
                    "id",
                    "is another endpoint's of the same provider already",
                ));
            }
        }
        if by_path.is_empty() {
            return Err(EndpointsError::Invalid(
                "`endpoints` must list at least one".into(),
            ));
        }
        Ok(Self { by_path })
    }
}

/// Why a file is no list of endpoints. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum EndpointsError {
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Names line and field.
    #[error("{0}")]
    Invalid(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    endpoints: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    provider: String,
    account: String,
    #[serde(default)]
    accounts: Vec<String>,
    livemode: Option<bool>,
    #[serde(default)]
    secrets: Vec<SecretString>,
    /// Files with one secret each, as mounted from a Secret.
    #[serde(default)]
    secret_files: Vec<PathBuf>,
    tolerance_seconds: Option<i64>,
    collects_by: Option<CollectsBy>,
    /// Of the provider's API: then what it could not deliver is asked for there.
    api_key: Option<SecretString>,
    /// A file with that key alone.
    api_key_file: Option<PathBuf>,
}

impl Written {
    fn check(
        self,
        read: &mut ReadFile<'_>,
        wrong: impl Fn(&str, &str) -> EndpointsError,
    ) -> Result<Endpoint, EndpointsError> {
        let id = |field: &str, text: &str| {
            AccountId::parse(text)
                .map(drop)
                .map_err(|why| wrong(field, &why.to_string()))
        };
        EventId::parse(&self.id).map_err(|why| wrong("id", &why.to_string()))?;
        id("account", &self.account)?;
        for account in &self.accounts {
            id("accounts", account)?;
        }
        let Some(provider) = provider::find(&self.provider) else {
            let known: Vec<_> = provider::PROVIDERS
                .iter()
                .map(|known| known.name())
                .collect();
            return Err(wrong(
                "provider",
                &format!("must be one of {}", known.join(", ")),
            ));
        };
        let tolerance_seconds = self.tolerance_seconds.unwrap_or(DEFAULT_TOLERANCE);
        if !(1..=86_400).contains(&tolerance_seconds) {
            return Err(wrong(
                "tolerance_seconds",
                "must be 1 to 86400; it cannot be switched off",
            ));
        }
        if self.collects_by.is_some() && self.provider != "stripe" {
            return Err(wrong("collects_by", "is for stripe alone"));
        }
        let mut secrets = self.secrets;
        for path in &self.secret_files {
            let text = read(path).map_err(|error| {
                wrong(
                    "secret_files",
                    &format!("{} cannot be read: {error}", path.display()),
                )
            })?;
            secrets.push(SecretString::from(text.trim()));
        }
        if secrets.is_empty() {
            return Err(wrong(
                "secrets",
                "must hold at least one secret, or `secret_files` a file",
            ));
        }
        for secret in &secrets {
            use secrecy::ExposeSecret;
            let secret = secret.expose_secret();
            if secret.trim().is_empty() {
                return Err(wrong("secrets", "must not be empty"));
            }
            if self.provider == "standard" {
                key(secret).map_err(|why| wrong("secrets", why))?;
            }
        }
        let api_key = match (self.api_key, self.api_key_file) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                return Err(wrong("api_key", "must not stand beside `api_key_file`"));
            }
            (Some(key), None) => Some(("api_key", key)),
            (None, Some(path)) => {
                let text = read(&path).map_err(|error| {
                    wrong(
                        "api_key_file",
                        &format!("{} cannot be read: {error}", path.display()),
                    )
                })?;
                Some(("api_key_file", SecretString::from(text)))
            }
        };
        let api_key = match api_key {
            Some((field, _)) if provider.listing().is_none() => {
                return Err(wrong(field, "is for stripe and gocardless alone"));
            }
            Some((field, key)) => Some(one_word(&key).map_err(|why| wrong(field, why))?),
            None => None,
        };
        Ok(Endpoint {
            id: self.id,
            provider: self.provider,
            account: self.account,
            accounts: self.accounts,
            livemode: self.livemode.unwrap_or(true),
            secrets,
            tolerance_seconds,
            collects_by: self.collects_by.unwrap_or_default(),
            api_key,
        })
    }
}

/// An API key as it stands in a header: one word, without the line's end of the file around it.
fn one_word(key: &SecretString) -> Result<SecretString, &'static str> {
    use secrecy::ExposeSecret;
    let key = key.expose_secret().trim();
    match !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(SecretString::from(key)),
        false => Err("must be one word"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "endpoints:\n\
        - { id: main, provider: stripe, account: acct_default, accounts: [acct_a], livemode: true, secrets: [whsec_a, whsec_b], tolerance_seconds: 300, api_key: sk_live_a }\n\
        - { id: desk, provider: standard, account: acct_desk, secrets: ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'] }\n";

    #[test]
    fn a_good_file_is_read() {
        let endpoints = Endpoints::parse(GOOD).expect("a good file");
        let main = endpoints.find("stripe", "main").expect("the endpoint");
        assert_eq!((main.secrets.len(), main.tolerance_seconds), (2, 300));
        assert!(main.takes_account("acct_a") && main.takes_account("acct_default"));
        assert!(!main.takes_account("acct_b"));
        let desk = endpoints.find("standard", "desk").expect("the endpoint");
        assert_eq!(desk.tolerance_seconds, DEFAULT_TOLERANCE);
        assert!(
            desk.takes_account("any"),
            "without a list every account is taken"
        );
        assert!(endpoints.find("stripe", "desk").is_none());
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_field_and_no_secret_is_shown() {
        for (from, to, expected) in [
            (
                "tolerance_seconds: 300",
                "tolerance_seconds: 0",
                "line 2: `tolerance_seconds` must be 1 to 86400",
            ),
            (
                "id: desk",
                "id: 'de.sk'",
                "line 3: `id` must be 1 to 64 characters",
            ),
            (
                "provider: standard",
                "provider: paypal",
                "line 3: `provider` must be one of stripe, gocardless, standard",
            ),
            (
                "secrets: [whsec_a, whsec_b]",
                "secrets: []",
                "line 2: `secrets` must hold at least one",
            ),
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "whsec_!!",
                "line 3: `secrets` must be base64",
            ),
            (
                "livemode: true",
                "live_mode: true",
                "line 2: unknown field `live_mode`",
            ),
            (
                "secrets: [whsec_a, whsec_b]",
                "secrets: whsec_a",
                "line 2: `secrets` invalid type: string …, expected a sequence",
            ),
            (
                "livemode: true",
                "livemode: whsec_a",
                "line 2: `livemode` invalid type: string …, expected a boolean",
            ),
            (
                ", account: acct_desk",
                "",
                "line 3: missing field `account`",
            ),
            (
                "api_key: sk",
                "secret_files: [/nowhere/a], api_key: sk",
                "line 2: `secret_files` /nowhere/a cannot be read",
            ),
            (
                "id: desk, provider: standard",
                "id: main, provider: stripe",
                "line 3: `id` is another endpoint's",
            ),
            (
                "account: acct_desk",
                "account: ''",
                "line 3: `account` must be",
            ),
        ] {
            let error = Endpoints::parse(&GOOD.replace(from, to))
                .expect_err(to)
                .to_string();
            assert!(error.contains(expected), "{to}: {error}");
            assert!(!error.contains("whsec_"), "{to}: {error}");
        }
        for text in ["", "endpoints: []", "endpoints: 3", "- nonsense", "{"] {
            assert!(Endpoints::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_api_key_stands_in_the_file_or_in_one_of_its_own_and_is_never_shown() {
        use secrecy::ExposeSecret;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key");
        std::fs::write(&file, "sk_live_b\n").expect("written");
        let in_file = format!("api_key_file: {}", file.display());
        let with = |to: &str| Endpoints::parse(&GOOD.replace("api_key: sk_live_a", to));
        for (written, key) in [
            ("api_key: sk_live_a", Some("sk_live_a")),
            (&in_file, Some("sk_live_b")),
            ("livemode: true", None),
        ] {
            let endpoints = match written {
                "livemode: true" => Endpoints::parse(&GOOD.replace(", api_key: sk_live_a", "")),
                written => with(written),
            };
            let endpoints = endpoints.expect(written);
            let main = endpoints.find("stripe", "main").expect("the endpoint");
            let found = main.api_key.as_ref().map(ExposeSecret::expose_secret);
            assert_eq!(found, key);
            assert!(!format!("{endpoints:?}").contains("sk_live"));
        }
        std::fs::write(&file, "\n").expect("written");
        let both = format!("api_key: sk_live_a, {in_file}");
        for (to, expected) in [
            ("api_key: ''", "line 2: `api_key` must be one word"),
            ("api_key: 'sk live'", "line 2: `api_key` must be one word"),
            (&in_file, "line 2: `api_key_file` must be one word"),
            (&both, "line 2: `api_key` must not stand beside"),
            (
                "api_key_file: /nowhere/a",
                "line 2: `api_key_file` /nowhere/a cannot be read",
            ),
        ] {
            let error = with(to).expect_err(to).to_string();
            assert!(error.contains(expected), "{to}: {error}");
            assert!(!error.contains("sk"), "{to}: {error}");
        }
        let standard = GOOD.replace(
            "account: acct_desk",
            "account: acct_desk, api_key: sk_live_a",
        );
        let error = Endpoints::parse(&standard)
            .expect_err("standard")
            .to_string();
        assert!(
            error.contains("line 3: `api_key` is for stripe and gocardless alone"),
            "{error}"
        );
    }

    #[test]
    fn how_an_account_collects_is_for_stripe_and_public_keys_are_for_standard() {
        let with = |from: &str, to: &str| Endpoints::parse(&GOOD.replace(from, to));
        let collects = |endpoints: &Endpoints| {
            let main = endpoints.find("stripe", "main").expect("the endpoint");
            main.collects_by
        };
        let plain = Endpoints::parse(GOOD).expect("a good file");
        assert_eq!(collects(&plain), CollectsBy::Invoices);
        let intents = with("livemode: true", "collects_by: payment_intents");
        assert_eq!(
            collects(&intents.expect("good")),
            CollectsBy::PaymentIntents
        );
        let key = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        assert!(with("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", key).is_ok());
        for (from, to, expected) in [
            ("livemode: true", "collects_by: cheques", "line 2"),
            (
                "account: acct_desk",
                "account: acct_desk, collects_by: payment_intents",
                "line 3: `collects_by` is for stripe alone",
            ),
            (
                "whsec_Mf",
                "whpk_Mf",
                "line 3: `secrets` must be base64 of 32 bytes",
            ),
            (
                "whsec_Mf",
                "whsk_Mf",
                "line 3: `secrets` must not be a sender's private key",
            ),
        ] {
            let error = with(from, to).expect_err(to).to_string();
            assert!(error.contains(expected), "{to}: {error}");
            assert!(!error.contains("MfKQ9r8G"), "{to}: {error}");
        }
    }
}
