//! A stream as it is against a stream as it must be, field by field.

use async_nats::jetstream::stream::{Config, PersistenceMode};

use super::TopologyError;

pub(super) struct Difference {
    field: &'static str,
    found: String,
    wanted: String,
    /// Cannot be changed on a stream that exists.
    pub(super) fixed: bool,
}

pub(super) fn differences(found: &Config, wanted: &Config) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut compare = |field, found: String, wanted: String, fixed| {
        if found != wanted {
            all.push(Difference {
                field,
                found,
                wanted,
                fixed,
            });
        }
    };
    let sorted = |subjects: &[String]| {
        let mut subjects = subjects.to_vec();
        subjects.sort();
        format!("{subjects:?}")
    };
    macro_rules! each {
        ($($field:ident: $fixed:literal),* $(,)?) => {
            $(compare(stringify!($field), format!("{:?}", found.$field), format!("{:?}", wanted.$field), $fixed);)*
        };
    }
    each! {
        storage: true,
        retention: true,
        sealed: true,
        num_replicas: false,
        max_age: false,
        max_messages: false,
        max_bytes: false,
        max_messages_per_subject: false,
        max_message_size: false,
        discard: false,
        duplicate_window: false,
    }
    compare(
        "subjects",
        sorted(&found.subjects),
        sorted(&wanted.subjects),
        false,
    );
    // Where we need no batches, somebody else's may stay.
    let batches = found.allow_atomic_publish || !wanted.allow_atomic_publish;
    compare("allow_atomic", batches.to_string(), true.to_string(), false);
    // It acknowledges before the write, whatever the server's sync_interval says.
    let acks_early = found.persist_mode == Some(PersistenceMode::Async);
    compare("persist_mode", mode(acks_early), mode(false), true);
    all
}

fn mode(acks_early: bool) -> String {
    if acks_early { "async" } else { "default" }.to_owned()
}

/// What is there, with our fields put right: what others set beside them stays.
pub(super) fn adopt(found: Config, wanted: &Config) -> Config {
    Config {
        subjects: wanted.subjects.clone(),
        num_replicas: wanted.num_replicas,
        max_age: wanted.max_age,
        max_messages: wanted.max_messages,
        max_bytes: wanted.max_bytes,
        max_messages_per_subject: wanted.max_messages_per_subject,
        max_message_size: wanted.max_message_size,
        discard: wanted.discard,
        duplicate_window: wanted.duplicate_window,
        allow_atomic_publish: found.allow_atomic_publish || wanted.allow_atomic_publish,
        allow_direct: found.allow_direct || wanted.allow_direct,
        ..found
    }
}

pub(super) fn mismatch(stream: &str, fields: &[Difference]) -> TopologyError {
    let joined =
        |part: fn(&Difference) -> &str| fields.iter().map(part).collect::<Vec<_>>().join(", ");
    TopologyError::Mismatch {
        stream: stream.to_owned(),
        field: joined(|d| d.field),
        found: joined(|d| &d.found),
        wanted: joined(|d| &d.wanted),
    }
}

pub(super) fn field_names(fields: &[Difference]) -> String {
    fields
        .iter()
        .map(|d| d.field)
        .collect::<Vec<_>>()
        .join(", ")
}
