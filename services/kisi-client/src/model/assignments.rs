//! Role assignments: who may open what, and when. "Access rights" in Kisi's pages.
//!
//! Nothing on an assignment says who it belongs to: `created_by_id` is the user whose key wrote
//! it, who may also grant by hand.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::null_as_default;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum AppliesToType {
    Organization,
    Place,
    Group,
    /// A word that Kisi has added since.
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum AssigneeType {
    User,
    /// A whole team; such rows have no user and are left alone.
    Team,
    Guest,
    /// A word that Kisi has added since.
    #[serde(other)]
    Other,
}

impl AssigneeType {
    /// Kisi's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Team => "Team",
            Self::Guest => "Guest",
            Self::Other => "Other",
        }
    }
}

/// When a right holds; None is open-ended. Only group assignments have one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Window {
    pub valid_from: Option<Timestamp>,
    pub valid_until: Option<Timestamp>,
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.valid_from, self.valid_until) {
            (None, None) => f.write_str("open-ended"),
            (Some(from), None) => write!(f, "from {from}"),
            (None, Some(until)) => write!(f, "until {until}"),
            (Some(from), Some(until)) => write!(f, "from {from} until {until}"),
        }
    }
}

/// A user, team or guest named inside a right. Unlike a user's, a guest's e-mail may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Assignee {
    pub id: i64,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub email: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RoleAssignment {
    pub id: i64,
    pub role_id: String,
    pub applies_to_type: AppliesToType,
    pub applies_to_id: i64,
    pub assignee_type: AssigneeType,
    pub assignee_id: i64,
    /// Who that is, as far as Kisi names them: a team has no e-mail.
    #[serde(default)]
    pub assignee: Option<Assignee>,
    /// `User`, or `MarketplaceInstallation` for integrations built by Kisi.
    #[serde(default)]
    pub created_by_type: Option<String>,
    #[serde(default)]
    pub created_by_id: Option<i64>,
    #[serde(default)]
    pub valid_from: Option<Timestamp>,
    #[serde(default)]
    pub valid_until: Option<Timestamp>,
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub notify: bool,
}

impl RoleAssignment {
    pub fn window(&self) -> Window {
        Window {
            valid_from: self.valid_from,
            valid_until: self.valid_until,
        }
    }

    /// The user who holds this right on this group, if it is a user's right on a group.
    pub fn user_on_group(&self, group_id: i64) -> Option<i64> {
        (self.applies_to_type == AppliesToType::Group
            && self.applies_to_id == group_id
            && self.assignee_type == AssigneeType::User)
            .then_some(self.assignee_id)
    }
}

/// Which assignments to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssignmentFilter {
    /// All rows of one group.
    Group(i64),
    /// All rows of one user: groups, places and the organization.
    User(i64),
    /// The rights on one place as a whole.
    Place(i64),
    /// The rights on the organization as a whole.
    Organization(i64),
}

/// The body of `POST /role_assignments` for a user on a group. Kisi mails nobody about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGroupAssignment {
    pub group_id: i64,
    pub user_id: i64,
    /// `group_basic` opens doors.
    pub role_id: String,
    pub window: Window,
}

impl NewGroupAssignment {
    /// The role that opens a group's doors and nothing else.
    pub const BASIC_ROLE: &'static str = "group_basic";

    pub fn basic(group_id: i64, user_id: i64, window: Window) -> Self {
        Self {
            group_id,
            user_id,
            role_id: Self::BASIC_ROLE.to_owned(),
            window,
        }
    }
}
