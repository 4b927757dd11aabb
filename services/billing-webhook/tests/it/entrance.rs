//! The entrance: which post gets which answer, and what is on the stream afterwards.

use serde_json::{Value, json};
use testkit::eventually;

use crate::harness::{DEADLINE, Harness, SECRET, fixture, now, signed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_sent_three_times_is_accepted_each_time_and_stored_once() {
    let harness = Harness::start().await;
    let body = fixture("stripe/a1_old_invoice.payment_failed.json");
    for _ in 0..3 {
        let answer = harness.post_signed(SECRET, &body).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(
            answer.json::<Value>().await.expect("JSON"),
            json!({ "received": true })
        );
    }
    let stored = harness.billing().await;
    assert_eq!(stored.len(), 1);
    let (subject, event) = &stored[0];
    assert_eq!(subject, "billing.v1.stripe.acct_default.payment_failed");
    assert_eq!(event["eventId"], "evt_1QoldA1failed");
    assert_eq!(event["amountMinor"], "3500");
    assert_eq!(event["currency"], "GBP");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_posts_are_answered_by_what_is_wrong_and_leave_nothing() {
    let harness = Harness::start().await;
    let body = fixture("stripe/a1_old_invoice.payment_failed.json");
    let good = signed(SECRET, &body, now());
    let post = |path: &str| harness.http.post(harness.url(path));
    let main = || post("/webhooks/stripe/main").header("content-type", "application/json");
    let large = vec![b' '; 1024 * 1024 + 1];

    let requests = [
        ("no signature", 400, main().body(body.clone())),
        (
            "another's secret",
            400,
            main()
                .header("stripe-signature", signed("whsec_x", &body, now()))
                .body(body.clone()),
        ),
        (
            "signed ten minutes ago",
            400,
            main()
                .header("stripe-signature", signed(SECRET, &body, now() - 600))
                .body(body.clone()),
        ),
        (
            "a body of another",
            400,
            main().header("stripe-signature", &good).body("{}"),
        ),
        (
            "no JSON",
            400,
            main()
                .header("stripe-signature", signed(SECRET, b"x", now()))
                .body("x"),
        ),
        (
            "another endpoint",
            404,
            post("/webhooks/stripe/other").body(body.clone()),
        ),
        (
            "another provider",
            404,
            post("/webhooks/gocardless/main").body(body.clone()),
        ),
        ("another path", 404, post("/webhooks").body(body.clone())),
        (
            "another method",
            405,
            harness
                .http
                .put(harness.url("/webhooks/stripe/main"))
                .body(body.clone()),
        ),
        (
            "too large",
            413,
            main().header("stripe-signature", &good).body(large),
        ),
        (
            "another media type",
            415,
            post("/webhooks/stripe/main")
                .header("content-type", "text/xml")
                .body(body.clone()),
        ),
    ];
    for (what, status, request) in requests {
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{what}");
        let text = answer.text().await.expect("a body");
        let error: Value = serde_json::from_str(&text).expect("JSON");
        assert!(error["error"]["code"].is_string(), "{what}: {text}");
        assert!(error["error"]["message"].is_string(), "{what}: {text}");
        assert!(!text.contains(SECRET), "{what}: {text}");
    }

    assert!(harness.billing().await.is_empty());
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_for_us_is_accepted_and_not_stored() {
    let harness = Harness::start().await;
    for name in [
        "stripe/j2_thin_v2_event.json",
        "stripe/j3_unknown_type.json",
        "more/invoice_upcoming.json",
    ] {
        let body = fixture(name);
        let answer = harness.post_signed(SECRET, &body).await;
        let status = answer.status();
        assert_eq!(
            status,
            200,
            "{name}: {}",
            answer.text().await.expect("a body")
        );
    }
    assert!(harness.billing().await.is_empty());
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_sender_can_post_a_billing_event_by_standard_webhooks() {
    let harness = Harness::start().await;
    let python = std::env::var("GYMFLOW_PYTHON").unwrap_or_else(|_| "python3".into());
    for name in [
        "a1_payment_failed",
        "a2_payment_succeeded_snake_case",
        "a3_subscription_paused_with_type",
    ] {
        let path = format!("{}/tests/fixtures", env!("CARGO_MANIFEST_DIR"));
        let output = std::process::Command::new(&python)
            .args([
                &format!("{path}/sign.py"),
                "standard",
                "--secret",
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            ])
            .arg(format!("{path}/standard/{name}.json"))
            .output()
            .expect("python");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut request = harness.http.post(harness.url("/webhooks/standard/desk"));
        for line in String::from_utf8(output.stdout).expect("text").lines() {
            let (header, value) = line.split_once(": ").expect("a header");
            request = request.header(header, value);
        }
        let body = fixture(&format!("standard/{name}.json"));
        let answer = request.body(body).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{name}");
    }
    let stored = harness.billing().await;
    let kinds: Vec<_> = stored.iter().map(|(subject, _)| subject.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "billing.v1.standard.acct_desk.payment_failed",
            "billing.v1.standard.acct_desk.payment_succeeded",
            "billing.v1.standard.acct_desk.subscription_paused",
        ]
    );
    // The body said another account: a signed body is still a stranger's word.
    assert!(
        stored
            .iter()
            .all(|(_, event)| event["account"] == "acct_desk")
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_posts_at_once_are_told_to_come_again() {
    let harness = Harness::start_with(|config| {
        config.max_in_flight = 1;
        config.publish_timeout = DEADLINE;
    })
    .await;
    let body = fixture("stripe/a1_old_invoice.payment_failed.json");
    // Whoever is inside waits for its ack. The losers of the race are told so.
    const OVERLOADS: &str = "billing_webhook_overloads_total{of=\"posts\"}";
    let before = harness.counted(OVERLOADS).await;
    harness.nats.pause().expect("paused");
    let posts = (0..2).map(|_| harness.post_signed(SECRET, &body));
    let resumed = async {
        eventually("one is turned away", DEADLINE, async || {
            harness.counted(OVERLOADS).await > before
        })
        .await;
        harness.nats.resume().expect("resumed");
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(posts), resumed);
    let away = answers.iter().find(|answer| answer.status() == 503);
    assert!(away.expect("one").headers().contains_key("retry-after"));
    assert!(answers.iter().any(|answer| answer.status() == 200));
    assert_eq!(harness.post_signed(SECRET, &body).await.status(), 200);
    harness.stop().await;
}
