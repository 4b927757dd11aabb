//! The streams and the bucket, declared in code and created or verified at start.
//!
//! What can be changed on a running stream (limits, ages, replicas) is changed; what cannot
//! (storage, retention, a mode that undoes fsync) is an error that names stream and field, because
//! a service on a stream of another kind would make promises it cannot keep.

mod differences;
mod error;

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{Context, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::kv;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use differences::{adopt, differences, field_names, mismatch};
pub use error::TopologyError;

/// Billing events of the payment providers, 30 days.
pub const BILLING: &str = "BILLING";
/// Every member's whole state, last 2 per member.
pub const MEMBERSHIP: &str = "MEMBERSHIP";
/// Every member's outcome at Kisi, last 2 per member.
pub const ACCESS: &str = "ACCESS";
/// Every gym's associations and state, last 2 per gym.
pub const INTEGRATION: &str = "INTEGRATION";
/// Notifications to send, 7 days.
pub const NOTIFY: &str = "NOTIFY";
/// Messages set aside with their cause, 90 days.
pub const DEAD_LETTER: &str = "DEAD_LETTER";
/// The key-value bucket of the catch-up's cursor and turn.
pub const CATCHUP: &str = "CATCHUP";

/// The window in which a stream recognises a repeated `Nats-Msg-Id`.
pub const DEDUPE_WINDOW: Duration = Duration::from_secs(120);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const KIB: i32 = 1024;

/// The streams as they must be, with `replicas` copies of each message.
pub fn streams(replicas: usize) -> Vec<Config> {
    let base = |name: &str, subjects: &[&str]| Config {
        name: name.to_owned(),
        subjects: subjects
            .iter()
            .map(|subject| (*subject).to_owned())
            .collect(),
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        num_replicas: replicas,
        duplicate_window: DEDUPE_WINDOW,
        max_message_size: 256 * KIB,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        // Without room a publish is refused, and its sender keeps it; nothing unread is dropped.
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    let aged = |config: Config, days: u32| Config {
        max_age: DAY * days,
        ..config
    };
    let latest = |config: Config| Config {
        max_messages_per_subject: 2,
        discard: DiscardPolicy::Old,
        allow_direct: true,
        ..config
    };
    let dead_letter = Config {
        // The original message and its headers, with the cause beside them.
        max_message_size: 512 * KIB,
        ..base(DEAD_LETTER, &["dead.v1.>", "replay.v1.>"])
    };
    vec![
        // Webhooks that wait together share a disk flush.
        Config {
            allow_atomic_publish: true,
            ..aged(base(BILLING, &["billing.v1.>"]), 30)
        },
        // What an event or a midnight decides of many members does as well.
        Config {
            allow_atomic_publish: true,
            ..latest(base(MEMBERSHIP, &["membership.v1.>"]))
        },
        latest(base(ACCESS, &["access.v1.>"])),
        latest(base(INTEGRATION, &["integration.v1.>"])),
        aged(base(NOTIFY, &["notify.v1.>"]), 7),
        aged(dead_letter, 90),
    ]
}

/// Creates or verifies every stream and the bucket.
pub async fn declare(js: &Context, replicas: usize) -> Result<(), TopologyError> {
    for wanted in streams(replicas) {
        declare_stream(js, wanted).await?;
    }
    declare_bucket(js, replicas).await
}

/// Creates or verifies one stream.
pub async fn declare_stream(js: &Context, wanted: Config) -> Result<(), TopologyError> {
    let found = match js.get_stream(&wanted.name).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) if is_not_found(&error) => {
            let (stream, replicas) = (wanted.name.clone(), wanted.num_replicas);
            return js.create_stream(wanted).await.map(drop).map_err(|source| {
                TopologyError::Create {
                    stream,
                    replicas,
                    source,
                }
            });
        }
        Err(source) => {
            return Err(TopologyError::Lookup {
                stream: wanted.name,
                source,
            });
        }
    };
    if let Some(fixed) = differences(&found, &wanted).into_iter().find(|d| d.fixed) {
        return Err(mismatch(&wanted.name, &[fixed]));
    }
    let differing = differences(&found, &wanted);
    if differing.is_empty() {
        return Ok(());
    }
    let names = field_names(&differing);
    tracing::info!(stream = %wanted.name, fields = %names, "Stream {} is changed: {names}", wanted.name);
    let info = js
        .update_stream(adopt(found, &wanted))
        .await
        .map_err(|source| TopologyError::Update {
            stream: wanted.name.clone(),
            field: names,
            source,
        })?;
    match differences(&info.config, &wanted).as_slice() {
        [] => Ok(()),
        left => Err(mismatch(&wanted.name, left)),
    }
}

async fn declare_bucket(js: &Context, replicas: usize) -> Result<(), TopologyError> {
    js.create_or_update_key_value(kv::Config {
        bucket: CATCHUP.to_owned(),
        description: "The catch-up's cursor and turn".to_owned(),
        history: 5,
        storage: StorageType::File,
        num_replicas: replicas,
        ..kv::Config::default()
    })
    .await
    .map(drop)
    .map_err(TopologyError::Bucket)
}

fn is_not_found(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(inner)
        if inner.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// The gym a subject speaks of, where its stream's subjects name one.
pub fn gym_of_subject(subject: &str) -> Option<&str> {
    let mut tokens = subject.split('.');
    match (tokens.next(), tokens.next()) {
        (Some("membership" | "access" | "integration" | "notify"), Some(_)) => tokens.next(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gym_is_read_from_the_subjects_that_name_one() {
        assert_eq!(gym_of_subject("membership.v1.demo.m_1"), Some("demo"));
        assert_eq!(gym_of_subject("integration.v1.demo"), Some("demo"));
        assert_eq!(
            gym_of_subject("billing.v1.stripe.acct_a.payment_failed"),
            None
        );
    }
}
