//! The key that an engine speaks with: whether anything is sent with it any more.

use std::sync::OnceLock;

use kisi_client::KisiError;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::error::Trouble;
use crate::store::integrations;
use crate::worker::DeadKey;

/// One saved key of a gym.
#[derive(Debug)]
pub struct Key {
    /// As `integrations.key_version`.
    pub version: i64,
    /// Cancelled when nothing is sent with it any more.
    over: CancellationToken,
    died: OnceLock<DeadKey>,
}

impl Key {
    pub fn of(row: &integrations::Model) -> Self {
        Self {
            version: row.key_version,
            over: CancellationToken::new(),
            died: OnceLock::new(),
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

    /// An answer, or what it means that Kisi did not do it.
    pub(super) async fn heard<T>(&self, answer: Result<T, KisiError>) -> Result<T, Trouble> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.trouble(error).await),
        }
    }

    /// Sorts what Kisi said; a key that it refuses is over.
    pub(super) async fn trouble(&self, error: KisiError) -> Trouble {
        let trouble = Trouble::of(error);
        if let Trouble::KeyDead(error) = &trouble {
            self.key.die(DeadKey::of(error));
        }
        trouble
    }
}
