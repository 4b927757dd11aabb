//! The brake on the path of single events and of syncs: who may lose access now, counted over the
//! last hour and day, by class.
//!
//! The counts are rows of `losses`, written with the change itself; the copy in memory belongs to
//! the one worker of the gym and is read from them when it starts.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use access_domain::safety::{self, Class, Counts, Limits, Verdict};
use sea_orm::{ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder};

use crate::config::BrakeSettings;
use crate::store::{applied_grants, losses};

const HOUR: i64 = 3_600 * 1_000_000;
const DAY: i64 = 24 * HOUR;

/// The lines, as settings give them.
pub fn limits(settings: &BrakeSettings) -> Limits {
    Limits {
        unexplained_min: settings.brake_unexplained_min.into(),
        unexplained_hour_percent: settings.brake_unexplained_hour_percent.into(),
        unexplained_day_percent: settings.brake_unexplained_day_percent.into(),
        explained_min: settings.brake_explained_min.into(),
        explained_hour_percent: settings.brake_explained_hour_percent.into(),
        grants_min: settings.brake_grants_min.into(),
        grants_percent: settings.brake_grants_percent.into(),
    }
}

/// One gym's counts.
pub struct Brake {
    limits: Limits,
    counts: Mutex<Losses>,
}

struct Losses {
    /// Member and class to the instant of the last loss.
    lost: BTreeMap<(String, &'static str), i64>,
    /// Let go, and Kisi has not answered yet.
    going: HashSet<(String, &'static str)>,
    grants: u64,
    /// Rights made and removed here since the worker began, by group.
    writes: BTreeMap<i64, u64>,
}

impl Brake {
    /// The gym's last day, from the tables.
    pub async fn load(
        db: &DatabaseConnection,
        gym: &str,
        limits: Limits,
        now: i64,
    ) -> Result<Self, DbErr> {
        let rows = losses::Entity::find()
            .filter(losses::Column::GymId.eq(gym))
            .filter(losses::Column::LostAt.gt(now - DAY))
            // Of several the last one counts.
            .order_by_asc(losses::Column::LostAt)
            .all(db)
            .await?;
        let lost = rows
            .into_iter()
            .map(|row| ((row.member_id, class_of(&row.class)), row.lost_at))
            .collect();
        let brake = Self {
            limits,
            counts: Mutex::new(Losses {
                lost,
                going: HashSet::new(),
                grants: 0,
                writes: BTreeMap::new(),
            }),
        };
        brake.recount(db, gym).await?;
        Ok(brake)
    }

    /// How many rights the gym has now.
    pub async fn recount(&self, db: &DatabaseConnection, gym: &str) -> Result<u64, DbErr> {
        use sea_orm::PaginatorTrait;
        let grants = applied_grants::Entity::find()
            .filter(applied_grants::Column::GymId.eq(gym))
            .filter(applied_grants::Column::State.eq(applied_grants::STANDING))
            .count(db)
            .await?;
        self.lock().grants = grants;
        Ok(grants)
    }

    /// Lets one more member lose access, if that may be. Until what is answered is dropped the
    /// member counts as going: many may be on their way at once.
    pub fn let_go(self: &Arc<Self>, member: &str, class: &'static str, now: i64) -> Option<Going> {
        let mut counts = self.lock();
        if !counts.room(&[member.to_owned()], class, now, &self.limits) {
            return None;
        }
        let key = (member.to_owned(), class);
        counts.going.insert(key.clone());
        Some(Going {
            brake: Arc::clone(self),
            key,
        })
    }

    /// Whether all of these may lose access together. A member counts once in an hour.
    pub fn room(&self, members: &[String], class: &'static str, now: i64) -> bool {
        self.lock().room(members, class, now, &self.limits)
    }

    /// Whether a changed mapping may let in so many unconfirmed.
    pub fn may_let_in(&self, members: u64) -> bool {
        let seen = Counts {
            grants: self.lock().grants,
            ..Counts::default()
        };
        safety::check(Class::Grants, members, &seen, &self.limits) == Verdict::Go
    }

    /// A right of this group was made or removed.
    pub fn wrote(&self, group: i64) {
        *self.lock().writes.entry(group).or_default() += 1;
    }

    /// How many were, so far.
    pub fn writes(&self, group: i64) -> u64 {
        self.lock().writes.get(&group).copied().unwrap_or_default()
    }

    /// One right more.
    pub fn gained(&self) {
        self.lock().grants += 1;
    }

    /// One right less.
    pub fn removed(&self) {
        let mut counts = self.lock();
        counts.grants = counts.grants.saturating_sub(1);
    }

    /// One member has lost access, or may have.
    pub fn lost(&self, member: &str, class: &'static str, now: i64) {
        let mut counts = self.lock();
        counts.lost.insert((member.to_owned(), class), now);
        counts.lost.retain(|_, at| *at > now - DAY);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Losses> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Losses {
    fn room(&self, members: &[String], class: &'static str, now: i64, limits: &Limits) -> bool {
        let is_recent = |key: &(String, &'static str), span: i64| {
            self.lost.get(key).is_some_and(|at| *at > now - span)
        };
        let lost = |class: &'static str, span: i64| {
            let lost = self.lost.keys().filter(|key| key.1 == class);
            lost.filter(|key| is_recent(key, span)).count() as u64
        };
        let gone_or_going = |class: &'static str, span: i64| {
            let going = self.going.iter().filter(|key| key.1 == class);
            lost(class, span) + going.filter(|key| !is_recent(key, span)).count() as u64
        };
        let counts_already = |member: &String| {
            let key = (member.clone(), class);
            is_recent(&key, HOUR) || self.going.contains(&key)
        };
        let more = members.iter().filter(|member| !counts_already(member));
        let seen = Counts {
            // Those who went in the last hour still count into what the gym had.
            grants: self.grants + lost("explained", HOUR) + lost("unexplained", HOUR),
            unexplained_hour: gone_or_going("unexplained", HOUR),
            unexplained_day: gone_or_going("unexplained", DAY),
            explained_hour: gone_or_going("explained", HOUR),
        };
        let class = match class {
            "explained" => Class::Explained,
            _ => Class::Unexplained,
        };
        safety::check(class, more.count() as u64, &seen, limits) == Verdict::Go
    }
}

/// A member who was let go.
pub struct Going {
    brake: Arc<Brake>,
    key: (String, &'static str),
}

impl Drop for Going {
    fn drop(&mut self) {
        self.brake.lock().going.remove(&self.key);
    }
}

fn class_of(word: &str) -> &'static str {
    if word == "explained" {
        "explained"
    } else {
        "unexplained"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brake(grants: u64) -> Arc<Brake> {
        Arc::new(Brake {
            limits: Limits::default(),
            counts: Mutex::new(Losses {
                lost: BTreeMap::new(),
                going: HashSet::new(),
                grants,
                writes: BTreeMap::new(),
            }),
        })
    }

    fn members(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("m{i}")).collect()
    }

    #[test]
    fn unexplained_losses_stop_at_ten_or_five_percent() {
        let now = DAY * 10;
        assert!(brake(100).room(&members(10), "unexplained", now));
        assert!(!brake(100).room(&members(11), "unexplained", now));
        assert!(brake(1_000).room(&members(50), "unexplained", now));
        assert!(!brake(1_000).room(&members(60), "unexplained", now));
    }

    #[test]
    fn who_is_on_the_way_counts_until_the_answer_comes() {
        let now = DAY * 10;
        let brake = brake(100);
        let members = members(11);
        let going: Vec<_> = members
            .iter()
            .map(|member| brake.let_go(member, "unexplained", now))
            .collect();
        assert_eq!(going.iter().flatten().count(), 10);
        assert!(going[10].is_none());
        // Again the same is not one more; and without an answer nobody has gone.
        assert!(brake.let_go("m0", "unexplained", now).is_some());
        drop(going);
        assert!(brake.room(&members[..10], "unexplained", now));
    }

    #[test]
    fn a_billing_morning_goes_through_and_the_same_member_counts_once() {
        let now = DAY * 10;
        let brake = brake(1_000);
        for member in members(60) {
            assert!(brake.let_go(&member, "explained", now).is_some());
            brake.lost(&member, "explained", now);
            brake.removed();
        }
        for _ in 0..50 {
            brake.gained();
            assert!(brake.let_go("m0", "explained", now).is_some());
            brake.lost("m0", "explained", now);
            brake.removed();
        }
        assert!(brake.room(&members(300), "explained", now));
        assert!(!brake.room(&members(400), "explained", now));
        // An hour later the line is free again.
        assert!(brake.room(&members(200), "explained", now + HOUR + 1));
    }

    #[test]
    fn a_little_less_than_the_hour_allows_all_day_is_too_much() {
        let brake = brake(1_000);
        let mut lost = 0;
        let mut hour = 0;
        let stopped = loop {
            let now = DAY * 10 + hour * (HOUR + 1);
            // 4.9 percent of those who are left, for no reason of their own.
            let going = (1_000 - lost) * 49 / 1_000;
            let going: Vec<String> = (lost..lost + going).map(|i| format!("m{i}")).collect();
            if !brake.room(&going, "unexplained", now) {
                break hour;
            }
            for member in &going {
                brake.lost(member, "unexplained", now);
                brake.removed();
            }
            lost += going.len();
            hour += 1;
        };
        assert_eq!((stopped, lost), (2, 95));
        // A day later the line is free again; with reasons of their own they went all the time.
        let now = DAY * 10 + 2 * (HOUR + 1);
        let going: Vec<String> = (500..544).map(|i| format!("m{i}")).collect();
        assert!(brake.room(&going, "explained", now));
        assert!(brake.room(&going[..40], "unexplained", now + DAY));
    }
}
