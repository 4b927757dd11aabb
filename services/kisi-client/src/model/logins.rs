//! Logins (API keys and devices) and what is sent to open a door with one.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{UserRef, null_as_default};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Login {
    pub id: i64,
    /// `api` or `device`.
    #[serde(default, rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub primary: bool,
    #[serde(default)]
    pub expire: Option<bool>,
    #[serde(default)]
    pub user_id: Option<i64>,
    #[serde(default)]
    pub user: Option<UserRef>,
    #[serde(default)]
    pub last_used_at: Option<Timestamp>,
    #[serde(default)]
    pub device_brand: Option<String>,
    #[serde(default)]
    pub device_model: Option<String>,
    #[serde(default)]
    pub os_name: Option<String>,
}

/// The answer of `POST /logins`: the only time that its secret is shown.
#[derive(Debug, Clone, Deserialize)]
pub struct CreatedLogin {
    #[serde(flatten)]
    pub login: Login,
    pub secret: SecretString,
    #[serde(default)]
    pub scram_credentials: Option<ScramCredentials>,
}

/// What the phone's SDK needs. A bearer credential.
#[derive(Debug, Clone, Deserialize)]
pub struct ScramCredentials {
    #[serde(default)]
    pub phone_key: Option<SecretString>,
    #[serde(default)]
    pub online_certificate: Option<SecretString>,
}

/// The body of `POST /logins` for a member's device, made by the admin. It never expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDeviceLogin {
    pub email: String,
    pub device_brand: String,
    pub device_model: String,
    pub os_name: String,
}

/// Degrees, as the phone gave them. Never stored.
#[derive(Clone, Copy, PartialEq, Deserialize, Serialize)]
pub struct Location {
    pub longitude: f64,
    pub latitude: f64,
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Location(…)")
    }
}

/// What goes with an unlock: where the phone is and what it heard from the reader.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UnlockRequest {
    pub location: Option<Location>,
    /// From the reader's beacon, as the app gave it.
    pub proximity_proof: Option<String>,
}
