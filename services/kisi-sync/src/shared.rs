//! What every part of the service holds: adapters and settings, built once in [`crate::run`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kisi_client::{HttpKisi, KisiConnection, Pacer, PacerSettings};
use sea_orm::DatabaseConnection;
use secrecy::SecretString;
use service_runtime::clock::Clock;
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
    pub clock: Arc<dyn Clock>,
    pub sealer: Sealer,
    pub kisi: KisiConnection,
    pub pacers: Pacers,
    pub directory: Directory,
    pub leases: Leases,
    pub workers: Workers,
    pub passes: Passes,
    /// Rung after a commit that left rows in the outbox.
    pub outbox: Notify,
    pub limits: access_domain::safety::Limits,
    pub reconcile_every: Duration,
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
            Some(user) => self.pacers.of_user(user),
            None => self.pacers.fresh(),
        };
        Ok(HttpKisi::new(self.kisi.clone(), secret, pacer))
    }

    /// Speaks to Kisi with a key whose owner is not known yet.
    pub fn kisi_with(&self, secret: SecretString) -> HttpKisi {
        HttpKisi::new(self.kisi.clone(), secret, self.pacers.fresh())
    }
}

/// One pacer per Kisi user, for as long as the process lives.
pub struct Pacers {
    settings: PacerSettings,
    by_user: Mutex<HashMap<i64, Arc<Pacer>>>,
}

impl Pacers {
    pub fn new(requests_per_second: f64) -> Self {
        Self {
            settings: PacerSettings {
                requests_per_second,
            },
            by_user: Mutex::default(),
        }
    }

    /// The pacer that all logins of this Kisi user share.
    pub fn of_user(&self, user: i64) -> Arc<Pacer> {
        let mut by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            by_user
                .entry(user)
                .or_insert_with(|| Pacer::new(self.settings)),
        )
    }

    /// A pacer for a key not known yet: its first requests come singly, well below any limit.
    pub fn fresh(&self) -> Arc<Pacer> {
        Pacer::new(self.settings)
    }

    /// Requests a second that each user is allowed.
    pub fn rate(&self) -> f64 {
        self.settings.requests_per_second
    }
}
