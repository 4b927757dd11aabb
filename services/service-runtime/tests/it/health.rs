use std::time::Duration;

use serde_json::{Value, json};
use service_runtime::health::Health;
use service_runtime::http_server::ServeError;
use service_runtime::metrics;
use testkit::eventually;
use tokio_util::sync::CancellationToken;

async fn get(url: String) -> (u16, String) {
    service_runtime::tls::install_crypto_provider();
    let answer = reqwest::get(url).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn started() -> (Health, String, CancellationToken) {
    let (health, shutdown) = (Health::new(), CancellationToken::new());
    let addr = health
        .serve("127.0.0.1:0".parse().unwrap(), shutdown.clone())
        .await
        .unwrap();
    (health, format!("http://{addr}"), shutdown)
}

#[tokio::test]
async fn readiness_names_what_is_missing_and_start_is_for_good() {
    let (health, base, shutdown) = started().await;
    let (bus, database) = (health.condition("bus"), health.condition("database"));
    database.set_ready();
    bus.set_not_ready("no connection");

    let (status, body) = get(format!("{base}/readyz")).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 503);
    assert_eq!(
        body,
        json!({ "status": "not_ready", "missing": { "bus": "no connection" } })
    );
    assert_eq!(get(format!("{base}/startupz")).await.0, 503);
    assert_eq!(get(format!("{base}/livez")).await.0, 200);

    bus.set_ready();
    tokio::time::timeout(Duration::from_secs(1), health.wait_ready())
        .await
        .unwrap();
    assert_eq!(get(format!("{base}/readyz")).await.0, 200);
    bus.set_not_ready("no connection");
    assert_eq!(get(format!("{base}/readyz")).await.0, 503);
    assert_eq!(get(format!("{base}/startupz")).await.0, 200);

    bus.set_ready();
    shutdown.cancel();
    eventually("it says that it goes", Duration::from_secs(5), async || {
        let (status, body) = get(format!("{base}/readyz")).await;
        status == 503 && body.contains("shutting down")
    })
    .await;
}

#[tokio::test]
async fn metrics_stand_at_zero_with_their_help_before_the_first_event() {
    let (_health, base, _shutdown) = started().await;
    metrics::register_counter_by(
        "it_steps_total",
        "Steps by outcome",
        "outcome",
        &["granted"],
    );
    let (_, text) = get(format!("{base}/metrics")).await;
    assert!(
        text.contains("# HELP it_steps_total Steps by outcome"),
        "{text}"
    );
    assert!(
        text.contains(r#"it_steps_total{outcome="granted"} 0"#),
        "{text}"
    );
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_that_names_the_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Health::new()
        .serve(taken.local_addr().unwrap(), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ServeError::Bind {
                setting: "HEALTH_ADDR",
                ..
            }
        ),
        "{error}"
    );
}
