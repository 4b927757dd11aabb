//! JSON of dead letters.

use contracts::integration::v1 as wire;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::instant;

/// Messages that could not be handled, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLettersBody {
    /// One page.
    pub dead_letters: Vec<DeadLetterBody>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
}

impl From<wire::ListDeadLettersResponse> for DeadLettersBody {
    fn from(page: wire::ListDeadLettersResponse) -> Self {
        Self {
            dead_letters: super::list(page.dead_letters),
            next_page_token: page.next_page_token,
        }
    }
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterBody {
    /// For replaying it.
    pub id: i64,
    /// The stream it came from.
    pub stream: String,
    /// The consumer that gave it up, and gets it again.
    pub consumer: String,
    /// Why.
    pub cause: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When it was set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub at: Option<String>,
    /// The message's own id.
    pub message_id: String,
}

impl From<wire::DeadLetter> for DeadLetterBody {
    fn from(letter: wire::DeadLetter) -> Self {
        Self {
            id: letter.id,
            stream: letter.stream,
            consumer: letter.consumer,
            cause: letter.cause,
            attempts: letter.attempts,
            at: instant(letter.at),
            message_id: letter.message_id,
        }
    }
}

/// Which to replay.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ReplayBody {
    /// All of the gym's, when left out or empty.
    #[serde(default)]
    pub ids: Vec<i64>,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayedBody {
    /// How many were given to their consumers again.
    pub replayed: i64,
}
