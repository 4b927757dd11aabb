//! Streams and subjects of the bus.
//!
//! Every token is an id of the alphabet `[A-Za-z0-9_-]{1,64}`, checked where it entered, so that
//! no `.`, `*` or `>` can reach a subject.

/// What payment providers said; 30 days.
pub const BILLING: &str = "BILLING";
/// Each member's whole state; the last two per member.
pub const MEMBERSHIP: &str = "MEMBERSHIP";
/// Each member's outcome at Kisi; the last two per member.
pub const ACCESS: &str = "ACCESS";
/// Each gym's integration; the last two per gym.
pub const INTEGRATION: &str = "INTEGRATION";
/// What people want to be told; 7 days.
pub const NOTIFY: &str = "NOTIFY";
/// What could not be handled; 90 days.
pub const DEAD_LETTER: &str = "DEAD_LETTER";

/// All subjects of `BILLING`.
pub const BILLING_ALL: &str = "billing.v1.>";
/// All subjects of `MEMBERSHIP`.
pub const MEMBERSHIP_ALL: &str = "membership.v1.>";
/// All subjects of `ACCESS`.
pub const ACCESS_ALL: &str = "access.v1.>";
/// All subjects of `INTEGRATION`.
pub const INTEGRATION_ALL: &str = "integration.v1.>";
/// All subjects of `NOTIFY`.
pub const NOTIFY_ALL: &str = "notify.v1.>";
/// All subjects of `DEAD_LETTER`.
pub const DEAD_LETTER_ALL: &str = "dead.v1.>";

/// `billing.v1.{provider}.{account}.{kind}`
pub fn billing(provider: &str, account: &str, kind: &str) -> String {
    format!("billing.v1.{provider}.{account}.{kind}")
}

/// `membership.v1.{gym}.{member}`
pub fn membership(gym: &str, member: &str) -> String {
    format!("membership.v1.{gym}.{member}")
}

/// `access.v1.{gym}.{member}`
pub fn access(gym: &str, member: &str) -> String {
    format!("access.v1.{gym}.{member}")
}

/// `integration.v1.{gym}`
pub fn integration(gym: &str) -> String {
    format!("integration.v1.{gym}")
}

/// `notify.v1.{gym}.{kind}`
pub fn notify(gym: &str, kind: &str) -> String {
    format!("notify.v1.{gym}.{kind}")
}

/// `dead.v1.{stream}.{consumer}.{gym or _}`
pub fn dead_letter(stream: &str, consumer: &str, gym: Option<&str>) -> String {
    format!("dead.v1.{stream}.{consumer}.{}", gym.unwrap_or("_"))
}

/// The gym a subject is about, where it carries one: second token after the version of
/// `membership`, `access`, `integration` and `notify`.
pub fn gym_of(subject: &str) -> Option<&str> {
    let mut tokens = subject.split('.');
    match tokens.next()? {
        "membership" | "access" | "integration" | "notify" => tokens.nth(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gym_is_read_from_the_subjects_that_carry_one() {
        assert_eq!(gym_of(&membership("iron", "m_1")), Some("iron"));
        assert_eq!(gym_of(&access("iron", "m_1")), Some("iron"));
        assert_eq!(gym_of(&integration("iron")), Some("iron"));
        assert_eq!(gym_of(&notify("iron", "plan_held")), Some("iron"));
        assert_eq!(gym_of(&billing("stripe", "acct_1", "payment_failed")), None);
    }
}
