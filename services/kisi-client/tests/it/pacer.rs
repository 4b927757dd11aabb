//! The pacer on tokio's clock, which stands still but for what is waited for.

use std::sync::Arc;
use std::time::Duration;

use kisi_client::pacing::Outcome;
use kisi_client::{Lane, Pacer, PacerSettings};
use tokio::sync::mpsc;
use tokio::time::Instant;

fn pacer() -> Arc<Pacer> {
    let settings = PacerSettings {
        requests_per_second: 5.0,
    };
    Pacer::with_jitter(settings, Box::new(|| 0.5))
}

/// Takes a turn, sends, and has its answer 30 ms later.
async fn request(pacer: &Arc<Pacer>, lane: Lane) -> Instant {
    let mut turn = pacer.turn(lane).await;
    let sent_at = Instant::now();
    turn.sent(sent_at);
    tokio::time::sleep(Duration::from_millis(30)).await;
    turn.finish(Outcome::Answered);
    sent_at
}

#[tokio::test(start_paused = true)]
async fn an_idle_pacer_lets_a_request_out_with_no_delay() {
    let pacer = pacer();
    for lane in Lane::ALL {
        let began = Instant::now();
        assert_eq!(request(&pacer, lane).await, began);
        tokio::time::sleep(Duration::from_millis(215)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoke_that_joins_behind_200_grants_is_the_next_request_out() {
    let pacer = pacer();
    let (sent, mut order) = mpsc::unbounded_channel();
    let join = |lane: Lane, name: String| {
        let (pacer, sent) = (Arc::clone(&pacer), sent.clone());
        tokio::spawn(async move {
            let at = request(&pacer, lane).await;
            sent.send((name, at)).ok();
        })
    };
    for n in 0..200 {
        join(Lane::Grant, format!("grant {n}"));
    }
    for _ in 0..20 {
        order.recv().await.expect("a grant goes out");
    }
    // The twentieth is answered, the next grant waits for its moment only.
    tokio::time::sleep(Duration::from_millis(100)).await;
    join(Lane::Revoke, "revoke".to_owned());
    let (name, _) = order.recv().await.expect("the next one out");
    assert_eq!(name, "revoke");
    assert_eq!(pacer.waiting(Lane::Grant), 180);
}

#[tokio::test(start_paused = true)]
async fn sends_are_evenly_apart_and_never_two_at_once_however_many_wait() {
    let pacer = pacer();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..60 {
        let pacer = Arc::clone(&pacer);
        tasks.spawn(async move { request(&pacer, Lane::ALL[n % 4]).await });
    }
    let mut sent = tasks.join_all().await;
    sent.sort();
    for pair in sent.windows(2) {
        let apart = pair[1] - pair[0];
        // Tokio's timers are late by up to a millisecond, never early.
        assert!(
            (215..=217).contains(&apart.as_millis()),
            "two sends {apart:?} apart"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gave_up_waiting_holds_nobody_up() {
    let pacer = pacer();
    let held = pacer.turn(Lane::Grant).await;
    let gave_up = tokio::time::timeout(Duration::from_millis(5), pacer.turn(Lane::Revoke)).await;
    assert!(gave_up.is_err());
    let waiting = tokio::spawn({
        let pacer = Arc::clone(&pacer);
        async move { request(&pacer, Lane::Reconcile).await }
    });
    tokio::task::yield_now().await;
    let dropped_at = Instant::now();
    // Nothing was sent in the held turn, so the next one need not wait either.
    drop(held);
    assert_eq!(waiting.await.expect("its turn comes"), dropped_at);
}

#[tokio::test(start_paused = true)]
async fn a_request_abandoned_after_it_was_sent_still_counts_for_the_pace() {
    let pacer = pacer();
    let mut turn = pacer.turn(Lane::Grant).await;
    let sent_at = Instant::now();
    turn.sent(sent_at);
    drop(turn);
    let next = request(&pacer, Lane::Grant).await;
    assert!(next - sent_at >= Duration::from_millis(215));
}

#[tokio::test(start_paused = true)]
async fn a_429_pauses_those_who_wait_already() {
    let pacer = pacer();
    let mut turn = pacer.turn(Lane::Grant).await;
    turn.sent(Instant::now());
    let waiting = tokio::spawn({
        let pacer = Arc::clone(&pacer);
        async move { request(&pacer, Lane::Revoke).await }
    });
    tokio::task::yield_now().await;
    let refused_at = Instant::now();
    turn.finish(Outcome::RateLimited {
        retry_after: Some(Duration::from_secs(7)),
    });
    let apart = waiting.await.expect("its turn comes") - refused_at;
    assert!((7000..=7002).contains(&apart.as_millis()), "{apart:?}");
}
