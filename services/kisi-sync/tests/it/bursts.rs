//! Many changes of one member at once, and what of them Kisi hears.

use std::ops::RangeInclusive;

use futures_util::future::join_all;

use crate::harness::{GYM, On, PLAN, SOON, Stage};
use crate::kisi::GROUP;

/// Changes in a row, with nothing between them, by turns let in and not, the first one as `opens` says.
async fn change(stage: &Stage, member: &str, versions: RangeInclusive<i64>, opens: bool) {
    let first = *versions.start();
    let changes = versions.map(|version| {
        let plans = match opens == ((version - first) % 2 == 0) {
            true => &[PLAN][..],
            false => &[][..],
        };
        stage.directory.decide(GYM, member, version, plans)
    });
    join_all(changes).await;
}

/// The first change finds nothing that waits, and goes at once; of the other nine only where they
/// end is written, if that is not what stands by then.
async fn the_first_change_goes_at_once_and_the_rest_is_one_write(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;

    stage.directory.decide(GYM, "m1", 2, &[]).await;
    testkit::eventually("the first one goes", SOON, async || {
        !stage.kisi.writes().await.is_empty()
    })
    .await;
    change(&stage, "m1", 3..=11, true).await;
    let is_back = |answer: &_| is_answered(answer, 11, 1);
    let last = stage.answer("m1", is_back).await;
    assert_eq!(last.outcome, "granted");
    let writes = stage.kisi.writes().await;
    assert_eq!(writes.len(), 2, "{writes:?}");
    assert!(writes[0].starts_with("DELETE /role_assignments/"));
    assert_eq!(writes[1], "POST /role_assignments");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);

    // Out, by itself; then in and out again ten times.
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    stage.answer("m2", |answer| is_answered(answer, 2, 0)).await;
    stage.kisi.forget_requests().await;
    change(&stage, "m2", 3..=12, true).await;
    stage
        .answer("m2", |answer| is_answered(answer, 12, 0))
        .await;
    let writes = stage.kisi.writes().await;
    // A grant at most, and the revoke of it, which does not wait for the end of a burst.
    assert!(writes.len() <= 2, "{writes:?}");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    stage.kisi.assert_nothing_was_refused().await;
    replica.stop().await;
}

fn is_answered(answer: &contracts::access::v1::AccessApplied, version: i64, grants: usize) -> bool {
    answer.version == version && answer.grants.len() == grants
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_change_goes_at_once_and_the_rest_is_one_write_on_sqlite() {
    the_first_change_goes_at_once_and_the_rest_is_one_write(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_change_goes_at_once_and_the_rest_is_one_write_on_postgres() {
    the_first_change_goes_at_once_and_the_rest_is_one_write(On::Postgres).await;
}

/// Between two requests there is time for all ten.
#[tokio::test(flavor = "multi_thread")]
async fn ten_changes_that_wait_for_their_turn_are_one_write_or_none() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    replica.stop().await;
    let slow = [("kisi-requests-per-second", "0.3")];
    let replica = stage.start_with(&slow).await;

    // The first request goes at once, and the next one more than three seconds later.
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    testkit::eventually("the pacer is busy", SOON, async || {
        stage.kisi.writes().await.len() == 1
    })
    .await;
    change(&stage, "m2", 2..=11, false).await;
    change(&stage, "m3", 2..=11, false).await;
    stage.directory.decide(GYM, "m3", 12, &[]).await;
    stage
        .answer("m2", |answer| is_answered(answer, 11, 1))
        .await;
    stage
        .answer("m3", |answer| is_answered(answer, 12, 0))
        .await;
    let writes = stage.kisi.writes().await;
    assert_eq!(writes.len(), 2, "one for m1, one for m3: {writes:?}");
    assert!(
        writes
            .iter()
            .all(|write| write.starts_with("DELETE /role_assignments/"))
    );
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}
