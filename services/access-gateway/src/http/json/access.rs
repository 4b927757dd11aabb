//! JSON of the members' routes.

use contracts::access::v1 as wire;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::instant;
use crate::decide::{self, Status};

/// A member's page.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccessBody {
    /// The sum of what is decided and what Kisi accepted.
    pub status: Status,
    /// When it was reckoned.
    #[schema(format = DateTime)]
    pub as_of: String,
    /// What is decided; counts only plans that have a group.
    pub decision: SideBody,
    /// What Kisi accepted. A reader may honour a cached right for up to 36 hours after a revocation.
    pub applied: SideBody,
    /// The doors behind the member's groups.
    pub doors: Vec<DoorBody>,
    /// Why not, and what else there is to know. Denied without an alert cannot happen.
    pub alerts: Vec<AlertBody>,
}

impl From<decide::Access> for AccessBody {
    fn from(access: decide::Access) -> Self {
        Self {
            status: access.status,
            as_of: access.as_of.to_string(),
            decision: access.decision.into(),
            applied: access.applied.into(),
            doors: access.doors.into_iter().map(Into::into).collect(),
            alerts: access
                .alerts
                .into_iter()
                .map(|alert| wire::Alert::from(alert).into())
                .collect(),
        }
    }
}

/// One of the two sides.
#[derive(Debug, Serialize, ToSchema)]
pub struct SideBody {
    /// Whether a door opens by this side.
    pub allowed: bool,
    /// Since when; absent while nothing was heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub at: Option<String>,
    /// Of the decision; 0 while nothing was heard.
    pub version: i64,
}

impl From<decide::Side> for SideBody {
    fn from(side: decide::Side) -> Self {
        Self {
            allowed: side.allowed,
            at: side.at.map(|at| at.to_string()),
            version: side.version,
        }
    }
}

/// A door.
#[derive(Debug, Serialize, ToSchema)]
pub struct DoorBody {
    /// Kisi's id of the lock.
    pub lock_id: i64,
    /// Its name.
    pub name: String,
    /// Whether it is connected.
    pub online: bool,
}

impl From<contracts::integration::v1::GroupDoor> for DoorBody {
    fn from(door: contracts::integration::v1::GroupDoor) -> Self {
        Self {
            lock_id: door.lock_id,
            name: door.name,
            online: door.online,
        }
    }
}

/// One thing a member is told.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertBody {
    /// What it is about.
    #[schema(value_type = decide::AlertCode)]
    pub code: String,
    /// In words a member can act on.
    pub message: String,
    /// The way back in.
    pub action: ActionBody,
    /// Kisi's code, with `other`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kisi_code: Option<String>,
}

impl From<wire::Alert> for AlertBody {
    fn from(alert: wire::Alert) -> Self {
        let action = alert.action.unwrap_or_default();
        Self {
            code: alert.code,
            message: alert.message,
            action: ActionBody {
                kind: action.kind,
                url: action.url,
                at: instant(action.at),
            },
            kisi_code: alert.kisi_code,
        }
    }
}

/// A way back in.
#[derive(Debug, Serialize, ToSchema)]
pub struct ActionBody {
    /// `pay`, `resume`, `wait_until`, `fix_phone` or `contact_gym`.
    pub kind: String,
    /// With `pay`: the provider's page, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// With `wait_until`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub at: Option<String>,
}

/// A page of members.
#[derive(Debug, Serialize, ToSchema)]
pub struct MembersBody {
    /// The members.
    pub members: Vec<MemberBody>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
}

impl From<wire::ListMembersAccessResponse> for MembersBody {
    fn from(page: wire::ListMembersAccessResponse) -> Self {
        Self {
            members: page.members.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }
    }
}

/// A member in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct MemberBody {
    /// The member.
    pub member_id: String,
    /// Absent while membership-events does not answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Absent while membership-events does not answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub email: String,
    /// As on the member's page.
    #[schema(value_type = Status)]
    pub status: String,
    /// All reasons that hold.
    pub reasons: Vec<String>,
}

impl From<wire::MemberAccess> for MemberBody {
    fn from(member: wire::MemberAccess) -> Self {
        Self {
            member_id: member.member_id,
            name: member.name,
            email: member.email,
            status: member.status,
            reasons: member.reasons,
        }
    }
}

/// Opens a door.
#[derive(Debug, Deserialize, ToSchema)]
pub struct UnlockBody {
    /// Kisi's id of the lock.
    pub lock_id: i64,
    /// Where the phone is; passed on to Kisi and stored nowhere.
    pub location: Option<LocationBody>,
    /// What a reader at the door said to the phone; passed on.
    pub proximity_proof: Option<String>,
}

/// Where a phone is.
#[derive(Debug, Deserialize, ToSchema)]
pub struct LocationBody {
    /// Degrees, -90 to 90.
    pub latitude: f64,
    /// Degrees, -180 to 180.
    pub longitude: f64,
    /// How sure the phone is, in metres.
    pub accuracy_metres: Option<f64>,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnlockedBody {
    /// Whether Kisi accepted.
    pub unlocked: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert: Option<AlertBody>,
}

/// Asks to be resumed.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ResumeBody {
    /// Absent: whatever is paused.
    pub membership_id: Option<String>,
}

/// What came of a wish or a command.
#[derive(Debug, Serialize, ToSchema)]
pub struct OutcomeBody {
    /// `requested`, `resumed` or `queued`.
    pub outcome: String,
}

/// What the phone says of its own permissions.
#[derive(Debug, Deserialize, ToSchema)]
pub struct PermissionsBody {
    /// Whether the app may use Bluetooth.
    pub bluetooth: bool,
    /// Whether the app may know where the phone is.
    pub location: bool,
}

/// The alerts a phone's report makes.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertsBody {
    /// None when the phone allows all.
    pub alerts: Vec<AlertBody>,
}
