//! The words people and programs are told: the status, and what an alert is about.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The sum of what is decided and what Kisi accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Decided and accepted.
    Granted,
    /// Decided, not accepted yet.
    Granting,
    /// Not allowed, and nothing stands at Kisi.
    Denied,
    /// Not allowed, and something stands at Kisi still.
    Revoking,
    /// The change waits for a person.
    Held,
}

impl Status {
    /// The words, in the order of the variants.
    pub const WORDS: [&'static str; 5] = ["granted", "granting", "denied", "revoking", "held"];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [
            Self::Granted,
            Self::Granting,
            Self::Denied,
            Self::Revoking,
            Self::Held,
        ]
        .into_iter()
        .find(|status| status.as_str() == word)
    }
}

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertCode {
    /// An open invoice.
    MissedPayment,
    /// A pause in force.
    MembershipPaused,
    /// The start is yet to come.
    MembershipNotStarted,
    /// No membership gives access any more.
    MembershipEnded,
    /// The plan opens no doors in Kisi.
    PlanWithoutAccess,
    /// Staff barred the member.
    BarredByStaff,
    /// The member has to sign up with Kisi first.
    KisiSignUpNeeded,
    /// Doors do not follow memberships now.
    IntegrationUnavailable,
    /// The e-mail belongs to somebody else in Kisi.
    IdentityConflict,
    /// Somebody opened the doors in Kisi by hand.
    OpenedByOthers,
    /// No phone is enrolled.
    DeviceNotEnrolled,
    /// Another phone is the primary one.
    NotPrimaryDevice,
    /// The door is closed at this hour.
    OutsideHours,
    /// The place is locked down.
    LockedDown,
    /// A door does not answer.
    DoorOffline,
    /// The person is suspended in Kisi.
    SuspendedInKisi,
    /// The phone does not allow Bluetooth.
    MissingPermissionBluetooth,
    /// The phone does not tell where it is.
    MissingPermissionLocation,
    /// Something else, with Kisi's code where there is one.
    Other,
}

impl AlertCode {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissedPayment => "missed_payment",
            Self::MembershipPaused => "membership_paused",
            Self::MembershipNotStarted => "membership_not_started",
            Self::MembershipEnded => "membership_ended",
            Self::PlanWithoutAccess => "plan_without_access",
            Self::BarredByStaff => "barred_by_staff",
            Self::KisiSignUpNeeded => "kisi_sign_up_needed",
            Self::IntegrationUnavailable => "integration_unavailable",
            Self::IdentityConflict => "identity_conflict",
            Self::OpenedByOthers => "opened_by_others",
            Self::DeviceNotEnrolled => "device_not_enrolled",
            Self::NotPrimaryDevice => "not_primary_device",
            Self::OutsideHours => "outside_hours",
            Self::LockedDown => "locked_down",
            Self::DoorOffline => "door_offline",
            Self::SuspendedInKisi => "suspended_in_kisi",
            Self::MissingPermissionBluetooth => "missing_permission_bluetooth",
            Self::MissingPermissionLocation => "missing_permission_location",
            Self::Other => "other",
        }
    }
}
