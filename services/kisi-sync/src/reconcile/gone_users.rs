//! Rights of ours that name nobody: their users may have been deleted at Kisi, and then get nothing by
//! them. Kisi is asked, and who is gone is made anew by this very pass.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kisi_client::{HttpKisi, KisiRead, Lane};
use sea_orm::TransactionTrait;

use super::{Pass, ReconcileError, View};
use crate::observe::Observed;
use crate::store::members::{self, CHANGED};

/// Users asked for in one pass; the others are by the next ones.
const ONE_BY_ONE: usize = 20;
/// A user is asked for again after this.
const DAILY: i64 = 24 * 3_600 * 1_000_000;

/// When users were last asked for, by gym and user; forgotten after a day.
#[derive(Default)]
pub struct AskedFor(Mutex<HashMap<(String, i64), i64>>);

impl AskedFor {
    /// Those of them whose turn it is.
    fn due(&self, gym: &str, users: &BTreeSet<i64>, now: i64) -> Vec<i64> {
        let mut asked = self.lock();
        asked.retain(|_, at| now - *at < DAILY);
        let due = users.iter().copied();
        let due = due.filter(|user| !asked.contains_key(&(gym.to_owned(), *user)));
        due.take(ONE_BY_ONE).collect()
    }

    fn note(&self, gym: &str, users: &[i64], now: i64) {
        let users = users.iter().map(|user| ((gym.to_owned(), *user), now));
        self.lock().extend(users);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, i64), i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Only who is gone is marked: a member who waits is left out of the plan. Where Kisi names nobody
    /// at all it says nothing.
    pub(super) async fn look_for_gone_users(
        &mut self,
        kisi: &HttpKisi,
        view: &View,
        observed: &Observed,
    ) -> Result<(), ReconcileError> {
        let rows = observed.of_nobody.iter().filter(|_| observed.names_users);
        let users: BTreeSet<i64> = rows.map(|row| row.kisi_user_id).collect();
        if users.is_empty() {
            return Ok(());
        }
        // Whoever has changed since the look began is left for the next pass.
        let mut moving = members::moved_since(&self.shared.db, &self.gym, self.began).await?;
        moving.extend(members::list_pending(&self.shared.db, &self.gym).await?);
        let holder = |user: i64| {
            let mut held = view.members.iter();
            let holder = held.find(|member| member.kisi_user_id == Some(user))?;
            (!moving.contains(&holder.member_id)).then(|| holder.member_id.clone())
        };
        let users = users.into_iter().filter(|user| holder(*user).is_some());
        let users: BTreeSet<i64> = users.collect();
        let due = self
            .shared
            .asked_for
            .due(&self.gym, &users, self.shared.now());
        let mut gone = Vec::new();
        for user in &due {
            self.report.requests += 1;
            if kisi.find_user(Lane::Reconcile, *user).await?.is_none() {
                gone.extend(holder(*user));
            }
        }
        let (cause, now) = (self.cause(), self.shared.now());
        if !gone.is_empty() {
            let txn = self.shared.db.begin().await?;
            if !self.lease.keep(&txn).await? {
                return Err(ReconcileError::NotOwner);
            }
            for member in &gone {
                members::set_person_digest(&txn, &self.gym, member, CHANGED).await?;
            }
            members::mark_pending(&txn, &self.gym, &gone, &cause, false, now).await?;
            txn.commit().await?;
        }
        self.shared.asked_for.note(&self.gym, &due, now);
        Ok(())
    }
}
