//! What was asked and answered, for tests to read.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// How many requests are remembered.
const KEPT: usize = 50_000;

/// One request and its answer.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    pub seq: u64,
    /// When it arrived.
    pub time: Timestamp,
    /// When its answer was ready.
    pub answered_at: Timestamp,
    /// The Kisi user whose budget it counts for.
    pub user_id: Option<i64>,
    pub method: String,
    /// Such as `/users/{id}`; empty for an unknown one.
    pub route: String,
    pub path: String,
    pub query: String,
    /// `None` when no answer was sent.
    pub status: Option<u16>,
    pub refused_by_limiter: bool,
    pub limiter: &'static str,
    /// What a strict reader of openapi.yaml objects to.
    pub note: Option<String>,
    pub request_headers: Vec<(String, String)>,
    pub request_body: Value,
    pub response_headers: Vec<(String, String)>,
    pub response_body: Value,
}

/// The log.
#[derive(Clone, Debug, Default)]
pub struct RequestLog {
    entries: VecDeque<Entry>,
    last: u64,
}

impl RequestLog {
    pub fn push(&mut self, mut entry: Entry) {
        self.last += 1;
        entry.seq = self.last;
        if self.entries.len() >= KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// Entries after `seq`, oldest first.
    pub fn since(&self, seq: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.seq > seq)
    }

    /// The newest entry's number.
    pub fn last(&self) -> u64 {
        self.last
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// One JSON object a line, for a validator of openapi.yaml outside.
    pub fn as_jsonl(&self) -> String {
        let mut text = String::new();
        for entry in &self.entries {
            let Some(status) = entry.status else { continue };
            let query = if entry.query.is_empty() {
                String::new()
            } else {
                format!("?{}", entry.query)
            };
            let line = serde_json::json!({
                "request": {
                    "method": entry.method, "url": format!("https://api.kisi.io{}{query}", entry.path),
                    "headers": entry.request_headers, "body": entry.request_body,
                },
                "response": {
                    "status": status, "headers": entry.response_headers, "body": entry.response_body,
                },
            });
            text.push_str(&line.to_string());
            text.push('\n');
        }
        text
    }
}
