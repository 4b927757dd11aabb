//! The rows of the simulated Kisi, one struct per resource.
//!
//! Only what decides something or cannot be derived is a field; what Kisi prints besides is made
//! in `render.rs`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// To whom a role is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Assignee {
    User(i64),
    Team(i64),
    Guest(i64),
}

impl Assignee {
    pub fn kind(self) -> &'static str {
        match self {
            Self::User(_) => "User",
            Self::Team(_) => "Team",
            Self::Guest(_) => "Guest",
        }
    }

    pub fn id(self) -> i64 {
        match self {
            Self::User(id) | Self::Team(id) | Self::Guest(id) => id,
        }
    }

    pub fn user(self) -> Option<i64> {
        match self {
            Self::User(id) => Some(id),
            _ => None,
        }
    }

    /// `None` for a kind that Kisi does not have.
    pub fn parse(kind: &str, id: i64) -> Option<Self> {
        match kind {
            "User" => Some(Self::User(id)),
            "Team" => Some(Self::Team(id)),
            "Guest" => Some(Self::Guest(id)),
            _ => None,
        }
    }
}

/// What a role is given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Target {
    Organization(i64),
    Place(i64),
    Group(i64),
}

impl Target {
    pub fn kind(self) -> &'static str {
        match self {
            Self::Organization(_) => "Organization",
            Self::Place(_) => "Place",
            Self::Group(_) => "Group",
        }
    }

    pub fn id(self) -> i64 {
        match self {
            Self::Organization(id) | Self::Place(id) | Self::Group(id) => id,
        }
    }

    /// `None` for a kind that Kisi does not have.
    pub fn parse(kind: &str, id: i64) -> Option<Self> {
        match kind {
            "Organization" => Some(Self::Organization(id)),
            "Place" => Some(Self::Place(id)),
            "Group" => Some(Self::Group(id)),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Organization {
    pub id: i64,
    pub name: String,
    pub domain: String,
    pub time_zone: String,
    /// Seconds of inactivity after which a login dies; `None` is two weeks.
    pub device_logins_expire_after: Option<i64>,
    /// The owner.
    pub user_id: Option<i64>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    pub id: i64,
    pub organization_id: i64,
    pub name: String,
    pub description: Option<String>,
    pub address: String,
    pub latitude: Option<f64>,
    pub longitude: Option<f64>,
    pub time_zone: Option<String>,
    pub locked_down_since: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lock {
    pub id: i64,
    pub organization_id: i64,
    pub place_id: i64,
    pub name: String,
    pub description: Option<String>,
    pub configured: bool,
    pub online: Option<bool>,
    pub locked_down_since: Option<Timestamp>,
    pub on_scheduled_unlock: bool,
    pub latitude: Option<f64>,
    pub longitude: Option<f64>,
    pub floor_id: Option<i64>,
    pub geofence_restriction_enabled: Option<bool>,
    pub geofence_restriction_radius: f64,
    pub reader_restriction_enabled: Option<bool>,
    pub time_restriction_enabled: Option<bool>,
    /// Hours that the door's own time restriction allows.
    pub hours: Option<Hours>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Allowed hours of a day, in the time zone of the place or organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    pub from: jiff::civil::Time,
    pub to: jiff::civil::Time,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    pub id: i64,
    pub organization_id: i64,
    pub place_id: Option<i64>,
    pub name: String,
    pub description: Option<String>,
    #[serde(flatten)]
    pub rules: GroupRules,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What a group asks of an unlock.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupRules {
    pub login_enabled: bool,
    pub time_restriction_enabled: bool,
    pub geofence_restriction_enabled: bool,
    /// Metres.
    pub geofence_restriction_radius: f64,
    pub reader_restriction_enabled: bool,
    pub tap_to_access_restriction_enabled: bool,
    pub primary_device_restriction_enabled: bool,
    pub managed_device_restriction_enabled: bool,
    /// Hours that the time restriction allows; none means never.
    pub hours: Option<Hours>,
}

impl Default for GroupRules {
    fn default() -> Self {
        Self {
            login_enabled: true,
            time_restriction_enabled: false,
            geofence_restriction_enabled: false,
            geofence_restriction_radius: 300.0,
            reader_restriction_enabled: false,
            tap_to_access_restriction_enabled: false,
            primary_device_restriction_enabled: false,
            managed_device_restriction_enabled: false,
            hours: None,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupLock {
    pub id: i64,
    pub organization_id: i64,
    pub group_id: i64,
    pub lock_id: i64,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct User {
    pub id: i64,
    /// The id under `/members`, which is another one.
    pub member_id: i64,
    pub organization_id: i64,
    pub email: String,
    pub name: String,
    pub image: Option<String>,
    pub metadata: Map<String, Value>,
    pub notes: Option<String>,
    pub access_enabled: bool,
    pub password_flow_enabled: bool,
    pub confirmed: bool,
    pub last_accessed_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Team {
    pub id: i64,
    pub organization_id: i64,
    pub name: String,
    pub members: Vec<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guest {
    pub id: i64,
    pub organization_id: i64,
    pub name: String,
    pub email: Option<String>,
    pub phone_number: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginKind {
    Api,
    Device,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Login {
    pub id: i64,
    pub user_id: i64,
    #[serde(rename = "type")]
    pub kind: LoginKind,
    pub name: Option<String>,
    pub secret: String,
    pub expire: bool,
    pub primary: bool,
    pub device_brand: Option<String>,
    pub device_model: Option<String>,
    pub os_name: Option<String>,
    pub phone_key: String,
    pub online_certificate: String,
    /// Set by the control side: the key is known to be dead.
    pub revoked: bool,
    pub last_used_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assignment {
    pub id: i64,
    pub organization_id: i64,
    pub role_id: String,
    pub notify: bool,
    pub assignee: Assignee,
    pub applies_to: Target,
    pub valid_from: Option<Timestamp>,
    pub valid_until: Option<Timestamp>,
    /// `User` or `MarketplaceInstallation`; `None` where nobody is known.
    pub created_by_type: Option<String>,
    pub created_by_id: Option<i64>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Assignment {
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.valid_until.is_some_and(|until| until <= now)
    }

    pub fn has_begun(&self, now: Timestamp) -> bool {
        self.valid_from.is_none_or(|from| from <= now)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Integration {
    pub id: i64,
    pub organization_id: i64,
    pub place_id: Option<i64>,
    /// `event_webhook`, or one that is set up in Kisi's own pages.
    #[serde(default = "event_webhook")]
    pub kind: String,
    pub name: String,
    pub url: String,
    pub enabled: bool,
    pub enabled_events: Vec<String>,
    pub signature_key: Option<String>,
    pub failures_in_a_row: u32,
    pub disabled_due_to_error_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

fn event_webhook() -> String {
    Integration::EVENT_WEBHOOK.to_owned()
}

impl Integration {
    /// The one kind that the API makes.
    pub const EVENT_WEBHOOK: &'static str = "event_webhook";
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventSet {
    pub id: i64,
    pub organization_id: i64,
    pub interval: String,
    pub from: Timestamp,
    pub to: Timestamp,
    /// The request's filters, as sent.
    pub filters: Map<String, Value>,
    pub polls_left: u32,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupLink {
    pub id: i64,
    pub organization_id: i64,
    pub group_id: i64,
    pub name: String,
    pub email: Option<String>,
    pub phone: Option<String>,
    pub link_enabled: bool,
    pub valid_from: Option<Timestamp>,
    pub valid_until: Option<Timestamp>,
    pub created_by_id: Option<i64>,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventRow {
    pub uuid: String,
    pub sequence: u64,
    #[serde(rename = "type")]
    pub kind: String,
    pub actor_id: Option<i64>,
    pub actor_name: Option<String>,
    pub actor_email: Option<String>,
    pub login_id: Option<i64>,
    pub authorized_by_role_id: Option<String>,
    pub object_type: String,
    pub object_id: i64,
    pub object_name: String,
    pub organization_id: i64,
    pub place_id: Option<i64>,
    pub success: bool,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub created_at: Timestamp,
}

/// An e-mail that Kisi would have sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Email {
    pub at: Timestamp,
    pub to: String,
    /// `invitation`, `role_assignment_created` or `role_assignment_updated`.
    pub kind: String,
    pub user_id: Option<i64>,
    pub assignment_id: Option<i64>,
}
