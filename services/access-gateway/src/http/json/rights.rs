//! JSON of the rights that others gave.

use contracts::integration::v1 as wire;
use serde::Serialize;
use utoipa::ToSchema;

use super::{instant, list};

/// Rights that others gave and that open the doors behind the associated groups.
#[derive(Debug, Serialize, ToSchema)]
pub struct OtherRightsBody {
    /// When Kisi was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub read_at: Option<String>,
    /// Rights held by a person, on one of the groups or another group with one of their doors.
    pub people: i64,
    /// Rights held by a whole team; who is in it Kisi does not tell.
    pub teams: i64,
    /// Rights held by a guest.
    pub guests: i64,
    /// Access links, which open without any user.
    pub links: i64,
    /// Rights of staff: on the whole place or organization.
    pub staff: i64,
    /// Members of the gym among the holders, at most 100.
    pub member_ids: Vec<String>,
    /// How many members there are among them.
    pub members: i64,
    /// False: something may be missing until the next reading.
    pub complete: bool,
}

impl From<wire::OtherRights> for OtherRightsBody {
    fn from(rights: wire::OtherRights) -> Self {
        Self {
            read_at: instant(rights.read_at),
            people: rights.people,
            teams: rights.teams,
            guests: rights.guests,
            links: rights.links,
            staff: rights.staff,
            member_ids: rights.member_ids,
            members: rights.members,
            complete: rights.complete,
        }
    }
}

/// A page of the rights that others gave.
#[derive(Debug, Serialize, ToSchema)]
pub struct RightsBody {
    /// In a fixed order.
    pub rights: Vec<RightBody>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
    /// When Kisi was asked; absent before the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub read_at: Option<String>,
}

impl From<wire::ListOtherRightsResponse> for RightsBody {
    fn from(page: wire::ListOtherRightsResponse) -> Self {
        Self {
            rights: list(page.rights),
            next_page_token: page.next_page_token,
            read_at: instant(page.read_at),
        }
    }
}

/// A right that others gave.
#[derive(Debug, Serialize, ToSchema)]
pub struct RightBody {
    /// Kisi's id of the role assignment, or of the access link.
    pub id: i64,
    /// Who holds it: `user`, `team`, `guest` or `link`.
    pub holder: String,
    /// Kisi's id of that.
    pub holder_id: i64,
    /// When the holder's e-mail is a member's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// Of a team.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub team_name: String,
    /// What it is a right on: `group`, `place` or `organization`.
    pub target: String,
    /// Kisi's id of that.
    pub target_id: i64,
    /// Kisi's id of the role; absent for a link.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub role_id: String,
    /// The associated groups of whose doors it opens one.
    pub groups: Vec<i64>,
    /// Absent: from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub valid_from: Option<String>,
    /// Absent: without end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub valid_until: Option<String>,
}

impl From<wire::OtherRight> for RightBody {
    fn from(right: wire::OtherRight) -> Self {
        Self {
            id: right.id,
            holder: right.holder,
            holder_id: right.holder_id,
            member_id: right.member_id,
            team_name: right.team_name,
            target: right.target,
            target_id: right.target_id,
            role_id: right.role_id,
            groups: right.groups,
            valid_from: instant(right.valid_from),
            valid_until: instant(right.valid_until),
        }
    }
}
