//! The key that an engine speaks with: whether anything is sent with it any more, and whether a refusal
//! is of the key or of one thing.
//!
//! A 401 is of the key. A 403 may mean that its owner lost her rights, or that she has none to this
//! group, or that the Kisi plan has not: so it is asked whether she still has a role, once in a while
//! and not for each refusal.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use kisi_client::{KisiError, Lane};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Attempt, Engine};
use crate::error::Trouble;
use crate::key_check;
use crate::store::integrations;
use crate::worker::DeadKey;

/// For how long the answer about the owner's role holds.
const ANSWER_HOLDS: Duration = Duration::from_secs(10);

/// So many members in a row tell that a group is forbidden, and not a person.
const ENOUGH: u32 = 3;

/// One saved key of a gym.
#[derive(Debug)]
pub struct Key {
    /// As `integrations.key_version`.
    pub version: i64,
    owner: Option<i64>,
    /// Cancelled when nothing is sent with it any more.
    over: CancellationToken,
    died: OnceLock<DeadKey>,
    /// When its owner was last seen to have a role; held while that is asked.
    role_seen: tokio::sync::Mutex<Option<Instant>>,
    /// Groups that it was forbidden to give.
    forbidden: Mutex<HashMap<i64, Forbidden>>,
}

#[derive(Debug)]
struct Forbidden {
    /// The pass that asked.
    pass: String,
    /// Members in a row.
    members: u32,
    code: Option<String>,
}

impl Key {
    pub fn of(row: &integrations::Model) -> Self {
        Self {
            version: row.key_version,
            owner: row.owner_user_id,
            over: CancellationToken::new(),
            died: OnceLock::new(),
            role_seen: tokio::sync::Mutex::default(),
            forbidden: Mutex::default(),
        }
    }

    /// Another takes its place: whoever waits with it begins again with that one.
    pub fn end(&self) {
        self.over.cancel();
    }

    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Why Kisi does not take it any more.
    pub fn died(&self) -> Option<DeadKey> {
        self.died.get().copied()
    }

    /// Whoever waits with it does not ask Kisi for the same answer.
    fn die(&self, why: DeadKey) {
        let _ = self.died.set(why);
        self.over.cancel();
    }

    /// Kisi does not let it give somebody this group.
    pub(super) fn forbid(&self, attempt: &Attempt, group: i64, code: Option<String>) {
        if let Some(pass) = pass_of(attempt) {
            let mut all = self.forbidden();
            let before = all.get(&group).filter(|held| held.pass == pass);
            let forbidden = Forbidden {
                pass: pass.to_owned(),
                members: before.map_or(0, |held| held.members) + 1,
                code,
            };
            all.insert(group, forbidden);
        }
    }

    pub(super) fn allow(&self, group: i64) {
        self.forbidden().remove(&group);
    }

    /// Kisi's code, where this very pass was forbidden to give the group before: it asks no more.
    pub(super) fn is_forbidden(&self, attempt: &Attempt, group: i64) -> Option<Option<String>> {
        let pass = pass_of(attempt)?;
        let all = self.forbidden();
        let held = all.get(&group)?;
        (held.pass == pass && held.members >= ENOUGH).then(|| held.code.clone())
    }

    fn forbidden(&self) -> MutexGuard<'_, HashMap<i64, Forbidden>> {
        self.forbidden
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What looks at many members, some of whom stand for all; a change of one member asks for itself.
fn pass_of(attempt: &Attempt) -> Option<&str> {
    let cause = attempt.snapshot.member.look_cause.as_deref();
    cause.filter(|_| attempt.background)
}

impl Engine {
    /// A question to Kisi, given up as well when nothing is sent with the key any more.
    pub(super) async fn ask<T>(
        &self,
        read: impl Future<Output = Result<T, KisiError>>,
    ) -> Result<T, Trouble> {
        let answer = tokio::select! {
            answer = self.asking(read) => answer?,
            () = self.key.over() => return Err(Trouble::Paused),
        };
        self.heard(answer).await
    }

    /// The same before anything was changed that only the answer tells of: given up as well when what it
    /// is asked for is overtaken.
    pub(super) async fn ask_first<T>(
        &self,
        attempt: &Attempt,
        read: impl Future<Output = Result<T, KisiError>>,
    ) -> Result<T, Trouble> {
        tokio::select! {
            answer = self.ask(read) => answer,
            () = self.overtaken(attempt) => Err(Trouble::Superseded),
        }
    }

    /// An answer, or what it means that Kisi did not do it.
    pub(super) async fn heard<T>(&self, answer: Result<T, KisiError>) -> Result<T, Trouble> {
        match answer {
            Ok(answer) => {
                self.pause.hears();
                Ok(answer)
            }
            Err(error) => Err(self.trouble(error).await),
        }
    }

    /// Sorts what Kisi said: a 403 is of the key only if its owner has no role any more.
    pub(super) async fn trouble(&self, error: KisiError) -> Trouble {
        let trouble = match error.status() {
            Some(403) => match self.still_may().await {
                Ok(true) => Trouble::Refused {
                    failure: "kisi_refused",
                    code: error.code().map(str::to_owned),
                },
                Ok(false) => Trouble::KeyDead(error),
                Err(trouble) => trouble,
            },
            _ => Trouble::of(error),
        };
        if let Trouble::KeyDead(error) = &trouble {
            self.key.die(DeadKey::of(error));
        }
        trouble
    }

    async fn still_may(&self) -> Result<bool, Trouble> {
        let Some(owner) = self.key.owner else {
            return Ok(false);
        };
        let mut seen = self.key.role_seen.lock().await;
        if seen.is_some_and(|at| at.elapsed() < ANSWER_HOLDS) {
            return Ok(true);
        }
        let asked = tokio::select! {
            biased;
            () = self.key.over() => return Err(Trouble::Paused),
            asked = key_check::still_may(&self.kisi, Lane::Revoke, owner) => asked,
        };
        let may = asked.map_err(Trouble::of)?;
        if may {
            *seen = Some(Instant::now());
        } else {
            // Before the next one who waits for the answer asks.
            self.key.die(DeadKey::WithoutRights);
        }
        Ok(may)
    }
}
