//! Whose turn it is: each run is made by one replica.
//!
//! A run is named by its slot, the instant at which it is due. The bucket holds the last slot and
//! whether it is being run or done. Whoever runs says every third of the expiry that it is still
//! there; a turn whose revision has stood still for the whole expiry, by the waiter's own watch and
//! so whatever the machines' clocks say, is taken over.
//!
//! This elects and does not exclude: a replica that was frozen may wake up beside its successor.
//! Then both ask the provider, and both publish under the same ids.

use std::time::Duration;

use event_bus::{Bucket, BucketError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

const KEY: &str = "turn";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Running,
    Done,
    /// Its replica stopped in the middle: whoever comes first may run it.
    GivenBack,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Written {
    slot: Timestamp,
    state: State,
}

/// An answer to [`Turns::take`].
pub enum Taken {
    /// Ours, until it is given up.
    Ours(Box<Turn>),
    /// Somebody has made this run.
    Over,
    /// Somebody makes a run. Ask again until it is over or its expiry has passed.
    Held,
}

/// The way to a turn. Remembers whose turn it saw last, and since when.
pub struct Turns {
    bucket: Bucket,
    expiry: Duration,
    seen: Option<(u64, Instant)>,
}

impl Turns {
    pub fn new(bucket: Bucket, expiry: Duration) -> Self {
        Self {
            bucket,
            expiry,
            seen: None,
        }
    }

    /// Takes the turn to run `slot`, unless somebody has it or has made that run.
    pub async fn take(&mut self, slot: Timestamp) -> Result<Taken, BucketError> {
        let found = self.bucket.read::<Written>(KEY).await?;
        let revision = found.map_or(0, |(_, revision)| revision);
        match found.map(|(written, _)| written) {
            Some(Written {
                state: State::Running,
                ..
            }) if !self.has_stood_still(revision) => return Ok(Taken::Held),
            Some(Written {
                slot: done,
                state: State::Done,
            }) if done >= slot => return Ok(Taken::Over),
            _ => {}
        }
        let mut turn = Turn {
            bucket: self.bucket.clone(),
            slot,
            revision,
        };
        match turn.write(State::Running).await {
            Ok(()) => Ok(Taken::Ours(Box::new(turn))),
            Err(BucketError::Conflict { .. }) => Ok(Taken::Held),
            Err(error) => Err(error),
        }
    }

    fn has_stood_still(&mut self, revision: u64) -> bool {
        match self.seen {
            Some((seen, since)) if seen == revision => since.elapsed() >= self.expiry,
            _ => {
                self.seen = Some((revision, Instant::now()));
                false
            }
        }
    }
}

/// The right to make one run.
pub struct Turn {
    bucket: Bucket,
    slot: Timestamp,
    revision: u64,
}

impl Turn {
    /// Keeps it, and ends when it is lost: taken over, or not to be renewed within its expiry.
    pub async fn keep(&mut self, expiry: Duration) {
        let mut kept_at = Instant::now();
        loop {
            tokio::time::sleep(expiry / 3).await;
            let asked_at = Instant::now();
            match tokio::time::timeout_at(kept_at + expiry, self.write(State::Running)).await {
                Ok(Ok(())) => kept_at = asked_at,
                Ok(Err(BucketError::Conflict { .. })) | Err(_) => return,
                Ok(Err(_)) => {}
            }
        }
    }

    /// The run is made: nobody needs to make it again.
    pub async fn done(mut self) -> Result<(), BucketError> {
        self.write(State::Done).await
    }

    /// The run is not made to its end, and somebody else should.
    pub async fn give_back(mut self) -> Result<(), BucketError> {
        self.write(State::GivenBack).await
    }

    async fn write(&mut self, state: State) -> Result<(), BucketError> {
        let written = Written {
            slot: self.slot,
            state,
        };
        self.revision = self.bucket.write(KEY, &written, self.revision).await?;
        Ok(())
    }
}
