//! What is counted, seen through a recorder of the test's own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kisi_client::{
    ConnectionSettings, HttpKisi, KisiConnection, KisiRead, KisiWrite, Lane, Pacer, PacerSettings,
};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use serde_json::json;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

/// Counters by name and labels.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Counts {
    fn of(&self, name: &str) -> u64 {
        let counts = self.0.lock().expect("counts");
        counts
            .get(name)
            .map_or(0, |count| count.load(Ordering::SeqCst))
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<&str> = key.labels().map(|label| label.value()).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        let mut counts = self.0.lock().expect("counts");
        let count = counts.entry(name.trim_end().to_owned()).or_default();
        Counter::from_arc(Arc::clone(count))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test]
async fn requests_refusals_and_announced_ends_are_counted_by_route() {
    let counts = Counts::default();
    // The test runs on one thread, so this recorder sees all of it and nothing else.
    let _guard = metrics::set_default_local_recorder(&counts);
    let server = MockServer::start().await;
    let going = ResponseTemplate::new(200)
        .insert_header("Sunset", "Sun, 01 Mar 2026 06:00:00 GMT")
        .insert_header("X-Collection-Range", "*/0")
        .set_body_json(json!([]));
    Mock::given(method("GET"))
        .respond_with(going)
        .mount(&server)
        .await;
    let refused = ResponseTemplate::new(429).insert_header("retry-after", "0");
    Mock::given(method("DELETE"))
        .respond_with(refused)
        .up_to_n_times(1)
        .mount(&server)
        .await;
    Mock::given(method("DELETE"))
        .respond_with(ResponseTemplate::new(204))
        .mount(&server)
        .await;
    let url = server.uri().parse().expect("a URL");
    let settings = ConnectionSettings::new(url, "gymflow", "access@example.com");
    let pacer = Pacer::new(PacerSettings {
        requests_per_second: 500.0,
    });
    let connection = KisiConnection::new(settings).expect("a connection");
    let kisi = HttpKisi::new(connection, "s3cret".to_owned().into(), pacer);
    for _ in 0..2 {
        kisi.list_places(Lane::SetUp).await.expect("an empty list");
    }
    kisi.delete_user(Lane::Revoke.into(), 5001)
        .await
        .expect("the second time");

    assert_eq!(counts.of("kisi_requests_total GET /places 2xx"), 2);
    assert_eq!(counts.of("kisi_requests_total DELETE /users/{id} 4xx"), 1);
    assert_eq!(counts.of("kisi_requests_total DELETE /users/{id} 2xx"), 1);
    assert_eq!(counts.of("kisi_rate_limited_total"), 1);
    assert_eq!(counts.of("kisi_deprecated_answers_total GET /places"), 2);
}
