//! The bucket: of two writers one finds out.

use event_bus::BucketError;
use serde_json::{Value, json};

use crate::start;

#[tokio::test]
async fn a_value_is_written_only_over_the_one_that_was_read() {
    let (mut nats, bus) = start().await;
    let bucket = bus.catchup_bucket();
    assert_eq!(bucket.read::<Value>("key").await.unwrap(), None);
    let first = bucket.write("key", &json!(1), 0).await.unwrap();
    let second = bucket.write("key", &json!(2), first).await.unwrap();
    for stale in [0, first, second + 1] {
        let refused = bucket.write("key", &json!(3), stale).await;
        assert!(
            matches!(refused, Err(BucketError::Conflict { .. })),
            "{refused:?}"
        );
    }
    let read = bucket.read::<Value>("key").await.unwrap();
    assert_eq!(read, Some((json!(2), second)));
    let odd = bucket.read::<String>("key").await;
    assert!(
        matches!(odd, Err(BucketError::Unreadable { .. })),
        "{odd:?}"
    );

    nats.restart().await.unwrap();
    let read = testkit::eventually_some("it answers again", crate::DEADLINE, async || {
        bucket.read::<Value>("key").await.ok()
    })
    .await;
    assert_eq!(read, Some((json!(2), second)), "it is on disk");
    nats.stop().await.unwrap();
    let unanswered = bucket.read::<Value>("key").await;
    assert!(
        matches!(unanswered, Err(BucketError::Unavailable { .. })),
        "{unanswered:?}"
    );
}
