//! What the caller is told, and how it is known that the caller is still there.
//!
//! A caller who does not read must not stop the import: progress that finds no room is dropped. The
//! last message waits for room.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use contracts::membership::v1::ImportRosterProgress;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;

use crate::store::roster::imports::Import;

/// Rows between two messages.
const ROWS: i64 = 1_000;
/// Time between two messages.
const EVERY: Duration = Duration::from_secs(1);
/// How long a caller may take to read a message that has to arrive.
const READ: Duration = Duration::from_secs(30);

type Answer = Result<ImportRosterProgress, Status>;

/// The answers of one import.
pub type Answers = Pin<Box<dyn Stream<Item = Answer> + Send>>;

/// Our end of the answers.
#[derive(Debug)]
pub(super) struct Progress {
    answers: mpsc::Sender<Answer>,
    told: i64,
    next: Instant,
}

impl Progress {
    pub fn new() -> (Self, Answers) {
        // One place: what was put there second was put there after the first was taken.
        let (answers, mut taken) = mpsc::channel(1);
        let progress = Self {
            answers,
            told: 0,
            next: Instant::now() + EVERY,
        };
        let mut just_taken = false;
        // After each message the transport gets a look at the stream before it takes another one.
        let answers = futures_util::stream::poll_fn(move |cx| {
            if std::mem::take(&mut just_taken) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let answer = taken.poll_recv(cx);
            just_taken = answer.is_ready();
            answer
        });
        (progress, Box::pin(answers))
    }

    /// Tells how far it is, now and then. `rows` is what has been gone through in all.
    pub fn pass(&mut self, row: &Import, rows: i64) {
        if rows - self.told < ROWS && Instant::now() < self.next {
            return;
        }
        self.told = rows;
        self.next = Instant::now() + EVERY;
        let _ = self.answers.try_send(Ok(message(row)));
    }

    /// Tells how far it is, for certain where the caller reads.
    pub async fn tell(&self, row: &Import) {
        let told = self.answers.send(Ok(message(row)));
        let _ = tokio::time::timeout(READ, told).await;
    }

    /// The last word.
    pub async fn end(&self, answer: Answer) {
        let _ = tokio::time::timeout(READ, self.answers.send(answer)).await;
    }

    /// Resolves when the caller is known to be gone.
    pub async fn gone(&self) {
        self.answers.closed().await;
    }

    /// True when the caller is known to be gone.
    pub fn is_gone(&self) -> bool {
        self.answers.is_closed()
    }

    /// True once two messages that were sent from now on have been taken to be sent.
    ///
    /// This is how the end of a stream is told from a stream that was cut off: both look alike to
    /// whoever reads it, because a caller's reset ends the requests without an error. It also ends
    /// the answers, but perhaps a moment later. The transport looks for a reset each time before it
    /// takes an answer, so that the second one is taken only if none had come when the requests
    /// ended.
    pub async fn is_heard(&self, row: &Import) -> bool {
        let told = async {
            for _ in 0..2 {
                self.answers.send(Ok(message(row))).await.ok()?;
            }
            self.answers.reserve().await.ok().map(drop)
        };
        matches!(tokio::time::timeout(READ, told).await, Ok(Some(())))
    }
}

/// The import as its caller sees it.
pub(super) fn message(row: &Import) -> ImportRosterProgress {
    ImportRosterProgress {
        received: row.received,
        changed: match row.state.as_str() {
            "applying" => row.done,
            _ => row.changed,
        },
        unchanged: row.unchanged,
        missing: row.missing,
        state: row.state.clone(),
        digest: row.digest.clone(),
        left_alone: row.left_alone,
        ending: row.ending,
        allowed_missing: row.allowed,
    }
}
