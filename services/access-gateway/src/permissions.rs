//! What phones say of their own permissions.
//!
//! Kept in memory only, on purpose: a phone reports again whenever the app opens, and an old report
//! is worth nothing. Reports are forgotten after a day.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// After this a report is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// More members than this are not remembered, so that reports cannot fill the memory.
const MOST_REPORTS: usize = 20_000;

/// What one phone allows the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhonePermissions {
    /// Bluetooth.
    pub bluetooth: bool,
    /// Location.
    pub location: bool,
}

/// The last report per member.
#[derive(Debug, Default)]
pub struct PermissionReports(Mutex<HashMap<(String, String), (Timestamp, PhonePermissions)>>);

impl PermissionReports {
    /// Keeps a report. Nothing is kept of a phone that allows everything: there is nothing to say.
    pub fn report(&self, gym: &str, member: &str, phone: PhonePermissions, now: Timestamp) {
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (gym.to_owned(), member.to_owned());
        if phone.bluetooth && phone.location {
            reports.remove(&key);
            return;
        }
        if reports.len() >= MOST_REPORTS {
            reports.retain(|_, (at, _)| fresh(*at, now));
        }
        if reports.len() < MOST_REPORTS || reports.contains_key(&key) {
            reports.insert(key, (now, phone));
        }
    }

    /// The member's last report, unless it is old.
    pub fn of(&self, gym: &str, member: &str, now: Timestamp) -> Option<PhonePermissions> {
        let reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Most gyms have no report at all.
        if reports.is_empty() {
            return None;
        }
        let (at, phone) = reports.get(&(gym.to_owned(), member.to_owned()))?;
        fresh(*at, now).then_some(*phone)
    }
}

fn fresh(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at).unsigned_abs() < FORGET_AFTER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_is_shown_until_the_phone_allows_all_or_a_day_is_over() {
        let reports = PermissionReports::default();
        let now = Timestamp::UNIX_EPOCH;
        let lacking = PhonePermissions {
            bluetooth: false,
            location: true,
        };
        reports.report("iron", "m_1", lacking, now);
        assert_eq!(reports.of("iron", "m_1", now), Some(lacking));
        assert_eq!(reports.of("iron", "m_2", now), None);
        assert_eq!(reports.of("iron", "m_1", now + FORGET_AFTER), None);
        let all = PhonePermissions {
            bluetooth: true,
            location: true,
        };
        reports.report("iron", "m_1", all, now);
        assert_eq!(reports.of("iron", "m_1", now), None);
    }
}
