//! People as Kisi knows them: users of one organization, unique by e-mail.
//!
//! The deprecated twin `/members` is deliberately not here: assignments want the user's id.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::null_as_default;

/// Flat: at most 50 keys of 50 characters, values of 500 characters and basic types. Whether a
/// PATCH merges or replaces is not known: always send the whole object.
pub type Metadata = serde_json::Map<String, serde_json::Value>;

/// A person of the organization.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct User {
    pub id: i64,
    /// As Kisi returns it. Compare without case, see [`User::has_email`].
    #[serde(default, deserialize_with = "null_as_default")]
    pub email: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(default)]
    pub organization_id: Option<i64>,
    /// False suspends the person in the whole organization; assignments stay.
    #[serde(default)]
    pub access_enabled: Option<bool>,
    #[serde(default)]
    pub scim_access_enabled: Option<bool>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub metadata: Metadata,
    #[serde(default)]
    pub notes: Option<String>,
    #[serde(default)]
    pub groups_count: Option<u64>,
    /// Deprecated, and of a regular user false even where `confirm: true` was sent. See
    /// [`User::has_signed_up`].
    #[serde(default)]
    pub confirmed: Option<bool>,
    /// When the person last opened a door or signed in; None before the first time.
    #[serde(default)]
    pub last_accessed_at: Option<Timestamp>,
}

impl User {
    /// Exact comparison after lower-casing both: `query` and `email` filters are Kisi's to
    /// interpret, and taking a lookalike would open a door to the wrong person.
    pub fn has_email(&self, email: &str) -> bool {
        self.email.trim().to_lowercase() == email.trim().to_lowercase()
    }

    /// Whether anything shows that a regular user has signed up. No published field says so:
    /// `confirmed` is deprecated and may go, so whoever was seen using Kisi counts as well.
    pub fn has_signed_up(&self) -> bool {
        self.confirmed == Some(true) || self.last_accessed_at.is_some()
    }
}

/// The user that the key belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CurrentUser {
    pub id: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub email: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(default)]
    pub organization_id: Option<i64>,
}

/// A user named inside another object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct UserRef {
    pub id: i64,
    #[serde(default)]
    pub email: Option<String>,
    #[serde(default)]
    pub name: Option<String>,
}

/// Which users to list; the default is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserFilter {
    /// Kisi's own filter; its case rules are not published.
    pub email: Option<String>,
    /// Free text over e-mail, name and notes; can lag behind a creation.
    pub query: Option<String>,
    pub group_id: Option<i64>,
}

/// The body of `POST /users`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewUser {
    pub email: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub send_emails: bool,
    pub confirm: bool,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

impl NewUser {
    /// A managed user: no sign-up and no Kisi e-mails.
    pub fn managed(email: impl Into<String>, name: Option<String>, metadata: Metadata) -> Self {
        Self {
            email: email.into(),
            name,
            send_emails: false,
            confirm: true,
            metadata,
        }
    }

    /// A regular user: Kisi mails an invitation and the person signs up.
    pub fn regular(email: impl Into<String>, name: Option<String>, metadata: Metadata) -> Self {
        Self {
            email: email.into(),
            name,
            send_emails: true,
            confirm: false,
            metadata,
        }
    }
}

/// The body of `PATCH /users/{id}`. The e-mail cannot be changed. None leaves a field alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UserPatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_enabled: Option<bool>,
}

impl UserPatch {
    /// What would change, for a plan or a log.
    pub fn field_names(&self) -> String {
        let fields = [
            ("name", self.name.is_some()),
            ("metadata", self.metadata.is_some()),
            ("access_enabled", self.access_enabled.is_some()),
        ];
        let named: Vec<&str> = fields
            .iter()
            .filter_map(|(name, set)| set.then_some(*name))
            .collect();
        named.join(", ")
    }
}
