//! Every recorded body, and what it becomes. `tests/fixtures/INDEX.md` says what each is and where
//! its shape comes from; `more/`, `gocardless_more/` and `stripe_intents/` hold variants of them for
//! the rows they lack.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use axum::http::HeaderMap;
use billing_webhook::endpoints::{CollectsBy, Endpoint};
use billing_webhook::provider::{self, Refusal, Translated};
use contracts::billing::v1::BillingEvent;
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// What a provider's body becomes at an ordinary endpoint.
pub fn translated(provider: &str, body: &Value) -> Result<Vec<Translated>, Refusal> {
    let found = provider::find(provider).expect("a provider");
    found.translate(
        &endpoint(provider, true),
        &HeaderMap::new(),
        body.to_string().as_bytes(),
    )
}

/// The one event of a body that holds one, which is for us.
pub fn only(translated: Result<Vec<Translated>, Refusal>) -> BillingEvent {
    let mut translated = translated.expect("a body");
    assert_eq!(translated.len(), 1);
    translated.remove(0).event.expect("an event for us")
}

pub fn endpoint(provider: &str, livemode: bool) -> Endpoint {
    Endpoint {
        id: "main".into(),
        provider: provider.into(),
        account: "acct_endpoint".into(),
        accounts: Vec::new(),
        livemode,
        secrets: Vec::new(),
        tolerance_seconds: 300,
        collects_by: CollectsBy::default(),
        api_key: None,
    }
}

fn translate(provider: &str, file: &Path, livemode: bool) -> Result<Vec<Translated>, Refusal> {
    translate_at(&endpoint(provider, livemode), file)
}

fn translate_at(endpoint: &Endpoint, file: &Path) -> Result<Vec<Translated>, Refusal> {
    let body = std::fs::read(file).expect("a fixture");
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", "msg_1".parse().expect("a header"));
    let found = provider::find(&endpoint.provider).expect("a provider");
    found.translate(endpoint, &headers, &body)
}

fn kinds(translated: &[Translated]) -> Vec<String> {
    translated
        .iter()
        .map(|one| {
            one.event
                .as_ref()
                .map_or("none".into(), |event| event.kind.clone())
        })
        .collect()
}

/// (file, kinds) of the table in INDEX.md.
fn expected() -> Vec<(String, Vec<String>)> {
    let index = std::fs::read_to_string(folder().join("INDEX.md")).expect("INDEX.md");
    index
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let kinds = cells[3].split(", ").map(|kind| {
                kind.split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            });
            (cells[1].trim_matches('`').to_owned(), kinds.collect())
        })
        .collect()
}

#[test]
fn every_fixture_becomes_what_the_index_says() {
    let rows = expected();
    let listed: BTreeSet<_> = rows.iter().map(|(file, _)| file.clone()).collect();
    let there: BTreeSet<_> = ["stripe", "gocardless", "standard"]
        .into_iter()
        .flat_map(|sub| files(sub).into_iter().map(move |file| (sub, file)))
        .map(|(sub, file)| format!("{sub}/{}.json", stem(&file)))
        .collect();
    assert_eq!(listed, there);
    for (file, expected) in rows {
        let (provider, _) = file.split_once('/').expect("a folder");
        let outcome = translate(provider, &folder().join(&file), true);
        if expected == ["400"] {
            assert!(
                matches!(outcome, Err(Refusal::Body(_))),
                "{file}: {outcome:?}"
            );
        } else {
            assert_eq!(kinds(&outcome.expect(&file)), expected, "{file}");
        }
    }
}

/// The bodies in a folder of them.
pub fn files(sub: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder().join(sub))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

fn stem(file: &Path) -> String {
    let name = file.file_stem().expect("a name");
    name.to_string_lossy().into_owned()
}

#[test]
fn every_fixture_is_snapshotted() {
    for (provider, sub) in [
        ("stripe", "stripe"),
        ("stripe", "more"),
        ("gocardless", "gocardless"),
        ("gocardless", "gocardless_more"),
        ("standard", "standard"),
    ] {
        snapshot(sub, &endpoint(provider, true));
    }
}

#[test]
fn payment_intents_tell_of_gymflows_invoices_where_the_endpoint_collects_by_them() {
    let mut endpoint = endpoint("stripe", true);
    for file in files("stripe_intents") {
        let translated = translate_at(&endpoint, &file).expect("a body");
        assert_eq!(kinds(&translated), ["none"], "{}", file.display());
    }
    endpoint.collects_by = CollectsBy::PaymentIntents;
    snapshot("stripe_intents", &endpoint);
}

fn snapshot(sub: &str, endpoint: &Endpoint) {
    for file in files(sub) {
        let text = match translate_at(endpoint, &file) {
            Ok(translated) => {
                let events: Vec<_> = translated.iter().map(words).collect();
                events.join("\n")
            }
            Err(refusal) => format!("400 {refusal}"),
        };
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(format!("{sub}__{}", stem(&file)), text);
        });
    }
}

fn words(translated: &Translated) -> String {
    let Some(event) = &translated.event else {
        return format!("{}: understood, not for us", translated.event_type);
    };
    // By way of a value, because a map of metadata has no order of its own.
    let value = serde_json::to_value(event).expect("JSON");
    serde_json::to_string_pretty(&value).expect("JSON")
}

#[test]
fn test_events_are_taken_by_a_test_endpoint_alone() {
    let file = folder().join("stripe/j4_livemode_false.json");
    let kind = |livemode| kinds(&translate("stripe", &file, livemode).expect("a body"));
    assert_eq!(kind(true), ["none"]);
    assert_eq!(kind(false), ["payment_succeeded"]);
}

#[test]
fn an_account_outside_the_endpoints_list_is_not_for_us() {
    let body =
        std::fs::read(folder().join("stripe/d1_new_invoice.payment_failed.json")).expect("it");
    let mut endpoint = endpoint("stripe", true);
    endpoint.accounts = vec!["acct_other".into()];
    let found = provider::find("stripe").expect("a provider");
    let translated = found
        .translate(&endpoint, &HeaderMap::new(), &body)
        .expect("a body");
    assert_eq!(kinds(&translated), ["none"]);
}

#[test]
fn bad_bodies_are_refused_by_what_is_wrong_with_them() {
    let found = provider::find("standard").expect("a provider");
    let endpoint = endpoint("standard", true);
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", "msg_1".parse().expect("a header"));
    let good = r#"{"eventId":"e1","kind":"payment_failed","occurredAt":"2026-10-01T05:00:07Z","invoiceId":"in_1","currency":"eur"}"#;
    assert!(
        found
            .translate(&endpoint, &headers, good.as_bytes())
            .is_ok()
    );
    for (from, to, expected) in [
        (
            "payment_failed",
            "payment_lost",
            "`kind` must be one of payment_failed, payment_succeeded",
        ),
        (
            "\"in_1\"",
            "\"in.1\"",
            "`invoice_id` must be 1 to 64 characters",
        ),
        ("\"invoiceId\":\"in_1\",", "", "one of `invoice_id`"),
        (
            "2026-10-01T05:00:07Z",
            "yesterday",
            "the body must be a BillingEvent",
        ),
        (
            "\"occurredAt\":\"2026-10-01T05:00:07Z\",",
            "",
            "`occurred_at` is missing",
        ),
        ("\"eur\"", "\"euro\"", "`currency` must be three letters"),
        ("\"e1\"", "\"e 1\"", "`event_id` must be"),
        (
            "\"currency\"",
            "\"paymentUrl\":\"javascript:x\",\"currency\"",
            "`payment_url` must be a web address beginning with https://",
        ),
        (
            "\"currency\"",
            "\"amountMinor\":-1,\"currency\"",
            "`amount_minor` must not be negative",
        ),
        ("{\"eventId\"", "[", "the body must be a BillingEvent"),
    ] {
        let body = good.replace(from, to);
        let refusal = found
            .translate(&endpoint, &headers, body.as_bytes())
            .expect_err(to);
        assert!(refusal.to_string().contains(expected), "{to}: {refusal}");
    }
    let stripe = provider::find("stripe").expect("a provider");
    let bad = r#"{"id":"evt_1","type":"invoice.paid","created":"https://pay.example.com/x","livemode":true,"data":{"object":{"id":"in_1"}}}"#;
    let refusal = stripe
        .translate(&endpoint, &headers, bad.as_bytes())
        .expect_err("bad");
    assert!(
        !refusal.to_string().contains("pay.example.com"),
        "{refusal}"
    );
    for body in [
        "",
        "[]",
        "{}",
        "{\"id\":\"evt_1\",\"type\":\"invoice.paid\",\"created\":1,\"livemode\":true,\"data\":{\"object\":{}}}",
        "{\"type\":\"invoice.paid\"}",
        "{\"id\":\"evt_1\",\"type\":\"invoice.paid\",\"created\":1,\"data\":{\"object\":{\"id\":\"in_1\"}}}",
        "\u{feff}{}",
    ] {
        assert!(
            stripe
                .translate(&endpoint, &headers, body.as_bytes())
                .is_err(),
            "{body}"
        );
    }
}
