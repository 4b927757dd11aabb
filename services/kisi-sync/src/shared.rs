//! What every part of the service holds: adapters and settings, built once in [`crate::run`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_bus::Bus;
use kisi_client::{HttpKisi, KisiConnection, Lane, Pacer, PacerSettings};
use sea_orm::DatabaseConnection;
use secrecy::{ExposeSecret, SecretString};
use service_runtime::clock::Clock;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::directory::Directory;
use crate::ownership::Leases;
use crate::reconcile::AskedFor;
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
    pub asked_for: AskedFor,
    /// Rung after a commit that left rows in the outbox.
    pub outbox: Notify,
    pub limits: access_domain::safety::Limits,
    pub reconcile_every: Duration,
    /// Where Kisi reaches access-gateway; without it no event webhook is registered.
    pub events_url: Option<String>,
    /// How long one request to Kisi may take, from its turn.
    pub request_timeout: Duration,
    /// Shorter outages of Kisi are its ordinary life, and not shown.
    pub outage_shows_after: Duration,
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

/// So many pacers are kept without looking whether anybody needs them.
const PACERS: usize = 1_000;

/// One pacer per Kisi user, for as long as somebody speaks for that user, or Kisi remembers that
/// somebody did.
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
    /// As many more are let in before idle ones are looked for.
    room: usize,
}

impl Known {
    /// Called before one is added. Each member who unlocks has a pacer.
    fn make_room(&mut self) {
        if self.room > 0 {
            self.room -= 1;
            return;
        }
        let mut here: HashMap<*const Pacer, usize> = HashMap::new();
        for pacer in self.by_user.values().chain(self.by_secret.values()) {
            *here.entry(Arc::as_ptr(pacer)).or_default() += 1;
        }
        let is_idle = |pacer: &&Arc<Pacer>| {
            let is_held = Some(&Arc::strong_count(pacer)) != here.get(&Arc::as_ptr(pacer));
            !is_held && pacer.expected_wait(Lane::Revoke).is_zero()
        };
        let idle = self.by_secret.values().filter(is_idle);
        let idle: HashSet<*const Pacer> = idle.map(Arc::as_ptr).collect();
        self.by_user
            .retain(|_, pacer| !idle.contains(&Arc::as_ptr(pacer)));
        self.by_secret
            .retain(|_, pacer| !idle.contains(&Arc::as_ptr(pacer)));
        // So that each is looked at a few times at most.
        self.room = PACERS.max(self.by_secret.len());
    }
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
            (None, None) => {
                known.make_room();
                Pacer::new(self.settings)
            }
        };
        known.by_user.insert(user, Arc::clone(&pacer));
        known.by_secret.insert(digest(secret), Arc::clone(&pacer));
        pacer
    }

    /// The pacer of a key, known or not.
    pub fn of_secret(&self, secret: &SecretString) -> Arc<Pacer> {
        let mut known = self.lock();
        if let Some(pacer) = known.by_secret.get(&digest(secret)) {
            return Arc::clone(pacer);
        }
        known.make_room();
        let pacer = Pacer::new(self.settings);
        known.by_secret.insert(digest(secret), Arc::clone(&pacer));
        pacer
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pacer_that_nobody_uses_is_dropped_and_one_in_use_stays() {
        let pacers = Pacers::new(0.01);
        let secret = |user: i64| SecretString::from(format!("login-{user}"));
        let held = pacers.of_user(1, &secret(1));
        // Kisi has not forgotten this one's request.
        let recent = pacers.of_user(2, &secret(2));
        let mut turn = recent.turn(Lane::Grant).await;
        turn.sent(tokio::time::Instant::now());
        drop(turn);
        let recent = Arc::downgrade(&recent);
        let many = i64::try_from(PACERS).unwrap() * 3;
        for user in 3..many {
            pacers.of_user(user, &secret(user));
        }
        let known = pacers.lock();
        assert!(known.by_user.len() <= PACERS + 3, "{}", known.by_user.len());
        assert!(known.by_secret.len() <= PACERS + 3);
        assert!(Arc::ptr_eq(&known.by_user[&1], &held));
        assert!(recent.upgrade().is_some());
    }
}
