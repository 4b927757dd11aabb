//! One request: its turn, its sending, and whether it may be sent again.
//!
//! A GET is repeated after a lost answer or a 5xx. Anything is repeated after a 429, because a
//! refused request was not applied; it keeps its place at the head of its lane. Nothing else is.

use std::time::{Duration, SystemTime};

use reqwest::header::AUTHORIZATION;
use reqwest::{Body, Method, StatusCode};
use serde_json::Value;
use tokio::time::Instant;

use super::HttpKisi;
use super::answer::Answer;
use super::withheld::{OnlyWhile, Withheld};
use crate::error::KisiError;
use crate::measures;
use crate::pacing::{Outcome, Slot, Turn};

/// How often a read is sent in all, when its answers are lost or 5xx.
const READ_ATTEMPTS: u32 = 3;
/// The wait before the second attempt, doubled before the third. Others may send meanwhile.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How often anything is sent in all, when the answers are 429. The pacer pauses between them.
const RATE_LIMITED_ATTEMPTS: u32 = 6;

/// What to ask, before it is sent.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    /// The pattern, for errors and metrics: ids make no labels.
    pub(super) route: &'static str,
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
}

impl Request {
    /// A route without parameters.
    pub(super) fn new(method: Method, route: &'static str) -> Self {
        Self {
            method,
            route,
            path: route.to_owned(),
            query: Vec::new(),
            body: None,
        }
    }

    /// A route with `{id}` in it.
    pub(super) fn on(method: Method, route: &'static str, id: i64) -> Self {
        Self {
            path: route.replace("{id}", &id.to_string()),
            ..Self::new(method, route)
        }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    fn method_word(&self) -> &'static str {
        match self.method {
            Method::POST => "POST",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            _ => "GET",
        }
    }

    fn is_read(&self) -> bool {
        self.method == Method::GET
    }
}

impl HttpKisi {
    /// Sends it in its turn, again where a repeat is harmless, and gives the last answer.
    ///
    /// Refusals come back as answers, except those that were worth repeating until no attempt
    /// was left: they are answers too. An error is always [`KisiError::Unreachable`] or
    /// [`KisiError::Settings`].
    pub(super) async fn exchange(
        &self,
        slot: Slot,
        request: &Request,
    ) -> Result<Answer, KisiError> {
        let (lane, mut turn) = match slot {
            Slot::Held(turn) => return self.send(turn, request).await,
            Slot::Wait(lane) => (lane, self.pacer.turn(lane).await),
        };
        let (mut failures, mut refusals) = (0, 0);
        loop {
            let result = self.send(turn, request).await;
            match &result {
                Ok(answer) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                    refusals += 1;
                    if refusals == RATE_LIMITED_ATTEMPTS {
                        return result;
                    }
                    turn = self.pacer.turn_again(lane).await;
                    continue;
                }
                Ok(answer) if !answer.status.is_server_error() => return result,
                Err(KisiError::Settings(_)) => return result,
                _ => {}
            }
            failures += 1;
            if !request.is_read() || failures == READ_ATTEMPTS {
                return result;
            }
            tokio::time::sleep(FIRST_WAIT * 2u32.pow(failures - 1)).await;
            turn = self.pacer.turn(lane).await;
        }
    }

    /// Sends it once, in this turn.
    async fn send(&self, mut turn: Turn, request: &Request) -> Result<Answer, KisiError> {
        let Some(authorization) = &self.authorization else {
            let what = "the key holds characters that no header can carry";
            return Err(KisiError::Settings(what.to_owned()));
        };
        let url = self.connection.url(&request.path, &request.query);
        let mut builder = self
            .connection
            .client
            .request(request.method.clone(), url)
            .header(AUTHORIZATION, authorization);
        let body = request.body.as_ref().map(Value::to_string);
        builder = match (turn.condition(), body) {
            (Some(condition), body) => builder.body(Body::wrap(OnlyWhile::new(condition, body))),
            (None, Some(body)) => builder.body(body),
            (None, None) => builder,
        };
        let sent_at = Instant::now();
        turn.sent(sent_at);
        let result = self.receive(builder, request).await;
        if let Some(connected_at) = self.connection.last_connected.after(sent_at) {
            turn.sent(connected_at);
        }
        turn.finish(outcome(&result));
        self.observe(request, &result, sent_at.elapsed());
        result
    }

    async fn receive(
        &self,
        builder: reqwest::RequestBuilder,
        request: &Request,
    ) -> Result<Answer, KisiError> {
        let (method, route) = (request.method_word(), request.route);
        let unreachable = |source: reqwest::Error| match Withheld::is_behind(&source) {
            true => KisiError::Withheld { method, route },
            false => KisiError::Unreachable {
                method,
                route,
                never_sent: source.is_connect(),
                // The URL may hold an e-mail address.
                source: source.without_url(),
            },
        };
        let response = builder.send().await.map_err(unreachable)?;
        Ok(Answer {
            method,
            route,
            status: response.status(),
            headers: response.headers().clone(),
            body: response.bytes().await.map_err(unreachable)?.into(),
            received_at: wall_clock(),
        })
    }

    fn observe(&self, request: &Request, result: &Result<Answer, KisiError>, took: Duration) {
        let (method, route) = (request.method_word(), request.route);
        let status = result.as_ref().ok().map(|answer| answer.status);
        measures::answered(method, route, status, took);
        let Ok(answer) = result else { return };
        let headers = &answer.headers;
        if headers.contains_key("deprecation") || headers.contains_key("sunset") {
            measures::deprecated(method, route);
            if self.connection.first_deprecation_of(route) {
                let said = |name| headers.get(name).and_then(|value| value.to_str().ok());
                tracing::warn!(
                    kisi.method = method,
                    kisi.route = route,
                    kisi.deprecation = said("deprecation"),
                    kisi.sunset = said("sunset"),
                    "Kisi announces the end of {method} {route}"
                );
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: an answer is stamped where it comes in, and is a value from then on"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// What the pacer must know of it.
fn outcome(result: &Result<Answer, KisiError>) -> Outcome {
    let Ok(answer) = result else {
        return Outcome::NoAnswer;
    };
    match (answer.status, answer.retry_after()) {
        (StatusCode::TOO_MANY_REQUESTS, retry_after) => Outcome::RateLimited { retry_after },
        (StatusCode::SERVICE_UNAVAILABLE, Some(retry_after)) => {
            Outcome::Unavailable { retry_after }
        }
        _ => Outcome::Answered,
    }
}
