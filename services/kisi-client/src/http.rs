//! Kisi over HTTP.
mod reads;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::error::KisiError;
use crate::pacing::Pacer;

/// How to reach Kisi, for all keys together.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// `https://api.kisi.io`.
    pub base_url: Url,
    /// `X-Kisi-Integration-Identifier`.
    pub integration_identifier: String,
    /// `X-Kisi-Integration-Contact`, an e-mail address.
    pub integration_contact: String,
    pub connect_timeout: Duration,
    /// From the turn to the last byte of the answer.
    pub request_timeout: Duration,
}

impl ConnectionSettings {
    /// Settings with the usual timeouts: 5 s to connect, 15 s in all.
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

/// Warm connections to Kisi, shared by every key. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct KisiConnection {
    client: reqwest::Client,
    settings: Arc<ConnectionSettings>,
}

impl KisiConnection {
    pub fn new(settings: ConnectionSettings) -> Result<Self, KisiError> {
        Ok(Self {
            client: reqwest::Client::new(),
            settings: Arc::new(settings),
        })
    }
}

/// One login (an API key, or a member's device) on a connection. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct HttpKisi {
    connection: KisiConnection,
    secret: SecretString,
    pacer: Arc<Pacer>,
}

impl HttpKisi {
    /// `pacer` is the one of the login's *user*: all keys of a user share it.
    pub fn new(connection: KisiConnection, secret: SecretString, pacer: Arc<Pacer>) -> Self {
        Self {
            connection,
            secret,
            pacer,
        }
    }

    pub fn pacer(&self) -> &Arc<Pacer> {
        &self.pacer
    }
}
