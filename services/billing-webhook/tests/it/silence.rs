//! What may not be in the log is not in it, whatever is posted, down to the debug level.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use billing_webhook::stripe::signature::HEADER;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use testkit::eventually;

use crate::harness::{DEADLINE, SECRET, fixture, now, signed};
use crate::process::Process;

/// Stands wherever a person, a pay link or a secret could.
const CANARY: &str = "CANARY7f3a";
const STANDARD_KEY: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Every string of `value` that is no word of the provider's becomes a canary.
fn with_canaries(value: &mut Value, key: &str) {
    const KEPT: [&str; 6] = ["id", "type", "object", "status", "currency", "created"];
    match value {
        Value::String(text) if !KEPT.contains(&key) => {
            *text = if text.starts_with("http") {
                format!("https://pay.example.com/{CANARY}")
            } else if text.contains(['@', ' ']) {
                format!("{CANARY} {CANARY}@example.com")
            } else {
                text.clone()
            };
        }
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                with_canaries(value, key);
            }
            fields.insert(format!("{CANARY}_key"), json!(CANARY));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| with_canaries(item, key)),
        _ => {}
    }
}

fn stripe_bodies() -> Vec<Vec<u8>> {
    let body = fixture("stripe/a1_old_invoice.payment_failed.json");
    let mut whole: Value = serde_json::from_slice(&body).expect("JSON");
    with_canaries(&mut whole, "");
    assert!(
        whole
            .to_string()
            .contains(&format!("pay.example.com/{CANARY}"))
    );
    let changed = |pointer: &str, value: Value| {
        let mut body = whole.clone();
        *body.pointer_mut(pointer).expect(pointer) = value;
        body.to_string().into_bytes()
    };
    vec![
        changed("/livemode", json!(true)),
        changed("/type", json!(format!("{CANARY} is no type"))),
        changed("/type", json!("invoice.upcoming")),
        changed("/id", json!(format!("evt {CANARY}"))),
        changed("/created", json!(CANARY)),
        changed("/data/object/id", json!(format!("{CANARY} {CANARY}"))),
        changed("/data/object/amount_due", json!(CANARY)),
        changed("/data/object/currency", json!(CANARY)),
        changed("/data/object", json!(CANARY)),
        format!("{{\"{CANARY}\": ").into_bytes(),
        CANARY.as_bytes().to_vec(),
    ]
}

fn standard_bodies() -> Vec<Vec<u8>> {
    let body = fixture("standard/a1_payment_failed.json");
    let whole: Value = serde_json::from_slice(&body).expect("JSON");
    let changed = |field: &str, value: Value| {
        let mut body = whole.clone();
        body[field] = value;
        body.to_string().into_bytes()
    };
    [
        "kind",
        "occurredAt",
        "currency",
        "paymentUrl",
        "reason",
        "amountMinor",
        "invoiceId",
        "nextAttemptAt",
    ]
    .map(|field| changed(field, json!(format!("{CANARY}.{CANARY}"))))
    .into_iter()
    .chain([changed("metadata", json!({ "email": CANARY, CANARY: "x" }))])
    .collect()
}

async fn post_stripe(process: &Process, body: &[u8]) -> u16 {
    let post = process
        .http
        .post(format!("http://{}/webhooks/stripe/main", process.address))
        .header("content-type", "application/json")
        .header(HEADER, signed(SECRET, body, now()))
        .body(body.to_vec());
    post.send().await.expect("an answer").status().as_u16()
}

async fn post_standard(process: &Process, body: &[u8]) -> u16 {
    let at = now();
    let key = STANDARD.decode(STANDARD_KEY).expect("base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
    mac.update(format!("msg_{CANARY}.{at}.").as_bytes());
    mac.update(body);
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let post = process
        .http
        .post(format!("http://{}/webhooks/standard/desk", process.address))
        .header("webhook-id", format!("msg_{CANARY}"))
        .header("webhook-timestamp", at)
        .header("webhook-signature", format!("v1,{signature}"))
        .body(body.to_vec());
    post.send().await.expect("an answer").status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_body_pay_link_or_secret_is_ever_logged() {
    let mut process = Process::start(&[
        ("RUST_LOG", "debug,billing_webhook=trace,event_bus=trace"),
        ("LOG_FORMAT", "json"),
        ("PUBLISH_TIMEOUT", "300ms"),
        ("BILLING_ENDPOINTS_CHECK_EVERY", "20ms"),
    ])
    .await;
    let mut answers = Vec::new();
    for body in stripe_bodies() {
        answers.push(post_stripe(&process, &body).await);
    }
    for body in standard_bodies() {
        answers.push(post_standard(&process, &body).await);
    }
    assert!(
        answers.contains(&200) && answers.contains(&400),
        "{answers:?}"
    );
    for (path, header) in [
        ("stripe/main", "stripe-signature"),
        ("stripe/main", "content-type"),
        ("stripe/CANARY7f3a?CANARY7f3a", "x"),
        ("CANARY7f3a/main", "authorization"),
    ] {
        let post = process
            .http
            .post(format!("http://{}/webhooks/{path}", process.address))
            .header(header, CANARY)
            .body(CANARY);
        assert!(!post.send().await.expect("an answer").status().is_success());
    }

    let file = process.folder.path().join("endpoints.yaml");
    let written = std::fs::read_to_string(&file).expect("the file");
    for bad in [
        written.replace("livemode: true", &format!("livemode: {CANARY}")),
        written.replace("livemode: true", &format!("{CANARY}: true")),
        written.replace(&format!("[{SECRET}]"), CANARY),
    ] {
        let before = process.log().matches("stay as they were").count();
        std::fs::write(&file, bad).expect("written");
        eventually("it is noticed", DEADLINE, async || {
            process.log().matches("stay as they were").count() > before
        })
        .await;
    }

    process.nats.stop().await.expect("stopped");
    assert_eq!(post_stripe(&process, &stripe_bodies()[0]).await, 503);

    let log = process.log();
    for said in [
        "Read a provider's event",
        "Refused a webhook",
        "not on disk",
        "DEBUG",
    ] {
        assert!(log.contains(said), "the log does not tell: {said}\n{log}");
    }
    for line in log.lines() {
        assert!(!line.contains(CANARY), "{line}");
        assert!(
            !line.contains(SECRET) && !line.contains(STANDARD_KEY),
            "{line}"
        );
        assert!(!line.contains("@example.com"), "{line}");
    }
    let metrics = process.metrics().await;
    assert!(
        metrics.contains("type=\"invoice.upcoming\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("type=\"other\"} 1"), "{metrics}");
    assert!(!metrics.contains(CANARY), "{metrics}");
}
