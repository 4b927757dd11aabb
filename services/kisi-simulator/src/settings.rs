//! Every way in which Kisi might behave, as one value that the control side may change while the
//! simulator runs.
//!
//! What nobody could verify about Kisi (shared facts, "What nobody could verify") is a setting
//! here, so that a client can be tried against each answer. The defaults are the ones the facts
//! name. Network faults are not here: they are counted down, see `faults.rs`.

use serde::{Deserialize, Serialize};

/// How requests over the rate are recognised. All count per Kisi user, over all logins of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimiterModel {
    /// A counter per whole second of the simulator's clock.
    FixedWindow,
    /// A log of the last 1000 ms; refused requests do not enter it.
    SlidingWindow,
    /// A log of the last 1000 ms; refused requests enter it too, so hammering never recovers.
    SlidingWindowCountingRefused,
    /// Capacity = rate, refilled at the rate, full at first.
    TokenBucket,
    /// Capacity 1, refilled at the rate: no burst at all, the strictest reading.
    #[serde(rename = "token_bucket_1")]
    TokenBucket1,
    /// No limit.
    Off,
}

impl LimiterModel {
    /// The word used in settings, on the command line and in the request log.
    pub fn word(self) -> &'static str {
        match self {
            Self::FixedWindow => "fixed_window",
            Self::SlidingWindow => "sliding_window",
            Self::SlidingWindowCountingRefused => "sliding_window_counting_refused",
            Self::TokenBucket => "token_bucket",
            Self::TokenBucket1 => "token_bucket_1",
            Self::Off => "off",
        }
    }
}

impl std::str::FromStr for LimiterModel {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        serde_json::from_value(serde_json::Value::String(word.to_owned())).map_err(|_| {
            format!(
                "unknown limiter `{word}`: fixed_window, sliding_window, \
                 sliding_window_counting_refused, token_bucket, token_bucket_1 or off"
            )
        })
    }
}

/// Body of a 429. None is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalBody {
    Error,
    Empty,
    Html,
}

/// `Retry-After` of a 429. None is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    None,
    Seconds,
    Date,
}

/// Answer to a second user with the same e-mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DuplicateUser {
    #[serde(rename = "409")]
    Conflict,
    #[serde(rename = "422")]
    Unprocessable,
}

/// Answer to a second grant of the same assignee, target and role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DuplicateAssignment {
    #[serde(rename = "409")]
    Conflict,
    #[serde(rename = "new_row")]
    NewRow,
    #[serde(rename = "422")]
    Unprocessable,
    /// A new row where `valid_from` or `valid_until` differ, else 409.
    #[serde(rename = "new_row_if_window_differs")]
    NewRowIfWindowDiffers,
}

/// What PATCH of `valid_from` and `valid_until` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PatchWindow {
    #[serde(rename = "apply")]
    Apply,
    /// 204, and nothing changes.
    #[serde(rename = "ignore")]
    Ignore,
    #[serde(rename = "422")]
    Refuse,
}

/// What becomes of an assignment after its `valid_until`. It opens nothing in any mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiredListing {
    Stays,
    Hidden,
    Deleted,
}

/// What PATCH of a user's `metadata` does with keys that it does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatchMetadata {
    /// They are gone.
    Replace,
    /// They stay.
    Merge,
}

/// What becomes of the assignments of a user or on a group that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletedRights {
    Go,
    /// They are listed and can be deleted; they open nothing.
    Stay,
}

/// Answer to a `limit` or `offset` above its maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OverMaximum {
    #[serde(rename = "400")]
    Refuse,
    #[serde(rename = "clamp")]
    Clamp,
}

/// Order of delivery and its accidents, for event webhooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookMode {
    /// How often each delivery is sent again after the first time.
    pub repeat: u32,
    /// Deliver events in pairs, the later one first.
    pub reorder: bool,
    /// Milliseconds to wait before each delivery.
    pub delay_ms: u64,
    /// Every n-th event is lost; 1 loses all, 0 none.
    pub drop_every: u64,
    /// Failures in a row after which the integration is switched off; 0 never.
    pub disable_after_failures: u32,
}

impl Default for WebhookMode {
    fn default() -> Self {
        Self {
            repeat: 0,
            reorder: false,
            delay_ms: 0,
            drop_every: 0,
            disable_after_failures: 5,
        }
    }
}

/// All settings. `PUT /_simulator/settings` takes any subset and keeps the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub limiter: LimiterModel,
    /// Requests a second and user.
    pub rate: u32,
    pub refusal_body: RefusalBody,
    pub retry_after: RetryAfter,
    pub duplicate_users: DuplicateUser,
    /// `email=` finds an e-mail only in the case in which it is held, though a second one in another
    /// case is refused.
    pub email_by_case: bool,
    pub patch_metadata: PatchMetadata,
    pub deleted_rights: DeletedRights,
    pub duplicate_assignments: DuplicateAssignment,
    pub patch_window: PatchWindow,
    pub expired_listing: ExpiredListing,
    pub over_maximum: OverMaximum,
    /// Rows with the same sort key come in another order on each request. Without `sort` the key
    /// is then the name instead of the id.
    pub unstable_order: bool,
    /// Milliseconds for which a new user or member is not found by `query=`.
    pub query_lag_ms: u64,
    /// The same for `email=`, so that a duplicate is refused right after a search that found nobody.
    pub email_lag_ms: u64,
    /// Refuse what is not in openapi.yaml (422 for bodies, 400 for parameters).
    pub strict: bool,
    /// Status for a known path with another method: 404 or 405.
    pub wrong_method: u16,
    /// Status for a login that the control side revoked: 401 or 403.
    pub revoked_key: u16,
    /// Status for an API key whose user lost the rights to have one: 403 or 401; with 200 it answers
    /// still, with what that person may see.
    pub demoted_owner: u16,
    /// `notify` where an assignment is made without it.
    pub notify_default: bool,
    /// How often an event set answers `in_progress` to GET before it is finished.
    pub event_set_polls: u32,
    pub webhooks: WebhookMode,
    /// Milliseconds before a request arrives, and up to how many more at random.
    pub latency_ms: u64,
    pub jitter_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limiter: LimiterModel::FixedWindow,
            rate: 5,
            refusal_body: RefusalBody::Error,
            retry_after: RetryAfter::None,
            duplicate_users: DuplicateUser::Conflict,
            email_by_case: false,
            patch_metadata: PatchMetadata::Replace,
            deleted_rights: DeletedRights::Go,
            duplicate_assignments: DuplicateAssignment::Conflict,
            patch_window: PatchWindow::Apply,
            expired_listing: ExpiredListing::Stays,
            over_maximum: OverMaximum::Refuse,
            unstable_order: false,
            query_lag_ms: 0,
            email_lag_ms: 0,
            strict: true,
            wrong_method: 404,
            revoked_key: 401,
            demoted_owner: 403,
            notify_default: true,
            event_set_polls: 1,
            webhooks: WebhookMode::default(),
            latency_ms: 0,
            jitter_ms: 0,
        }
    }
}
