//! Access links: they open a group's doors for whoever has the link, without any user.

use jiff::Timestamp;
use serde::Deserialize;

use super::null_as_default;

/// A link, as far as it must be shown. Its holder passes geofence and reader restrictions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GroupLink {
    pub id: i64,
    pub group_id: i64,
    /// Whom it was mailed to, if anybody.
    #[serde(default)]
    pub email: Option<String>,
    /// False: it opens nothing at the moment.
    #[serde(default, deserialize_with = "null_as_default")]
    pub link_enabled: bool,
    #[serde(default)]
    pub valid_from: Option<Timestamp>,
    #[serde(default)]
    pub valid_until: Option<Timestamp>,
}
