//! Members of whom something may have been sent to Kisi, and what came of it could not be written
//! down. Under the same lease nothing in the tables says so, so it is kept here until it is there.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sea_orm::{ActiveValue, ColumnTrait, DbErr, EntityTrait, QueryFilter};

use super::Engine;
use crate::store::applied_grants;

/// One gym's. Another owner needs none: the epoch of its lease is another.
#[derive(Debug, Default)]
pub struct Doubts(Mutex<HashSet<String>>);

impl Doubts {
    /// What was intended for the member may stand at Kisi.
    pub fn note(&self, member: &str) {
        self.lock().insert(member.to_owned());
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Where there is doubt, what was intended is looked for and not sent again. Answers whether
    /// there was: what was read of the member before is then behind the tables.
    pub(super) async fn clear_doubts(&self, member: &str) -> Result<bool, DbErr> {
        if !self.doubts.lock().contains(member) {
            return Ok(false);
        }
        let set = applied_grants::ActiveModel {
            state: ActiveValue::Set(applied_grants::UNKNOWN.to_owned()),
            ..Default::default()
        };
        applied_grants::Entity::update_many()
            .set(set)
            .filter(applied_grants::Column::GymId.eq(&self.gym))
            .filter(applied_grants::Column::MemberId.eq(member))
            .filter(applied_grants::Column::State.eq(applied_grants::INTENDED))
            .exec(&self.shared.db)
            .await?;
        self.doubts.lock().remove(member);
        Ok(true)
    }
}
