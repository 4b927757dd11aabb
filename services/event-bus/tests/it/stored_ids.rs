//! Which ids a stream holds: all of those that were asked for, and none from before or elsewhere.

use std::collections::HashSet;

use event_bus::topology::BILLING;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use crate::{publish, start};

const FILTER: &str = "billing.v1.stripe.acct_a.*";

fn set(ids: impl IntoIterator<Item = String>) -> HashSet<String> {
    ids.into_iter().collect()
}

#[tokio::test]
async fn ids_are_found_by_subject_however_many_messages_lie_between() {
    let (_nats, bus) = start().await;
    let id = |n: usize| format!("id_{n}");
    join_all((0..1_300).map(|n| {
        let bus = bus.clone();
        async move {
            let kind = if n % 2 == 0 {
                "payment_failed"
            } else {
                "payment_succeeded"
            };
            publish(&bus, &format!("billing.v1.stripe.acct_a.{kind}"), &id(n)).await;
        }
    }))
    .await;
    publish(&bus, "billing.v1.stripe.acct_b.payment_failed", "elsewhere").await;
    let found = async |since, ids: &HashSet<String>| {
        bus.stored_ids(BILLING, FILTER, since, ids).await.unwrap()
    };
    let wanted = set([0, 1, 499, 500, 1_298, 1_299].map(id));
    let mut asked = wanted.clone();
    asked.extend(["elsewhere".to_owned(), "missing".to_owned()]);
    assert_eq!(found(Timestamp::UNIX_EPOCH, &asked).await, wanted);
    assert!(
        found(Timestamp::UNIX_EPOCH, &HashSet::new())
            .await
            .is_empty()
    );

    let mut stream = bus.jetstream().get_stream(BILLING).await.unwrap();
    let state = stream.info().await.unwrap().state.clone();
    let last = Timestamp::from_second(state.last_timestamp.unix_timestamp()).unwrap();
    let later = last + SignedDuration::from_secs(2);
    assert!(found(later, &asked).await.is_empty());
    assert_eq!(
        stream.info().await.unwrap().state.consumer_count,
        0,
        "none is left behind"
    );
}

#[tokio::test]
async fn a_stream_that_does_not_answer_is_no_empty_stream() {
    let (mut nats, bus) = start().await;
    publish(&bus, "billing.v1.stripe.acct_a.payment_failed", "id").await;
    nats.stop().await.unwrap();
    let asked = set(["id".to_owned()]);
    let found = bus
        .stored_ids(BILLING, FILTER, Timestamp::UNIX_EPOCH, &asked)
        .await;
    assert!(found.is_err(), "{found:?}");
}
