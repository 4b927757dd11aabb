//! Integrations of type `event_webhook`, and sets of past events.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::null_as_default;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Integration {
    pub id: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    /// `event_webhook` for ours.
    #[serde(default, rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub enabled: bool,
    /// Kisi switched it off because deliveries failed.
    #[serde(default, deserialize_with = "null_as_default")]
    pub disabled_due_to_error: bool,
    #[serde(default)]
    pub place_id: Option<i64>,
    /// Not in lists; read one integration by its id to see it.
    #[serde(default)]
    pub url: Option<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub enabled_events: Vec<String>,
}

/// The body of `POST /integrations` for an event webhook.
#[derive(Debug, Clone)]
pub struct NewEventWebhook {
    pub name: String,
    pub url: url::Url,
    /// E.g. `role_assignment.create`, `role_assignment.destroy`, `lock.unlock`.
    pub enabled_events: Vec<String>,
    /// Without it Kisi does not sign.
    pub signature_key: SecretString,
}

/// The body of `PATCH /integrations/{id}`. None leaves a field alone.
#[derive(Debug, Clone, Default)]
pub struct IntegrationPatch {
    pub enabled: Option<bool>,
    pub url: Option<url::Url>,
    pub enabled_events: Option<Vec<String>>,
    pub signature_key: Option<SecretString>,
}

/// The body of `POST /event_sets`. Kisi allows one such request a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewEventSet {
    #[serde(skip)]
    pub from: Timestamp,
    /// At most 90 days after `from`.
    #[serde(skip)]
    pub until: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_object_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_object_id: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventSetStatus {
    InProgress,
    Finished,
    Failed,
    /// A word that Kisi has added since.
    #[serde(other)]
    Other,
}

/// One page of past events; kept by Kisi for about 24 hours.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct EventSet {
    pub id: i64,
    pub status: EventSetStatus,
    #[serde(default, deserialize_with = "null_as_default")]
    pub events: Vec<Event>,
    /// Where the next page begins; None on the last.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// Something that happened at Kisi, as event sets and webhooks tell it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Event {
    /// Repeats carry the same one.
    pub uuid: String,
    /// E.g. `role_assignment.destroy`, `lock.unlock`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub actor_type: Option<String>,
    #[serde(default)]
    pub actor_id: Option<i64>,
    #[serde(default)]
    pub object_type: Option<String>,
    #[serde(default)]
    pub object_id: Option<i64>,
    #[serde(default)]
    pub organization_id: Option<i64>,
    #[serde(default)]
    pub place_id: Option<i64>,
    #[serde(default)]
    pub success: Option<bool>,
    #[serde(default)]
    pub error_code: Option<String>,
    #[serde(default)]
    pub created_at: Option<Timestamp>,
}
