//! JSON of explanations.

use contracts::access::v1 as wire;
use serde::Serialize;
use utoipa::ToSchema;

use super::instant;

/// Why, at an instant.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplanationBody {
    /// Whether a plan gave access, or will.
    pub allowed: bool,
    /// All reasons of a refusal.
    pub reasons: Vec<String>,
    /// Since when that held, or will hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub since: Option<String>,
    /// What brought it about, newest first.
    pub entries: Vec<EntryBody>,
}

impl From<wire::ExplainAccessResponse> for ExplanationBody {
    fn from(answer: wire::ExplainAccessResponse) -> Self {
        Self {
            allowed: answer.allowed,
            reasons: answer.reasons,
            since: instant(answer.since),
            entries: super::list(answer.entries),
        }
    }
}

/// Something that happened to a member.
#[derive(Debug, Serialize, ToSchema)]
pub struct EntryBody {
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub at: Option<String>,
    /// What.
    pub kind: String,
    /// In words.
    pub message: String,
    /// The event, call or date behind it.
    pub cause: String,
    /// Who; for members, of others only what they are.
    pub actor: String,
    /// Of the decision; absent where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
}

impl From<wire::TimelineEntry> for EntryBody {
    fn from(entry: wire::TimelineEntry) -> Self {
        Self {
            at: instant(entry.at),
            kind: entry.kind,
            message: entry.message,
            cause: entry.cause,
            actor: entry.actor,
            version: Some(entry.version).filter(|version| *version > 0),
        }
    }
}
