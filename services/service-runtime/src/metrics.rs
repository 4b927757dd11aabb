//! Metrics of a process in Prometheus' text form, served by [`crate::health`].
//!
//! Every metric is registered with a sentence of help and stands at zero before its first event,
//! so that a rule on a rate does not miss the first one. Labels come from closed sets.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Bounds of `*_seconds` histograms, from half a millisecond to a minute.
const SECONDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Makes the process's recorder on the first call, and answers its handle on every one.
pub fn install() -> PrometheusHandle {
    HANDLE
        .get_or_init(|| {
            // Refused only for an empty set of bounds.
            let recorder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
                .unwrap_or_else(|_| PrometheusBuilder::new())
                .build_recorder();
            let handle = recorder.handle();
            // Another recorder can only be a test's own; then ours stays empty.
            let _ = metrics::set_global_recorder(recorder);
            handle
        })
        .clone()
}

/// Registers a counter without labels at zero.
pub fn register_counter(name: &'static str, help: &'static str) {
    install();
    metrics::describe_counter!(name, help);
    metrics::counter!(name).increment(0);
}

/// Registers a counter with one label, at zero for each of its values.
pub fn register_counter_by(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: &[&'static str],
) {
    install();
    metrics::describe_counter!(name, help);
    for value in values {
        metrics::counter!(name, label => *value).increment(0);
    }
}

/// Registers a gauge at zero.
pub fn register_gauge(name: &'static str, help: &'static str) {
    install();
    metrics::describe_gauge!(name, help);
    metrics::gauge!(name).set(0.0);
}

/// Registers a histogram; it shows with its first value. Names of spans of time end in `_seconds`.
pub fn register_histogram(name: &'static str, help: &'static str) {
    install();
    metrics::describe_histogram!(name, help);
}
