//! When a member could not be settled: who waits for what.

use std::time::Duration;

use kisi_client::KisiError;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, TransactionTrait};

use super::{Job, Urgency, Worker};
use crate::error::Trouble;
use crate::integration_state as state;
use crate::record::Outcome;
use crate::shared::Shared;
use crate::store::{key_checks, members};

/// What is unclear is looked at again so soon.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// At whom Kisi failed so often may be alone in that: it is asked whether it answers.
const DOUBTED_AFTER: u32 = 2;
/// Where it fails at so many, it is asked before anybody else is settled too. While there are fewer, that
/// would cost each of the others a request and gain nothing.
const ALL_AFTER: usize = 3;
/// Whoever is alone in that is tried again after a second, doubled with each failure so many times; and
/// not sooner than in so many seconds as there are such members, so that others have most of the pace.
const DOUBLED_UP_TO: u32 = 6;

/// A member at whom Kisi fails.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failing {
    /// How often; in an outage as often as makes it doubtful.
    times: u32,
    urgency: Urgency,
}

impl Failing {
    /// So often that she may be alone in that.
    pub(super) fn is_doubted(self) -> bool {
        self.times >= DOUBTED_AFTER
    }
}

impl Worker {
    pub(super) async fn troubled(
        &mut self,
        member: &str,
        urgency: Urgency,
        trouble: Trouble,
    ) -> Option<Outcome> {
        match trouble {
            Trouble::Superseded | Trouble::NotOwner => {}
            // It keeps its place before whatever comes meanwhile and is less urgent.
            Trouble::Paused | Trouble::KeyDead(_) => {
                self.queues.push(Job::look(member, urgency));
            }
            Trouble::Unreachable(error) => {
                let failing = self.fails_at(member, urgency);
                failing.times = Ord::max(failing.times, DOUBTED_AFTER.min(failing.times + 1));
                self.queues.push(Job::look(member, urgency));
                self.pause.begin();
                self.show_outage().await;
                tracing::warn!(gym.id = %self.gym, member.id = %member, error = %error,
                    "Kisi does not answer for gym {}; its work waits", self.gym);
            }
            Trouble::FailsAlone(error) => {
                let failing = self.fails_at(member, urgency);
                let more = failing.times.saturating_sub(DOUBTED_AFTER);
                failing.times = Ord::max(failing.times, DOUBTED_AFTER) + 1;
                let apart = Ord::max(1 << more.min(DOUBLED_UP_TO), self.failing.len() as u64);
                let apart = Duration::from_secs(apart);
                tracing::warn!(gym.id = %self.gym, member.id = %member, error = %error,
                    "Kisi answers, and fails at member {member}; nobody else waits for it");
                self.postpone(member, apart).await;
                self.answered().await;
            }
            Trouble::Refused { .. } => {}
            Trouble::Unclear | Trouble::Directory(_) | Trouble::Store(_) => {
                if let Trouble::Store(_) = &trouble {
                    // Kisi may have answered, and nothing says so.
                    self.doubts.note(member);
                }
                tracing::warn!(gym.id = %self.gym, member.id = %member, error = %trouble,
                    "Member {member} is tried again: {trouble}");
                self.postpone(member, RETRY_AFTER).await;
            }
        }
        None
    }

    /// A key that Kisi refuses is recorded, once, and nobody is kept waiting for the next one.
    pub(super) async fn note_dead_key(&mut self) {
        let key = self.engine.as_ref().map(|engine| &engine.key);
        let Some((version, why)) = key.and_then(|key| Some((key.version, key.died()?))) else {
            return;
        };
        self.engine = None;
        tracing::error!(gym.id = %self.gym, key.status = why.shown().0,
            "Kisi refuses the key of gym {}; its work waits", self.gym);
        if let Err(error) = key_died(&self.shared, &self.gym, version, why).await {
            tracing::error!(gym.id = %self.gym, error = %error, "The dead key cannot be recorded");
        }
        self.replies.clear();
    }

    /// An outage that lasts shows, once.
    async fn show_outage(&mut self) {
        let is_long = self.pause.lasted() >= self.shared.outage_shows_after;
        if !is_long || self.outage_shown == Some(true) {
            return;
        }
        let message = "Kisi does not answer: changes wait and are made when it does.";
        let shown = async {
            let txn = self.shared.db.begin().await?;
            let (gym, now) = (&self.gym, self.shared.now());
            state::attend(&txn, gym, "kisi_unreachable", "", message, "kisi", now).await?;
            txn.commit().await
        };
        let shown: Result<(), DbErr> = shown.await;
        match shown {
            Ok(()) => {
                self.outage_shown = Some(true);
                self.shared.outbox.notify_one();
            }
            Err(error) => {
                tracing::warn!(gym.id = %self.gym, error = %error, "An outage cannot be shown");
            }
        }
    }

    /// Kisi answers, whatever it fails at.
    pub(super) async fn answered(&mut self) {
        self.pause.end();
        if self.outage_shown == Some(false) {
            return;
        }
        let settled = async {
            let txn = self.shared.db.begin().await?;
            state::change(&txn, &self.gym, self.shared.now(), |row| {
                state::settle_attention(row, |matter| matter.what == "kisi_unreachable")
            })
            .await?;
            txn.commit().await
        };
        let settled: Result<(), DbErr> = settled.await;
        if settled.is_ok() {
            self.outage_shown = Some(false);
            self.shared.outbox.notify_one();
        }
    }

    fn fails_at(&mut self, member: &str, urgency: Urgency) -> &mut Failing {
        let first = Failing { times: 0, urgency };
        let failing = self.failing.entry(member.to_owned()).or_insert(first);
        failing.urgency = urgency;
        failing
    }

    /// Whether Kisi fails again and again: it is not known of whom, or at so many that it may fail at
    /// the next one too.
    pub(super) fn all_are_doubted(&self) -> bool {
        let failing = self.failing.values();
        let doubted = failing.filter(|failing| failing.is_doubted());
        self.pause.is_long() || doubted.take(ALL_AFTER).count() == ALL_AFTER
    }

    /// Whether it has failed at this one again and again.
    pub(super) fn is_doubted(&self, member: &str) -> bool {
        let failing = self.failing.get(member);
        failing.is_some_and(|failing| failing.is_doubted())
    }

    /// What it failed at it does again, and perhaps for the others too: they do not wait for their time.
    pub(super) fn try_the_failing(&mut self) {
        for (member, failing) in &self.failing {
            if !self.running.contains_key(member) {
                self.queues.push(Job::look(member, failing.urgency));
            }
        }
    }

    async fn postpone(&self, member: &str, by: Duration) {
        if self.again.contains_key(member) {
            // Something newer waits to be tried at once, and would be put off with this by a kill.
            return;
        }
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        let set = members::ActiveModel {
            retry_at: sea_orm::ActiveValue::Set(Some(self.shared.now().saturating_add(by))),
            ..Default::default()
        };
        let done = members::Entity::update_many()
            .set(set)
            .filter(members::Column::GymId.eq(&self.gym))
            .filter(members::Column::MemberId.eq(member))
            .exec(&self.shared.db)
            .await;
        if let Err(error) = done {
            tracing::warn!(gym.id = %self.gym, error = %error, "A retry cannot be put off");
        }
    }
}

/// Why a key does not work any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadKey {
    Refused,
    WithoutRights,
    /// It opens another organization than the one that the gym's rights are in.
    Elsewhere,
}

impl DeadKey {
    /// What Kisi's answer to it means.
    pub fn of(error: &KisiError) -> Self {
        match error.status() {
            Some(403) => Self::WithoutRights,
            _ => Self::Refused,
        }
    }

    /// The key's status, what needs attention, and the words for it.
    fn shown(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::WithoutRights => (
                "insufficient",
                "key_rights",
                "Kisi says that the key may not do this: give its owner administrator rights, or save another key.",
            ),
            Self::Refused => (
                "invalid",
                "key_invalid",
                "Kisi refuses the key: save another one.",
            ),
            Self::Elsewhere => (
                "invalid",
                "key_invalid",
                "The key opens another Kisi organization than before: save a key of the former one, or take the associations away first.",
            ),
        }
    }
}

/// The integration needs attention; its work waits for another key. One that was saved meanwhile is not
/// the one that died.
pub async fn key_died(
    shared: &Shared,
    gym: &str,
    key_version: i64,
    why: DeadKey,
) -> Result<(), DbErr> {
    let now = shared.now();
    let (status, what, message) = why.shown();
    let txn = shared.db.begin().await?;
    let mut before = None;
    state::change(&txn, gym, now, |row| {
        if row.key_version == key_version {
            before = Some(std::mem::replace(&mut row.key_status, status.to_owned()));
            row.key_checked_at = Some(now);
        }
        Ok(())
    })
    .await?;
    let Some(before) = before else {
        return Ok(());
    };
    key_checks::note_status(&txn, gym, &before, status, now).await?;
    state::attend(&txn, gym, what, "", message, "staff", now).await?;
    txn.commit().await?;
    shared.outbox.notify_one();
    Ok(())
}
