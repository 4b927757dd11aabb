//! The brake on the path of single events and of syncs: who may lose access now, counted over the
//! last hour and day, by class.
//!
//! The counts are rows of `losses`, written with the change itself; the copy in memory belongs to
//! the one worker of the gym and is read from them when it starts.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sea_orm::{ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter};

use crate::config::BrakeSettings;
use crate::store::{applied_grants, losses};

const HOUR: i64 = 3_600 * 1_000_000;
const DAY: i64 = 24 * HOUR;

/// The lines, as settings give them.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub unexplained_min: u64,
    pub unexplained_hour_percent: u64,
    pub unexplained_day_percent: u64,
    pub explained_min: u64,
    pub explained_hour_percent: u64,
    pub grants_min: u64,
    pub grants_percent: u64,
}

impl From<&BrakeSettings> for Limits {
    fn from(settings: &BrakeSettings) -> Self {
        Self {
            unexplained_min: settings.brake_unexplained_min.into(),
            unexplained_hour_percent: settings.brake_unexplained_hour_percent.into(),
            unexplained_day_percent: settings.brake_unexplained_day_percent.into(),
            explained_min: settings.brake_explained_min.into(),
            explained_hour_percent: settings.brake_explained_hour_percent.into(),
            grants_min: settings.brake_grants_min.into(),
            grants_percent: settings.brake_grants_percent.into(),
        }
    }
}

impl Limits {
    /// Most members of one class who may lose access within an hour.
    pub fn hour(&self, class: &str, grants: u64) -> u64 {
        match class {
            "explained" => self
                .explained_min
                .max(grants * self.explained_hour_percent / 100),
            _ => self
                .unexplained_min
                .max(grants * self.unexplained_hour_percent / 100),
        }
    }

    /// Most members without an explanation who may lose access within a day.
    pub fn day(&self, grants: u64) -> u64 {
        self.unexplained_min
            .max(grants * self.unexplained_day_percent / 100)
    }

    /// Most members whom a changed mapping may let in unconfirmed.
    pub fn grants(&self, grants: u64) -> u64 {
        self.grants_min.max(grants * self.grants_percent / 100)
    }
}

/// One gym's counts.
pub struct Brake {
    limits: Limits,
    counts: Mutex<Counts>,
}

struct Counts {
    /// Member and class to the instant of the last loss.
    lost: BTreeMap<(String, &'static str), i64>,
    grants: u64,
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
            .all(db)
            .await?;
        let lost = rows
            .into_iter()
            .map(|row| ((row.member_id, class_of(&row.class)), row.lost_at))
            .collect();
        let brake = Self {
            limits,
            counts: Mutex::new(Counts { lost, grants: 0 }),
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

    /// Whether one more member may lose access.
    pub fn lets_go(&self, member: &str, class: &'static str, now: i64) -> bool {
        self.room(&[member.to_owned()], class, now)
    }

    /// Whether all of these may lose access together.
    pub fn room(&self, members: &[String], class: &'static str, now: i64) -> bool {
        let counts = self.lock();
        // Those who went in the last hour still count into what the gym had.
        let within = |span: i64| {
            let recent = counts
                .lost
                .iter()
                .filter(|((_, known), at)| *known == class && **at > now - span);
            let new = members.iter().filter(|member| {
                !counts
                    .lost
                    .get(&((*member).clone(), class))
                    .is_some_and(|at| *at > now - span)
            });
            (recent.count() + new.count()) as u64
        };
        let hour = within(HOUR);
        let had = counts.grants + hour;
        let hour_holds = hour <= self.limits.hour(class, had);
        hour_holds && (class == "explained" || within(DAY) <= self.limits.day(had))
    }

    /// One member has lost access.
    pub fn lost(&self, member: &str, class: &'static str, now: i64) {
        let mut counts = self.lock();
        counts.lost.insert((member.to_owned(), class), now);
        counts.lost.retain(|_, at| *at > now - DAY);
        counts.grants = counts.grants.saturating_sub(1);
    }

    /// The lines.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn brake(grants: u64) -> Brake {
        Brake {
            limits: Limits {
                unexplained_min: 10,
                unexplained_hour_percent: 5,
                unexplained_day_percent: 15,
                explained_min: 100,
                explained_hour_percent: 30,
                grants_min: 50,
                grants_percent: 25,
            },
            counts: Mutex::new(Counts {
                lost: BTreeMap::new(),
                grants,
            }),
        }
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
    fn a_billing_morning_goes_through_and_the_same_member_counts_once() {
        let now = DAY * 10;
        let brake = brake(1_000);
        for member in members(60) {
            assert!(brake.lets_go(&member, "explained", now));
            brake.lost(&member, "explained", now);
        }
        for _ in 0..50 {
            assert!(brake.lets_go("m0", "explained", now));
            brake.lost("m0", "explained", now);
        }
        assert!(brake.room(&members(300), "explained", now));
        assert!(!brake.room(&members(400), "explained", now));
        // An hour later the line is free again.
        assert!(brake.room(&members(200), "explained", now + HOUR + 1));
    }
}
