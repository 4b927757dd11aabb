//! What is counted about speaking to Kisi. Routes are patterns, so labels stay few.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_histogram, histogram};
use reqwest::StatusCode;

const REQUESTS: &str = "kisi_requests_total";
const REQUEST_SECONDS: &str = "kisi_request_seconds";
const RATE_LIMITED: &str = "kisi_rate_limited_total";
const DEPRECATED: &str = "kisi_deprecated_answers_total";
pub(crate) const PACER_WAIT: &str = "kisi_pacer_wait_seconds";

/// Gives every metric its sentence of help, and the unlabelled ones their zero. Call it once,
/// after the recorder was installed.
pub fn describe() {
    describe_counter!(
        REQUESTS,
        "Requests sent to Kisi, by method, route and class of status (none: no answer)."
    );
    describe_histogram!(
        REQUEST_SECONDS,
        metrics::Unit::Seconds,
        "From sending a request to the last byte of Kisi's answer."
    );
    describe_counter!(
        RATE_LIMITED,
        "Answers of 429: somebody else spends this Kisi user's budget, or the limit is lower than we think."
    );
    describe_counter!(
        DEPRECATED,
        "Answers that announce the end of their route (Deprecation or Sunset)."
    );
    describe_histogram!(
        PACER_WAIT,
        metrics::Unit::Seconds,
        "How long requests waited for their turn, by lane."
    );
    counter!(RATE_LIMITED).absolute(0);
}

pub(crate) fn answered(
    method: &'static str,
    route: &'static str,
    status: Option<StatusCode>,
    took: Duration,
) {
    let class = match status.map(|status| status.as_u16()) {
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(_) => "5xx",
        None => "none",
    };
    counter!(REQUESTS, "method" => method, "route" => route, "status" => class).increment(1);
    histogram!(REQUEST_SECONDS, "method" => method, "route" => route).record(took.as_secs_f64());
    if status == Some(StatusCode::TOO_MANY_REQUESTS) {
        counter!(RATE_LIMITED).increment(1);
    }
}

pub(crate) fn deprecated(method: &'static str, route: &'static str) {
    counter!(DEPRECATED, "method" => method, "route" => route).increment(1);
}
