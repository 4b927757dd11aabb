//! What every part of the service holds: adapters and settings, built once in [`crate::run`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_bus::Bus;
use kisi_client::{HttpKisi, KisiConnection, Pacer, PacerSettings};
use sea_orm::DatabaseConnection;
use secrecy::{ExposeSecret, SecretString};
use service_runtime::clock::Clock;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::directory::Directory;
use crate::ownership::Leases;
use crate::schedule::Passes;
use crate::sealing::{Purpose, Sealed, Sealer, SealingError};
use crate::store::integrations;
use crate::worker::Workers;

/// Built in [`crate::run`], handed to every part.
pub struct Shared {
    pub db: DatabaseConnection,
    pub bus: Bus,
    pub clock: Arc<dyn Clock>,
    pub sealer: Sealer,
    pub kisi: KisiConnection,
    pub pacers: Pacers,
    pub directory: Directory,
    pub leases: Leases,
    pub workers: Workers,
    pub passes: Passes,
    /// Gyms whose rights of others are read just now, once a day.
    pub readings: Passes,
    /// Rung after a commit that left rows in the outbox.
    pub outbox: Notify,
    pub limits: access_domain::safety::Limits,
    pub reconcile_every: Duration,
    /// Where Kisi reaches access-gateway; without it no event webhook is registered.
    pub events_url: Option<String>,
    /// How long one request to Kisi may take, from its turn.
    pub request_timeout: Duration,
}

impl Shared {
    /// Now, in microseconds since 1970.
    pub fn now(&self) -> i64 {
        crate::store::micros(self.clock.now())
    }

    /// Speaks to Kisi with the gym's key, at the pace of the key's owner.
    pub fn kisi_of(&self, integration: &integrations::Model) -> Result<HttpKisi, SealingError> {
        let sealed = Sealed {
            key_id: integration.sealing_key_id.clone(),
            bytes: integration.sealed_key.clone(),
        };
        let secret = self.sealer.open(
            Purpose::ApiKey,
            &integration.gym_id,
            &integration.gym_id,
            &sealed,
        )?;
        let pacer = match integration.owner_user_id {
            Some(user) => self.pacers.of_user(user, &secret),
            None => self.pacers.of_secret(&secret),
        };
        Ok(HttpKisi::new(self.kisi.clone(), secret, pacer))
    }

    /// Speaks to Kisi with a key at the pace of its owner.
    pub fn kisi_of_owner(&self, owner: i64, secret: SecretString) -> HttpKisi {
        let pacer = self.pacers.of_user(owner, &secret);
        HttpKisi::new(self.kisi.clone(), secret, pacer)
    }

    /// Speaks to Kisi with a key whose owner may not be known yet.
    pub fn kisi_with(&self, secret: SecretString) -> HttpKisi {
        let pacer = self.pacers.of_secret(&secret);
        HttpKisi::new(self.kisi.clone(), secret, pacer)
    }
}

/// One pacer per Kisi user, for as long as the process lives.
///
/// Whose a key is, only Kisi can tell; so a key that is being checked has a pacer of its own, which
/// becomes its owner's when the owner has none yet.
pub struct Pacers {
    settings: PacerSettings,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_user: HashMap<i64, Arc<Pacer>>,
    /// By a digest: the secret itself is not kept.
    by_secret: HashMap<[u8; 32], Arc<Pacer>>,
}

impl Pacers {
    pub fn new(requests_per_second: f64) -> Self {
        Self {
            settings: PacerSettings {
                requests_per_second,
            },
            known: Mutex::default(),
        }
    }

    /// The pacer that all logins of this Kisi user share, this one included.
    pub fn of_user(&self, user: i64, secret: &SecretString) -> Arc<Pacer> {
        let mut known = self.lock();
        let pacer = match (
            known.by_user.get(&user),
            known.by_secret.get(&digest(secret)),
        ) {
            (Some(pacer), _) | (None, Some(pacer)) => Arc::clone(pacer),
            (None, None) => Pacer::new(self.settings),
        };
        known.by_user.insert(user, Arc::clone(&pacer));
        known.by_secret.insert(digest(secret), Arc::clone(&pacer));
        pacer
    }

    /// The pacer of a key, known or not.
    pub fn of_secret(&self, secret: &SecretString) -> Arc<Pacer> {
        let mut known = self.lock();
        let pacer = known.by_secret.entry(digest(secret));
        Arc::clone(pacer.or_insert_with(|| Pacer::new(self.settings)))
    }

    /// Requests a second that each user is allowed.
    pub fn rate(&self) -> f64 {
        self.settings.requests_per_second
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(secret: &SecretString) -> [u8; 32] {
    Sha256::digest(secret.expose_secret().trim().as_bytes()).into()
}
