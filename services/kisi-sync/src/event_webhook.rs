//! Our event webhook at a gym's Kisi: made when the gym is in sync and its key may, looked after with
//! each reconcile, and switched on again when Kisi switched it off.
//!
//! The signature key is written down, sealed, before the request leaves; a webhook whose answer was
//! lost is found by its name, and gets the key that we have. What does not work here costs nothing
//! but the seconds until the next reconcile, so it never fails a pass.

use kisi_client::model::{IntegrationPatch, NewEventWebhook};
use kisi_client::{HttpKisi, KisiError, KisiRead, KisiWrite, Lane};
use sea_orm::{DbErr, EntityTrait, TransactionTrait};
use secrecy::SecretString;
use url::Url;

use crate::audit::{self, Entry};
use crate::sealing::{Purpose, Sealed, SealingError};
use crate::shared::Shared;
use crate::store::event_webhooks::{self, Model};
use crate::store::members::Cause;

/// What is listened to.
const EVENTS: [&str; 6] = [
    "role_assignment.create",
    "role_assignment.update",
    "role_assignment.destroy",
    "lock.unlock",
    "login.destroy",
    "user.destroy",
];

/// A refusal is asked about again after this.
const AGAIN_AFTER: i64 = 24 * 3_600 * 1_000_000;

/// Why the webhook could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("the database failed")]
    Store(#[from] DbErr),
    #[error("Kisi did not do it")]
    Kisi(#[from] KisiError),
    #[error(transparent)]
    Sealing(#[from] SealingError),
    #[error("KISI_EVENTS_URL makes no address")]
    Address(#[from] url::ParseError),
}

/// One gym's webhook, spoken to with the gym's key.
pub struct Webhook<'a> {
    pub shared: &'a Shared,
    pub gym: &'a str,
    pub kisi: &'a HttpKisi,
    pub cause: Cause,
    /// Requests made.
    pub requests: i64,
}

impl Webhook<'_> {
    /// Makes it, or sees that it is as it should be.
    pub async fn look_after(&mut self) -> Result<(), WebhookError> {
        let Some(base) = &self.shared.events_url else {
            return Ok(());
        };
        let url: Url = format!("{base}/kisi/events/{}", self.gym).parse()?;
        let now = self.shared.now();
        let row = event_webhooks::find(&self.shared.db, self.gym).await?;
        let refused = row.as_ref().and_then(|row| row.refused_at);
        if refused.is_some_and(|at| now - at < AGAIN_AFTER) {
            return Ok(());
        }
        if let Some(id) = row.as_ref().and_then(|row| row.integration_id) {
            self.requests += 1;
            if let Some(held) = self.kisi.find_integration(Lane::Reconcile, id).await? {
                let right = held.enabled
                    && !held.disabled_due_to_error
                    && held.url.as_deref() == Some(url.as_str())
                    && EVENTS
                        .iter()
                        .all(|kind| held.enabled_events.iter().any(|e| e == kind));
                return match right {
                    true => Ok(()),
                    false => self.set_right(id, url, None).await,
                };
            }
        }
        self.register(url).await
    }

    async fn register(&mut self, url: Url) -> Result<(), WebhookError> {
        let secret = SecretString::from(hex::encode(rand::random::<[u8; 32]>()));
        let sealed = self.shared.sealer.seal(
            Purpose::EventSignature,
            self.gym,
            self.gym,
            &secret,
            rand::random(),
        )?;
        let mut row = Model {
            gym_id: self.gym.to_owned(),
            // Whichever has the new key is found by its name; the one of before has it not.
            integration_id: None,
            sealed_key: sealed.bytes,
            sealing_key_id: sealed.key_id,
            refused_at: None,
        };
        event_webhooks::put(&self.shared.db, row.clone()).await?;
        let name = format!("Gymflow {}", self.gym);
        let made = match self.find_by_name(&name).await {
            Ok(Some(id)) => self.set_right(id, url, Some(secret)).await.map(|()| id),
            Ok(None) => self.create(name, url, secret).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(id) => row.integration_id = Some(id),
            Err(WebhookError::Kisi(error)) if error.is_key_dead() || error.is_unprocessable() => {
                tracing::info!(gym.id = %self.gym, error = %error,
                    "Kisi allows no event webhook to gym {}", self.gym);
                row.integration_id = None;
                row.refused_at = Some(self.shared.now());
            }
            Err(error) => return Err(error),
        }
        Ok(event_webhooks::put(&self.shared.db, row).await?)
    }

    async fn find_by_name(&mut self, name: &str) -> Result<Option<i64>, WebhookError> {
        self.requests += 1;
        let listed = self.kisi.list_integrations(Lane::Reconcile).await?;
        let ours = |kind: &str, known: &str| kind == "event_webhook" && known == name;
        let found = listed.items.iter().find(|row| ours(&row.kind, &row.name));
        Ok(found.map(|row| row.id))
    }

    async fn create(
        &mut self,
        name: String,
        url: Url,
        signature_key: SecretString,
    ) -> Result<i64, WebhookError> {
        let new = NewEventWebhook {
            name,
            url,
            enabled_events: EVENTS.map(str::to_owned).to_vec(),
            signature_key,
        };
        self.requests += 1;
        let sent_at = self.shared.now();
        let made = self
            .kisi
            .create_event_webhook(Lane::Reconcile.into(), &new)
            .await?;
        let fields = [
            "name",
            "type",
            "url",
            "enabled",
            "enabled_events",
            "signature_key",
        ];
        let entry = Entry::new("webhook_registered").request("POST /integrations", &fields);
        self.log(entry.object(made.id), sent_at).await?;
        Ok(made.id)
    }

    async fn set_right(
        &mut self,
        id: i64,
        url: Url,
        signature_key: Option<SecretString>,
    ) -> Result<(), WebhookError> {
        let mut fields = vec!["enabled", "url", "enabled_events"];
        fields.extend(signature_key.as_ref().map(|_| "signature_key"));
        let patch = IntegrationPatch {
            enabled: Some(true),
            url: Some(url),
            enabled_events: Some(EVENTS.map(str::to_owned).to_vec()),
            signature_key,
        };
        self.requests += 1;
        let sent_at = self.shared.now();
        self.kisi
            .update_integration(Lane::Reconcile.into(), id, &patch)
            .await?;
        let entry = Entry::new("webhook_enabled").request("PATCH /integrations/{id}", &fields);
        self.log(entry.object(id), sent_at).await
    }

    /// The integration ends: no more events.
    pub async fn remove(&mut self) -> Result<(), WebhookError> {
        let Some(row) = event_webhooks::find(&self.shared.db, self.gym).await? else {
            return Ok(());
        };
        if let Some(id) = row.integration_id {
            let sent_at = self.shared.now();
            self.kisi.delete_integration(Lane::SetUp.into(), id).await?;
            let entry = Entry::new("webhook_removed").request("DELETE /integrations/{id}", &[]);
            self.log(entry.object(id), sent_at).await?;
        }
        event_webhooks::Entity::delete_by_id(self.gym.to_owned())
            .exec(&self.shared.db)
            .await?;
        Ok(())
    }

    async fn log(&self, entry: Entry, sent_at: i64) -> Result<(), WebhookError> {
        let now = self.shared.now();
        let entry = entry.caused_by(self.cause.clone()).between(sent_at, now);
        let txn = self.shared.db.begin().await?;
        audit::append(&txn, self.gym, &[entry], now).await?;
        Ok(txn.commit().await?)
    }
}

/// What the gym's events are signed with; None where there is no webhook of ours.
pub async fn signature_key(
    shared: &Shared,
    gym: &str,
) -> Result<Option<SecretString>, WebhookError> {
    let Some(row) = event_webhooks::find(&shared.db, gym).await? else {
        return Ok(None);
    };
    let sealed = Sealed {
        key_id: row.sealing_key_id,
        bytes: row.sealed_key,
    };
    let opened = shared
        .sealer
        .open(Purpose::EventSignature, gym, gym, &sealed)?;
    Ok(Some(opened))
}
