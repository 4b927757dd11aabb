//! The alerts of a member: what is in the way, in words a member can act on, and the way back in.
//!
//! Entitlement's reasons are told only while no plan gives access: a paused second membership is no
//! news to somebody whose door opens. Denied without an alert cannot happen; the last rule sees to
//! it.

use contracts::integration::v1::GroupDoor;
use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::{Action, Alert, AlertCode, Status, entitled_groups, lacks_group};
use crate::facts::{Applied, Decided, GymFacts};
use crate::permissions::PhonePermissions;
use crate::words::{Failure, IntegrationState, MemberResume, Outcome, Reason};

/// What there is to judge by.
pub(super) struct Situation<'a> {
    pub gym: Option<&'a GymFacts>,
    pub decided: &'a Decided,
    pub applied: Option<&'a Applied>,
    pub status: Status,
    pub doors: &'a [GroupDoor],
    pub phone: Option<PhonePermissions>,
    pub now: Timestamp,
}

/// All alerts, the most telling first, each code once.
pub(super) fn alerts(situation: &Situation<'_>) -> Vec<Alert> {
    let mut alerts = Vec::new();
    let entitled = !entitled_groups(situation.gym, situation.decided, situation.now).is_empty();
    if !entitled {
        not_entitled(situation, &mut alerts);
    }
    if situation.status != Status::Granted {
        integration(situation, &mut alerts);
        outcome(situation, &mut alerts);
    }
    if entitled {
        sign_up(situation, &mut alerts);
    }
    opened_by_others(situation, &mut alerts);
    offline_doors(situation, &mut alerts);
    phone(situation, &mut alerts);
    if alerts.is_empty() && matches!(situation.status, Status::Denied | Status::Revoking) {
        alerts.push(alert(
            AlertCode::MembershipEnded,
            "You have no membership that opens these doors at the moment. Please talk to your gym.",
            Action::ContactGym,
        ));
    }
    let mut seen = std::collections::BTreeSet::new();
    alerts.retain(|alert| seen.insert(alert.code));
    alerts
}

fn not_entitled(situation: &Situation<'_>, alerts: &mut Vec<Alert>) {
    let decided = situation.decided;
    for reason in decided.reasons.iter() {
        match reason {
            Reason::BarredByStaff => alerts.push(alert(
                AlertCode::BarredByStaff,
                "Your gym has stopped your access for now. Please talk to the staff.",
                Action::ContactGym,
            )),
            Reason::MissedPayment => alerts.push(alert(
                AlertCode::MissedPayment,
                "A payment for your membership did not go through. Once it is paid, the doors open again at once.",
                Action::Pay(None),
            )),
            Reason::MembershipPaused => alerts.push(paused(situation)),
            Reason::MembershipNotStarted => alerts.push(not_started(decided)),
            Reason::MembershipEnded => alerts.push(alert(
                AlertCode::MembershipEnded,
                "Your membership has ended. Your gym can start a new one for you.",
                Action::ContactGym,
            )),
            Reason::Unknown => alerts.push(alert(
                AlertCode::Other,
                "Your membership does not open the doors at the moment. Please talk to your gym.",
                Action::ContactGym,
            )),
            // An override that lets in does not explain a closed door.
            Reason::LetInByStaff => {}
        }
    }
    // A bar says most, whatever else holds; the others keep their fixed order.
    alerts.sort_by_key(|alert| alert.code != AlertCode::BarredByStaff);
    if decided
        .plans
        .iter()
        .any(|plan| !plan.window.holds(situation.now))
        && alerts.is_empty()
    {
        // The plan's own end came before the message that says so.
        alerts.push(alert(
            AlertCode::MembershipEnded,
            "Your membership gives no access at the moment. Please talk to your gym.",
            Action::ContactGym,
        ));
    }
    let live = situation.gym.is_some_and(|gym| match gym.state {
        IntegrationState::NotActive => false,
        // It may need attention before its set-up is done.
        IntegrationState::NeedsAttention => !gym.groups_by_plan.is_empty(),
        IntegrationState::Syncing | IntegrationState::Active => true,
    });
    if live && lacks_group(situation.gym, decided, situation.now) {
        alerts.push(alert(
            AlertCode::PlanWithoutAccess,
            "Your membership is in good standing, but it does not include door access. Please ask your gym.",
            Action::ContactGym,
        ));
    }
}

fn paused(situation: &Situation<'_>) -> Alert {
    let decided = situation.decided;
    let back = decided
        .memberships
        .iter()
        .filter(|membership| membership.reasons.contains(Reason::MembershipPaused))
        .map(|membership| membership.paused_until);
    // An open-ended pause has no date; the earliest date of the others is the first way back in.
    let until = back.flatten().min();
    if let Some(day) = until {
        return alert(
            AlertCode::MembershipPaused,
            &format!("Your membership is paused. Your first day back is {day}."),
            Action::WaitUntil(first_instant(day, decided.changes_at)),
        );
    }
    let resume = situation
        .gym
        .map_or(MemberResume::default(), |gym| gym.member_resume);
    match resume {
        MemberResume::Off => alert(
            AlertCode::MembershipPaused,
            "Your membership is paused. Your gym can resume it for you.",
            Action::ContactGym,
        ),
        MemberResume::Request => alert(
            AlertCode::MembershipPaused,
            "Your membership is paused. You can ask to resume it; a charge may follow.",
            Action::Resume,
        ),
        MemberResume::Immediate => alert(
            AlertCode::MembershipPaused,
            "Your membership is paused. Resume it and the doors open again.",
            Action::Resume,
        ),
    }
}

fn not_started(decided: &Decided) -> Alert {
    let first = decided
        .memberships
        .iter()
        .filter(|membership| membership.reasons.contains(Reason::MembershipNotStarted))
        .filter_map(|membership| membership.starts_on)
        .min();
    match first {
        Some(day) => alert(
            AlertCode::MembershipNotStarted,
            &format!("Your membership starts on {day}."),
            Action::WaitUntil(first_instant(day, decided.changes_at)),
        ),
        None => alert(
            AlertCode::MembershipNotStarted,
            "Your membership has not started yet.",
            decided
                .changes_at
                .map_or(Action::ContactGym, Action::WaitUntil),
        ),
    }
}

/// The first instant of `day` in the gym's zone. The gateway does not know the zone, but
/// membership-events does, and `changes_at` is that instant whenever this day brings the next
/// change; else the day's beginning in UTC is near enough to wait for.
fn first_instant(day: Date, changes_at: Option<Timestamp>) -> Timestamp {
    let midnight = day
        .to_zoned_datetime(TimeZone::UTC)
        .map_or(Timestamp::MAX, |zoned| zoned.timestamp());
    changes_at
        // Zones reach from 12 hours behind UTC to 14 ahead.
        .filter(|at| (at.as_second() - midnight.as_second()).abs() <= 15 * 3_600)
        .unwrap_or(midnight)
}

fn integration(situation: &Situation<'_>, alerts: &mut Vec<Alert>) {
    let message = match situation.gym {
        None => "Your gym's doors are not connected yet.",
        Some(gym) => match gym.state {
            IntegrationState::NotActive => "Your gym's doors are not connected yet.",
            IntegrationState::NeedsAttention if gym.groups_by_plan.is_empty() => {
                "Your gym's doors are not connected yet."
            }
            IntegrationState::NeedsAttention if situation.status != Status::Denied => {
                "The connection to your gym's doors needs attention, so changes may take a while."
            }
            _ => return,
        },
    };
    alerts.push(alert(
        AlertCode::IntegrationUnavailable,
        message,
        Action::ContactGym,
    ));
}

/// What kisi-sync said of the decision that stands.
fn outcome(situation: &Situation<'_>, alerts: &mut Vec<Alert>) {
    let Some(applied) = situation.applied else {
        return;
    };
    if !matches!(applied.outcome, Outcome::Held | Outcome::Failed)
        || applied.version < situation.decided.version
    {
        return;
    }
    let found = match applied.failure {
        Some(Failure::IdentityConflict) => alert(
            AlertCode::IdentityConflict,
            "Your e-mail address is used by somebody else in the door system. Your gym can settle it.",
            Action::ContactGym,
        ),
        Some(Failure::NoAssociation) => alert(
            AlertCode::PlanWithoutAccess,
            "Your membership is in good standing, but it does not include door access. Please ask your gym.",
            Action::ContactGym,
        ),
        Some(
            Failure::KisiUnreachable
            | Failure::KeyInvalid
            | Failure::GroupMissing
            | Failure::NotSetUp,
        ) => alert(
            AlertCode::IntegrationUnavailable,
            "The door system does not answer your gym at the moment. We keep trying.",
            Action::ContactGym,
        ),
        Some(Failure::Brake) => alert(
            AlertCode::Other,
            "A change to your access waits for your gym to look at it.",
            Action::ContactGym,
        ),
        Some(Failure::KisiRefused | Failure::Unknown) | None => {
            let mut refused = alert(
                AlertCode::Other,
                "The door system did not accept a change to your access. Please talk to your gym.",
                Action::ContactGym,
            );
            refused.kisi_code = applied.kisi_code.as_deref().map(str::to_owned);
            refused
        }
    };
    alerts.push(found);
}

/// A regular user opens no door by the phone before the invitation was followed.
fn sign_up(situation: &Situation<'_>, alerts: &mut Vec<Alert>) {
    if situation
        .applied
        .is_some_and(|applied| applied.sign_up_needed)
    {
        alerts.push(alert(
            AlertCode::KisiSignUpNeeded,
            "Kisi, the door system, has sent you an e-mail: follow its link and sign up, and the doors open with the Kisi app. If you cannot find the e-mail, your gym can help.",
            Action::ContactGym,
        ));
    }
}

fn opened_by_others(situation: &Situation<'_>, alerts: &mut Vec<Alert>) {
    let by_hand = situation
        .applied
        .is_some_and(|applied| !applied.opened_by_others.is_empty());
    let elsewhere = situation
        .applied
        .is_some_and(|applied| !applied.opened_elsewhere.is_empty());
    if elsewhere && !by_hand {
        alerts.push(alert(
            AlertCode::OpenedByOthers,
            "Somebody at your gym opened some of these doors for you in the door system by another way; that is not changed here.",
            Action::ContactGym,
        ));
    }
    if by_hand {
        alerts.push(alert(
            AlertCode::OpenedByOthers,
            "Somebody at your gym opened doors for you in the door system by hand; that is not changed here.",
            Action::ContactGym,
        ));
    }
}

fn offline_doors(situation: &Situation<'_>, alerts: &mut Vec<Alert>) {
    let names: Vec<&str> = situation
        .doors
        .iter()
        .filter(|door| !door.online)
        .map(|door| door.name.as_str())
        .collect();
    if !names.is_empty() {
        alerts.push(alert(
            AlertCode::DoorOffline,
            &format!(
                "Not connected at the moment, so the app may not open it: {}.",
                names.join(", ")
            ),
            Action::ContactGym,
        ));
    }
}

fn phone(situation: &Situation<'_>, alerts: &mut Vec<Alert>) {
    let Some(phone) = situation.phone else {
        return;
    };
    if !phone.bluetooth {
        alerts.push(alert(
            AlertCode::MissingPermissionBluetooth,
            "Allow Bluetooth for the app in your phone's settings.",
            Action::FixPhone,
        ));
    }
    if !phone.location {
        alerts.push(alert(
            AlertCode::MissingPermissionLocation,
            "Allow location for the app in your phone's settings.",
            Action::FixPhone,
        ));
    }
}

fn alert(code: AlertCode, message: &str, action: Action) -> Alert {
    Alert {
        code,
        message: message.to_owned(),
        action,
        kisi_code: None,
    }
}
