//! The organization, its places, groups and doors, and the roles that can be given.

use serde::Deserialize;

use super::null_as_default;

/// A reference to another object: its id and name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Named {
    pub id: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Organization {
    pub id: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    /// The sign-in domain, e.g. `iron-house`.
    #[serde(default)]
    pub domain: Option<String>,
    /// An IANA name, e.g. `Europe/London`.
    #[serde(default)]
    pub time_zone: Option<String>,
    #[serde(default)]
    pub places_count: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Place {
    pub id: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(default)]
    pub organization_id: Option<i64>,
    #[serde(default)]
    pub time_zone: Option<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub locked_down: bool,
}

/// A set of doors with the rules for opening them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Group {
    pub id: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    /// None for an organization group, which may hold doors of several places.
    #[serde(default)]
    pub place_id: Option<i64>,
    #[serde(default)]
    pub users_count: Option<u64>,
    #[serde(default)]
    pub locks_count: Option<u64>,
    /// The same assignment opens them too.
    #[serde(default)]
    pub elevator_stops_count: Option<u64>,
    /// False: doors of this group open by card only, not from an app.
    #[serde(default)]
    pub login_enabled: Option<bool>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub time_restriction_enabled: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    pub geofence_restriction_enabled: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    pub reader_restriction_enabled: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    pub tap_to_access_restriction_enabled: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    pub primary_device_restriction_enabled: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    pub managed_device_restriction_enabled: bool,
}

impl Group {
    /// Organization group or place group, by `place_id`.
    pub fn scope(&self) -> GroupScope {
        match self.place_id {
            None => GroupScope::Organization,
            Some(_) => GroupScope::Place,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupScope {
    Organization,
    Place,
}

impl GroupScope {
    /// Kisi's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Place => "place",
        }
    }
}

/// Which groups to list; the default is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupFilter {
    pub scope: Option<GroupScope>,
    pub place_id: Option<i64>,
}

/// A door's being in a group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GroupLock {
    pub id: i64,
    pub group_id: i64,
    pub lock_id: i64,
    #[serde(default)]
    pub lock: Option<Named>,
    #[serde(default)]
    pub place_id: Option<i64>,
}

/// A door.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Lock {
    pub id: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(default)]
    pub place_id: Option<i64>,
    /// Whether its controller is connected; None when Kisi does not know.
    #[serde(default)]
    pub online: Option<bool>,
    /// None when Kisi does not say; false: no controller was set up.
    #[serde(default)]
    pub configured: Option<bool>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub locked_down: bool,
    /// In how many groups it is.
    #[serde(default)]
    pub groups_count: Option<u64>,
}

/// A role that can be given. Role ids are strings; groups have at least `group_basic`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Role {
    pub id: String,
    /// `Organization`, `Place` or `Group`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub applies_to: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub custom: bool,
    #[serde(default)]
    pub permissions: serde_json::Value,
}

impl Role {
    /// What one of its flags says; None where Kisi does not tell it.
    pub fn may(&self, permission: &str) -> Option<bool> {
        self.permissions.get(permission)?.as_bool()
    }
}
