#![doc = include_str!("../README.md")]

pub mod backoff;
pub mod bucket;
pub mod connect;
pub mod consume;
mod consumer_config;
pub mod dead_letter;
pub mod delivery;
mod dispatch;
pub mod disposition;
pub mod envelope;
mod feed;
pub mod group_commit;
pub mod metrics;
pub mod preflight;
pub mod projection;
pub mod publish;
mod sent_ids;
pub mod stored_ids;
pub mod topology;
pub mod trace_context;
mod worker;

pub use bucket::{Bucket, BucketError};
pub use connect::{Bus, BusError, NatsSettings};
pub use consume::Consumer;
pub use consumer_config::{ConsumerConfig, Ordering, StartAt};
pub use dead_letter::{DeadLetter, DeadLetterFilter, DeadLetters};
pub use delivery::Delivery;
pub use disposition::Disposition;
pub use envelope::Envelope;
pub use feed::OpenError;
pub use group_commit::GroupPublisher;
pub use projection::{Entry, Projection, ProjectionStatus};
pub use publish::{Ack, PendingAck, PublishError, Publisher};
pub use stored_ids::StoredIdsError;
