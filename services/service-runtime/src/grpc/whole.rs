//! Calls are done whole, and answered in time.
//!
//! A deadline that passes, or a caller who is gone, drops the future of a call wherever it stands.
//! Where it works on a database that is no clean cut: a connection that was just beginning a
//! transaction goes back to the pool inside of it, and what a commit made known is followed by
//! nothing. So a call runs in a task of its own, to its end, whoever still waits for it.
//!
//! The deadline is the caller's `grpc-timeout`. One that is over gets `DEADLINE_EXCEEDED` (tonic's
//! own answer is `CANCELLED`), and what comes with no time left is not begun. Streams are limited
//! until their first answer only.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;
use tower::{Layer, Service};
use tracing::Instrument;

/// Timers tell no less than this apart.
const SHORTEST: Duration = Duration::from_millis(1);

/// Runs each call to its end, and answers it by its deadline.
#[derive(Debug, Clone, Copy)]
pub(super) struct WholeCalls;

impl<S> Layer<S> for WholeCalls {
    type Service = Whole<S>;

    fn layer(&self, inner: S) -> Whole<S> {
        Whole { inner }
    }
}

/// A service behind [`WholeCalls`].
#[derive(Debug, Clone)]
pub(super) struct Whole<S> {
    inner: S,
}

impl<S, B, R> Service<http::Request<B>> for Whole<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let limit = time_limit(request.headers());
        if limit.is_some_and(|limit| limit < SHORTEST) {
            return Box::pin(async { Ok(too_late()) });
        }
        // Taken here, so that it comes before tonic's own.
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let call = self.inner.call(request);
        Box::pin(async move {
            let mut task = tokio::spawn(call.in_current_span());
            let done = match deadline {
                None => task.await,
                Some(deadline) => match tokio::time::timeout_at(deadline, &mut task).await {
                    Ok(done) => done,
                    Err(_) => return Ok(too_late()),
                },
            };
            // A panic was told where it happened.
            done.unwrap_or_else(|_| Ok(Status::internal("the call broke off").into_http()))
        })
    }
}

fn too_late<R: Default>() -> http::Response<R> {
    Status::deadline_exceeded("the caller's deadline has passed").into_http()
}

/// `grpc-timeout`: at most eight digits and a unit; anything else is no limit.
fn time_limit(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3_600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;

    type Answer = Result<http::Response<()>, std::convert::Infallible>;

    fn request(limit: &str) -> http::Request<()> {
        let request = http::Request::builder().header("grpc-timeout", limit);
        request.body(()).expect("a request")
    }

    fn code(answer: &Answer) -> Option<tonic::Code> {
        let answer = answer.as_ref().expect("an answer");
        Status::from_header_map(answer.headers()).map(|status| status.code())
    }

    #[tokio::test]
    async fn a_call_that_is_late_is_answered_so_and_done_all_the_same() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let done = Arc::new(Notify::new());
        let slow = (begun.clone(), go_on.clone(), done.clone());
        let mut whole = WholeCalls.layer(tower::service_fn(move |_| {
            let (begun, go_on, done) = slow.clone();
            async move {
                begun.notify_one();
                go_on.notified().await;
                done.notify_one();
                Answer::Ok(http::Response::default())
            }
        }));
        let late = whole.call(request("20m")).await;
        assert_eq!(code(&late), Some(tonic::Code::DeadlineExceeded));
        begun.notified().await;
        go_on.notify_one();
        done.notified().await;

        // The caller goes.
        let call = tokio::spawn(whole.call(request("20S")));
        begun.notified().await;
        call.abort();
        assert!(call.await.is_err_and(|gone| gone.is_cancelled()));
        go_on.notify_one();
        done.notified().await;

        let never = whole.call(request("999u")).await;
        assert_eq!(code(&never), Some(tonic::Code::DeadlineExceeded));
        let in_time = whole.call(request("20S"));
        go_on.notify_one();
        assert_eq!(code(&in_time.await), None);
    }

    #[test]
    fn a_time_limit_is_digits_and_a_unit() {
        let limit = |text: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().expect("a value"));
            time_limit(&headers)
        };
        assert_eq!(limit("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(limit("99999999M"), Some(Duration::from_secs(5_999_999_940)));
        assert_eq!(limit("20S"), Some(Duration::from_secs(20)));
        assert_eq!(limit("250m"), Some(Duration::from_millis(250)));
        assert_eq!(limit("1u"), Some(Duration::from_micros(1)));
        assert_eq!(limit("0n"), Some(Duration::ZERO));
        for odd in ["", "S", "5", "-1S", "+1S", "123456789S", "5x", "5é"] {
            assert_eq!(limit(odd), None, "{odd}");
        }
        assert_eq!(time_limit(&http::HeaderMap::new()), None);
    }
}
