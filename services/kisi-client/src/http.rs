//! Both ports over Kisi's HTTP API.
//!
//! A [`KisiConnection`] is the warm sockets, shared by every key; an [`HttpKisi`] is one login on
//! them, with the pacer of that login's user. HTTP/1.1 on purpose: one request is in flight per
//! user, so there is nothing to multiplex. Redirects are not followed, because they would carry
//! the key elsewhere, and the underlying client never repeats a request by itself: what may be
//! repeated is decided in [`request`].

mod answer;
mod connected;
mod pages;
mod reads;
mod request;
mod withheld;
mod writes;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use crate::error::KisiError;
use crate::pacing::Pacer;
use connected::LastConnected;

/// How to reach Kisi, for all keys together.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// `https://api.kisi.io`, or where a simulator listens.
    pub base_url: Url,
    /// `X-Kisi-Integration-Identifier`.
    pub integration_identifier: String,
    /// `X-Kisi-Integration-Contact`, an e-mail address.
    pub integration_contact: String,
    /// For opening a socket, TLS included.
    pub connect_timeout: Duration,
    /// From the turn to the last byte of the answer. No other request of the same Kisi user goes
    /// out meanwhile, so a hanging Kisi delays a revoke by as much.
    pub request_timeout: Duration,
}

impl ConnectionSettings {
    /// With the usual timeouts: 5 s to connect, 15 s in all.
    pub fn new(base_url: Url, identifier: impl Into<String>, contact: impl Into<String>) -> Self {
        Self {
            base_url,
            integration_identifier: identifier.into(),
            integration_contact: contact.into(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(15),
        }
    }
}

/// Warm connections to Kisi, shared by every key. Cloning is cheap and shares them.
#[derive(Debug, Clone)]
pub struct KisiConnection {
    client: reqwest::Client,
    base_url: Url,
    last_connected: Arc<LastConnected>,
    /// Routes whose deprecation has been logged already.
    deprecated: Arc<Mutex<HashSet<&'static str>>>,
}

/// Kisi's own idle timeout is not published; a socket that they closed is noticed before use.
const IDLE_SOCKETS_LIVE: Duration = Duration::from_secs(600);
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

impl KisiConnection {
    /// Opens no socket yet. Fails on settings that no request could be made with.
    pub fn new(settings: ConnectionSettings) -> Result<Self, KisiError> {
        // Err means that the process has chosen a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        if settings.base_url.cannot_be_a_base() {
            return Err(KisiError::Settings("the base URL takes no path".to_owned()));
        }
        let last_connected = Arc::new(LastConnected::default());
        let mut builder = reqwest::Client::builder()
            .default_headers(headers(&settings)?)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_nodelay(true)
            .tcp_keepalive(TCP_KEEPALIVE)
            .pool_idle_timeout(IDLE_SOCKETS_LIVE)
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.request_timeout)
            .connector_layer(connected::NoteConnected::new(Arc::clone(&last_connected)));
        if is_loopback(&settings.base_url) {
            builder = builder.no_proxy();
        }
        let client = builder
            .build()
            .map_err(|error| KisiError::Settings(error.without_url().to_string()))?;
        Ok(Self {
            client,
            base_url: settings.base_url,
            last_connected,
            deprecated: Arc::default(),
        })
    }

    fn url(&self, path: &str, query: &[(&'static str, String)]) -> Url {
        let mut url = self.base_url.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// True the first time that a route is said to be going away.
    fn first_deprecation_of(&self, route: &'static str) -> bool {
        self.deprecated
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(route)
    }
}

fn headers(settings: &ConnectionSettings) -> Result<HeaderMap, KisiError> {
    let json = HeaderValue::from_static("application/json");
    let mut headers = HeaderMap::from_iter([(ACCEPT, json.clone()), (CONTENT_TYPE, json)]);
    for (name, value) in [
        (
            "x-kisi-integration-identifier",
            &settings.integration_identifier,
        ),
        ("x-kisi-integration-contact", &settings.integration_contact),
    ] {
        let value = HeaderValue::from_str(value)
            .map_err(|_| KisiError::Settings(format!("{name} cannot be sent as a header")))?;
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(headers)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// One login (an API key, or a member's device) on a connection. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct HttpKisi {
    connection: KisiConnection,
    /// None when the secret holds what no header can carry, a line break for example.
    authorization: Option<HeaderValue>,
    pacer: Arc<Pacer>,
}

impl HttpKisi {
    /// `pacer` is the one of the login's *user*: all keys of a user share it.
    pub fn new(connection: KisiConnection, secret: SecretString, pacer: Arc<Pacer>) -> Self {
        let authorization =
            HeaderValue::from_str(&format!("KISI-LOGIN {}", secret.expose_secret().trim()))
                .ok()
                .map(|mut value| {
                    value.set_sensitive(true);
                    value
                });
        Self {
            connection,
            authorization,
            pacer,
        }
    }

    /// The pacer of this login's user.
    pub fn pacer(&self) -> &Arc<Pacer> {
        &self.pacer
    }
}
