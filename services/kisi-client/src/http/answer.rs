//! What an answer says: status, both error envelopes, the range of a list, the time to wait.
//! Pure: bytes and headers in, values out.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::KisiError;

/// A complete answer and what it answers.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// By our wall clock, for a `Retry-After` that is a date.
    pub(super) received_at: SystemTime,
}

impl Answer {
    /// The object or array of a success; a refusal as its error.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, KisiError> {
        self.accepted()?;
        serde_json::from_slice(&self.body).map_err(|error| {
            let place = match error.classify() {
                serde_json::error::Category::Data => "JSON of another shape",
                _ => "not whole JSON",
            };
            let what = format!("{place} at line {} column {}", error.line(), error.column());
            self.unreadable(what)
        })
    }

    /// Nothing, if Kisi said yes.
    pub(super) fn accepted(&self) -> Result<(), KisiError> {
        if self.status.is_success() {
            return Ok(());
        }
        let (method, route) = (self.method, self.route);
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            let retry_after = self.retry_after();
            return Err(KisiError::RateLimited {
                method,
                route,
                retry_after,
            });
        }
        let Envelope {
            code,
            message,
            fields,
        } = Envelope::read(&self.body);
        Err(KisiError::Refused {
            method,
            route,
            status: self.status.as_u16(),
            code,
            message,
            fields,
        })
    }

    /// How long Kisi asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers, self.received_at)
    }

    pub(super) fn unreadable(&self, what: String) -> KisiError {
        KisiError::Unreadable {
            method: self.method,
            route: self.route,
            status: self.status.as_u16(),
            what,
        }
    }

    /// The total of `X-Collection-Range: start-end/total`, or of `*/0`.
    pub(super) fn total(&self) -> Result<Option<u64>, KisiError> {
        let Some(range) = self.headers.get("x-collection-range") else {
            return Ok(None);
        };
        let total = range
            .to_str()
            .ok()
            .and_then(|range| range.rsplit_once('/'))
            .and_then(|(_, total)| total.trim().parse().ok());
        match total {
            Some(total) => Ok(Some(total)),
            None => Err(self.unreadable("X-Collection-Range without a total".to_owned())),
        }
    }
}

/// What can be had from an error body: either envelope, or nothing from a foreign one.
#[derive(Debug, Default, PartialEq)]
struct Envelope {
    code: Option<String>,
    message: Option<String>,
    fields: BTreeMap<String, Vec<String>>,
}

impl Envelope {
    fn read(body: &[u8]) -> Self {
        let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
            return Self::default();
        };
        Self {
            code: object.get("code").and_then(text),
            message: object.get("error").and_then(text),
            fields: match object.get("errors") {
                Some(Value::Object(errors)) => errors
                    .iter()
                    .map(|(field, messages)| (field.clone(), messages_of(messages)))
                    .collect(),
                _ => BTreeMap::new(),
            },
        }
    }
}

fn messages_of(value: &Value) -> Vec<String> {
    match value {
        Value::Array(messages) => messages.iter().filter_map(text).collect(),
        other => text(other).into_iter().collect(),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// How long to wait, from seconds or from an HTTP date. A date is reckoned against the answer's
/// own `Date` where it has one, so that a wrong clock on either side does not matter. Part of a
/// second is rounded up: dates have whole seconds only.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds.max(0.0)).ok();
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let dated = headers.get(DATE).and_then(|date| date.to_str().ok());
    let now = match dated.and_then(|date| httpdate::parse_http_date(date).ok()) {
        // Their clock stands somewhere inside the second that `Date` names.
        Some(date) => return Some(until.duration_since(date).unwrap_or_default()),
        None => now,
    };
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        Answer {
            method: "GET",
            route: "/users",
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: body.as_bytes().to_vec(),
            received_at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_total_is_read_from_full_empty_and_foreign_ranges() {
        for (range, total) in [("0-249/412", 412), ("*/0", 0), ("500-749/412", 412)] {
            let answer = answer(200, &[("x-collection-range", range)], "[]");
            assert_eq!(answer.total().unwrap(), Some(total), "{range}");
        }
        assert_eq!(answer(200, &[], "[]").total().unwrap(), None);
        let broken = answer(200, &[("x-collection-range", "0-9/many")], "[]");
        assert!(matches!(broken.total(), Err(KisiError::Unreadable { .. })));
    }

    #[test]
    fn both_envelopes_become_a_typed_refusal() {
        let denied = answer(403, &[], r#"{"code":"afc496","error":"Access denied."}"#);
        let error = denied.accepted().unwrap_err();
        assert_eq!((error.status(), error.code()), (Some(403), Some("afc496")));
        assert!(error.is_key_dead() && !error.is_already_exists());

        let taken = answer(
            422,
            &[],
            r#"{"errors":{"email":["has already been taken"]}}"#,
        );
        let error = taken.accepted().unwrap_err();
        assert_eq!((error.status(), error.code()), (Some(422), None));
        assert!(error.is_already_exists() && error.is_unprocessable());
    }

    #[test]
    fn an_empty_or_foreign_body_is_still_a_refusal_with_its_status() {
        for body in [
            "",
            "<html>502 Bad Gateway</html>",
            "[]",
            "null",
            r#"{"errors":[]}"#,
        ] {
            let error = answer(502, &[], body).accepted().unwrap_err();
            assert_eq!((error.status(), error.code()), (Some(502), None), "{body}");
            assert!(error.is_outcome_unknown() && error.is_transient());
        }
    }

    #[test]
    fn a_refusal_shown_to_a_log_quotes_nothing_that_kisi_said() {
        let body = r#"{"errors":{"email":["ada@example.com is taken"]}}"#;
        let shown = answer(422, &[], body).accepted().unwrap_err().to_string();
        assert_eq!(
            shown,
            "Kisi answered 422 (code none, fields [email]) to GET /users"
        );
    }

    #[test]
    fn a_success_of_another_shape_is_unreadable_and_quotes_no_content() {
        let error = answer(200, &[], r#"{"id":"ada@example.com"}"#)
            .read::<crate::model::Organization>()
            .unwrap_err();
        assert!(error.is_outcome_unknown());
        assert!(!error.to_string().contains("ada"), "{error}");
    }

    #[test]
    fn the_time_to_wait_comes_as_seconds_or_as_a_date() {
        let now = httpdate::parse_http_date("Sun, 01 Mar 2026 06:00:00 GMT").unwrap();
        let wait = |headers: &[(&'static str, &str)]| {
            retry_after(&answer(429, headers, "").headers, now).map(|wait| wait.as_millis())
        };
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&[("retry-after", "2")]), Some(2000));
        assert_eq!(wait(&[("retry-after", "0.5")]), Some(500));
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        let date = ("retry-after", "Sun, 01 Mar 2026 06:00:07 GMT");
        assert_eq!(wait(&[date]), Some(7000));
        let passed = ("retry-after", "Sun, 01 Mar 2026 05:00:00 GMT");
        assert_eq!(wait(&[passed]), Some(0));
        // Their clock is an hour ahead of ours, and only theirs counts.
        let ahead = ("retry-after", "Sun, 01 Mar 2026 07:00:03 GMT");
        let theirs = ("date", "Sun, 01 Mar 2026 07:00:00 GMT");
        assert_eq!(wait(&[ahead, theirs]), Some(3000));
    }
}
