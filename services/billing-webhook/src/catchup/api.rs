//! Asking a provider's API for a page: paced, bounded in time and size, and without a retry: the
//! next run is the retry.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;
use url::Url;

use super::listing::{Ask, Listed, Listing, Page};

/// A page of a hundred invoices with all their lines is a few MiB.
const LARGEST_ANSWER: usize = 32 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a page was not to be had. Holds neither key nor body.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No answer in time, a broken one, or no way to ask.
    #[error("it cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// Another status than 200.
    #[error("it answers {0}")]
    Refused(u16),
    /// The answer is no page of events, is far too large, or leads round in a circle.
    #[error("its answer makes no sense: {0}")]
    Unreadable(&'static str),
}

impl ApiError {
    /// A word of a closed set, for the metric.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Refused(401 | 403) => "unauthorized",
            Self::Refused(429) => "rate_limited",
            Self::Refused(500..) => "unavailable",
            Self::Refused(_) => "refused",
            Self::Unreadable(_) => "unreadable",
        }
    }

    /// Whether it is about the one account that was asked for: other accounts are worth a try.
    pub fn concerns_account_alone(&self) -> bool {
        matches!(self, Self::Refused(400 | 403 | 404))
    }
}

/// The way to the APIs, with one pace for all of them.
pub struct Api {
    /// Made when it is needed: most of its memory is certificates.
    client: OnceCell<reqwest::Client>,
    timeout: Duration,
    interval: Duration,
    next_at: Mutex<Instant>,
}

impl Api {
    /// Opens no socket yet.
    pub fn new(requests_per_second: f64, timeout: Duration) -> Self {
        Self {
            client: OnceCell::new(),
            timeout,
            interval: Duration::from_secs_f64(1.0 / requests_per_second),
            next_at: Mutex::new(Instant::now()),
        }
    }

    async fn client(&self, base: &Url) -> Result<&reqwest::Client, reqwest::Error> {
        let make = async || {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let mut builder = reqwest::Client::builder()
                .user_agent(concat!(
                    "gymflow-billing-webhook/",
                    env!("CARGO_PKG_VERSION")
                ))
                // A key follows no redirect.
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(self.timeout)
                .pool_idle_timeout(CONNECT_TIMEOUT);
            if is_local(base) {
                builder = builder.no_proxy();
            }
            builder.build()
        };
        self.client.get_or_try_init(make).await
    }

    /// Asks for one page, when its turn comes.
    pub async fn page(
        &self,
        listing: &dyn Listing,
        base: &Url,
        key: &SecretString,
        ask: &Ask,
    ) -> Result<Page, ApiError> {
        self.pace().await;
        let unreachable = |error: reqwest::Error| ApiError::Unreachable(error.without_url());
        let client = self.client(base).await.map_err(unreachable)?;
        let mut request = client.get(address(base, ask));
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()))
            .map_err(|_| ApiError::Refused(401))?;
        bearer.set_sensitive(true);
        let answer = request.header(AUTHORIZATION, bearer).send().await;
        let mut answer = answer.map_err(unreachable)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(ApiError::Refused(answer.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(ApiError::Unreadable("it is too large"));
            }
            body.extend_from_slice(&chunk);
        }
        listing
            .page(&body)
            .ok_or(ApiError::Unreadable("it is no page of events"))
    }

    /// Requests leave an interval apart, whatever became of the one before.
    async fn pace(&self) {
        let mut next_at = self.next_at.lock().await;
        tokio::time::sleep_until(*next_at).await;
        *next_at = Instant::now() + self.interval;
    }
}

/// Whether a list that goes on after `next` would come round again.
pub fn goes_round(before: Option<&str>, next: &str, events: &[Listed]) -> bool {
    events.is_empty() || before == Some(next)
}

fn address(base: &Url, ask: &Ask) -> Url {
    let mut url = base.clone();
    url.set_path(&format!(
        "{}{}",
        base.path().trim_end_matches('/'),
        ask.path
    ));
    let mut query = url.query_pairs_mut();
    for (name, value) in &ask.query {
        query.append_pair(name, value);
    }
    drop(query);
    url
}

/// The address of an API: https, or anything on this machine.
pub fn base(text: &str) -> Result<Url, String> {
    let expected = "an https:// address without user, query or fragment is expected (http:// for this machine alone)";
    let url: Url = text.trim().parse().map_err(|_| expected.to_owned())?;
    let encrypted = url.scheme() == "https" || (url.scheme() == "http" && is_local(&url));
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    match encrypted && plain {
        true => Ok(url),
        false => Err(expected.to_owned()),
    }
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leaves_this_machine_only_encrypted() {
        for good in [
            "https://api.stripe.com",
            "https://proxy.example.com/stripe/",
            "http://127.0.0.1:4010",
            "http://[::1]:4010",
            "http://localhost:4010/x",
        ] {
            assert!(base(good).is_ok(), "{good}");
        }
        for bad in [
            "http://api.stripe.com",
            "http://127.0.0.1.example.com",
            "http://10.0.0.7",
            "ftp://localhost",
            "https://key@api.stripe.com",
            "https://api.stripe.com?x=1",
            "api.stripe.com",
            "",
        ] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_the_base_and_what_is_asked() {
        let ask = Ask {
            path: "/events",
            query: vec![("created_at[gte]", "2026-11-03T04:05:06.789Z".into())],
            headers: Vec::new(),
        };
        for (at, expected) in [
            (
                "https://a.example",
                "https://a.example/events?created_at%5Bgte%5D=2026-11-03T04%3A05%3A06.789Z",
            ),
            (
                "https://a.example/x/",
                "https://a.example/x/events?created_at%5Bgte%5D=2026-11-03T04%3A05%3A06.789Z",
            ),
        ] {
            assert_eq!(address(&base(at).expect(at), &ask).as_str(), expected);
        }
    }
}
