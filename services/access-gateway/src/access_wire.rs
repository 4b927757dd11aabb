//! From what was decided to the messages of `gymflow.access.v1`.

use contracts::access::v1 as wire;
use contracts::integration::v1::GroupDoor;
use contracts::wire::timestamp;

use crate::decide::{Access, Action, Alert, Side};

/// A member's page as a message.
pub fn access_status(gym: &str, member: &str, access: Access) -> wire::AccessStatus {
    wire::AccessStatus {
        gym_id: gym.to_owned(),
        member_id: member.to_owned(),
        status: access.status.as_str().to_owned(),
        as_of: Some(timestamp(access.as_of)),
        decision: Some(access.decision.into()),
        applied: Some(access.applied.into()),
        doors: access.doors.into_iter().map(door).collect(),
        alerts: access.alerts.into_iter().map(Into::into).collect(),
    }
}

/// A door as a message.
pub fn door(door: GroupDoor) -> wire::Door {
    wire::Door {
        lock_id: door.lock_id,
        name: door.name,
        online: door.online,
    }
}

impl From<Side> for wire::Decision {
    fn from(side: Side) -> Self {
        Self {
            allowed: side.allowed,
            at: side.at.map(timestamp),
            version: side.version,
        }
    }
}

impl From<Alert> for wire::Alert {
    fn from(alert: Alert) -> Self {
        Self {
            code: alert.code.as_str().to_owned(),
            message: alert.message,
            action: Some(alert.action.into()),
            kisi_code: alert.kisi_code,
        }
    }
}

impl From<Action> for wire::Action {
    fn from(action: Action) -> Self {
        let (kind, url, at) = match action {
            Action::Pay(url) => ("pay", url, None),
            Action::Resume => ("resume", None, None),
            Action::WaitUntil(at) => ("wait_until", None, Some(timestamp(at))),
            Action::FixPhone => ("fix_phone", None, None),
            Action::ContactGym => ("contact_gym", None, None),
        };
        Self {
            kind: kind.to_owned(),
            url,
            at,
        }
    }
}
