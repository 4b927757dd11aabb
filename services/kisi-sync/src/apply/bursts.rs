//! Changes of one member that follow each other closely: the first is written at once, and of the
//! rest only where they end.
//!
//! A revoke never waits, because a door that should be shut is open meanwhile. A grant waits that
//! follows such a write within a second, as long as changes come less than [`CLOSE`] apart, and at
//! most until that second is over. So ten changes in a second are the first of them and, where
//! they end otherwise, one more.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Changes this close to each other belong together. People and providers are slower.
const CLOSE: Duration = Duration::from_millis(200);
/// For how long after a write another one may have to wait.
const SECOND: Duration = Duration::from_secs(1);
/// As many members are remembered before old ones are looked for.
const MANY: usize = 64;

/// One gym's.
#[derive(Debug, Default)]
pub struct Bursts {
    members: Mutex<HashMap<String, Burst>>,
    /// Rung at each change.
    rung: Notify,
}

#[derive(Debug, Default, Clone, Copy)]
struct Burst {
    changed: Option<Instant>,
    /// The change before that one came just before it.
    is_burst: bool,
    wrote: Option<Instant>,
}

impl Burst {
    /// Until when a grant waits.
    fn quiet_at(self, now: Instant) -> Option<Instant> {
        let (changed, wrote) = (self.changed?, self.wrote?);
        let until = (changed + CLOSE).min(wrote + SECOND);
        (self.is_burst && until > now).then_some(until)
    }

    fn is_over(self, now: Instant) -> bool {
        let last = self.changed.max(self.wrote);
        last.is_none_or(|last| now.saturating_duration_since(last) > SECOND)
    }
}

impl Bursts {
    /// Something was decided about the member.
    pub fn changed(&self, member: &str) {
        self.note(member, |burst, now| {
            let before = burst.changed.replace(now);
            burst.is_burst = before.is_some_and(|at| now.saturating_duration_since(at) < CLOSE);
        });
        self.rung.notify_waiters();
    }

    /// A right of the member's was given or taken.
    pub fn wrote(&self, member: &str) {
        self.note(member, |burst, now| burst.wrote = Some(now));
    }

    /// Waits until a grant may go, or until something else is decided about the member; false when
    /// there was nothing to wait for.
    pub async fn quiet(&self, member: &str) -> bool {
        let Some(until) = self.find(member).quiet_at(Instant::now()) else {
            return false;
        };
        let seen = self.find(member).changed;
        let newer = async {
            loop {
                let rung = self.rung.notified();
                if self.find(member).changed != seen {
                    return;
                }
                rung.await;
            }
        };
        let _ = tokio::time::timeout_at(until, newer).await;
        true
    }

    fn find(&self, member: &str) -> Burst {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.get(member).copied().unwrap_or_default()
    }

    fn note(&self, member: &str, note: impl FnOnce(&mut Burst, Instant)) {
        let now = Instant::now();
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if members.len() >= MANY {
            members.retain(|_, burst| !burst.is_over(now));
        }
        note(members.entry(member.to_owned()).or_default(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: &str = "m1";

    async fn after(millis: u64) {
        tokio::time::advance(Duration::from_millis(millis)).await;
    }

    /// How long a grant waits, unless something else is decided.
    async fn waits(bursts: &Bursts) -> u64 {
        let began = Instant::now();
        while bursts.quiet(MEMBER).await {}
        u64::try_from(began.elapsed().as_millis()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_change_never_waits() {
        let bursts = Bursts::default();
        bursts.changed(MEMBER);
        assert_eq!(waits(&bursts).await, 0);
        bursts.wrote(MEMBER);
        for _ in 0..3 {
            after(200).await;
            bursts.changed(MEMBER);
            assert_eq!(waits(&bursts).await, 0);
            bursts.wrote(MEMBER);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changes_that_led_to_nothing_keep_nobody_waiting() {
        let bursts = Bursts::default();
        for _ in 0..3 {
            bursts.changed(MEMBER);
            after(10).await;
        }
        assert_eq!(waits(&bursts).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_burst_a_grant_waits_until_it_is_quiet_and_at_most_a_second() {
        let bursts = Bursts::default();
        bursts.changed(MEMBER);
        bursts.wrote(MEMBER);
        after(100).await;
        bursts.changed(MEMBER);
        bursts.changed("m2");
        assert_eq!(waits(&bursts).await, 200);
        bursts.wrote(MEMBER);
        for _ in 0..9 {
            after(100).await;
            bursts.changed(MEMBER);
        }
        assert_eq!(waits(&bursts).await, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_of_something_newer_at_once() {
        let bursts = Bursts::default();
        bursts.wrote(MEMBER);
        bursts.changed(MEMBER);
        bursts.changed(MEMBER);
        let began = Instant::now();
        let newer = async {
            after(50).await;
            bursts.changed("m2");
            after(50).await;
            bursts.changed(MEMBER);
        };
        let (waited, ()) = tokio::join!(bursts.quiet(MEMBER), newer);
        assert!(waited);
        assert_eq!(began.elapsed(), Duration::from_millis(100));
    }

    #[test]
    fn old_bursts_are_forgotten() {
        let past = Instant::now() - Duration::from_secs(5);
        let bursts = Bursts::default();
        for member in 0..MANY {
            let burst = Burst {
                changed: Some(past),
                ..Burst::default()
            };
            let mut members = bursts.members.lock().unwrap();
            members.insert(member.to_string(), burst);
        }
        bursts.changed("m1000");
        assert_eq!(bursts.members.lock().unwrap().len(), 1);
    }
}
