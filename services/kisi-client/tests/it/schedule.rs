//! The rules as a value: who is next, and not before when.

use std::time::Duration;

use kisi_client::Lane;
use kisi_client::pacing::Outcome;
use kisi_client::pacing::schedule::{Next, Schedule};
use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_millis(200);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Sends whatever is next as soon as it may go, and answers at once. Returns it and its instant.
fn send_next<W>(schedule: &mut Schedule<W>, mut now: Instant) -> (W, Instant) {
    loop {
        match schedule.next(now) {
            Next::Go(waiter) => {
                schedule.sent(now, 0.0);
                schedule.finished(now, Outcome::Answered);
                return (waiter, now);
            }
            Next::Wait(until) => now = until,
            Next::Nothing => panic!("nothing to send"),
        }
    }
}

/// The distance from a send at `now` to the next one.
fn distance(schedule: &mut Schedule<u32>, now: Instant) -> Duration {
    schedule.enqueue(Lane::Grant, 0);
    let (_, first) = send_next(schedule, now);
    schedule.enqueue(Lane::Grant, 0);
    let (_, second) = send_next(schedule, first);
    second - first
}

#[test]
fn an_idle_schedule_sends_at_once_and_then_within_the_band() {
    for (jitter, expected) in [(0.0, 210), (0.5, 215), (1.0, 220), (7.0, 220)] {
        let mut schedule = Schedule::new(5.0);
        let start = Instant::now();
        schedule.enqueue(Lane::Reconcile, 1);
        schedule.enqueue(Lane::Reconcile, 2);
        assert_eq!(schedule.next(start), Next::Go(1));
        schedule.sent(start, jitter);
        schedule.finished(start + ms(3), Outcome::Answered);
        assert_eq!(
            schedule.next(start + ms(3)),
            Next::Wait(start + ms(expected))
        );
        assert_eq!(schedule.next(start + ms(expected)), Next::Go(2));
    }
}

#[test]
fn the_distance_is_measured_between_sends_and_nobody_sends_while_one_is_in_flight() {
    let mut schedule = Schedule::new(5.0);
    let start = Instant::now();
    schedule.enqueue(Lane::Grant, 1);
    schedule.enqueue(Lane::Revoke, 2);
    schedule.enqueue(Lane::Revoke, 3);
    assert_eq!(schedule.next(start), Next::Go(2));
    // A last check took 40 ms, and the answer another second.
    schedule.sent(start + ms(40), 0.0);
    assert_eq!(schedule.next(start + ms(900)), Next::Nothing);
    schedule.finished(start + ms(1040), Outcome::Answered);
    assert_eq!(schedule.next(start + ms(1040)), Next::Go(3));
    // A send that turns out to have left later counts from there.
    schedule.sent(start + ms(1040), 0.0);
    schedule.sent(start + ms(1100), 0.0);
    schedule.finished(start + ms(1110), Outcome::Answered);
    assert_eq!(
        schedule.next(start + ms(1110)),
        Next::Wait(start + ms(1310))
    );
}

#[test]
fn a_waiting_revoke_is_always_next_and_lower_lanes_still_get_a_turn() {
    let mut schedule = Schedule::new(5.0);
    let mut now = Instant::now();
    for n in 0..40 {
        schedule.enqueue(Lane::Grant, ("grant", n));
        schedule.enqueue(Lane::Reconcile, ("reconcile", n));
    }
    schedule.enqueue(Lane::SetUp, ("set_up", 0));
    let mut order = Vec::new();
    for n in 0..40 {
        if n % 10 == 9 {
            schedule.enqueue(Lane::Revoke, ("revoke", n));
        }
        let (sent, at) = send_next(&mut schedule, now);
        now = at;
        assert_eq!(sent.0 == "revoke", n % 10 == 9, "turn {n} went to {sent:?}");
        order.push(sent.0);
    }
    let count = |lane| order.iter().filter(|sent| **sent == lane).count();
    assert_eq!(order[..8], ["grant"; 8]);
    assert_eq!(count("set_up"), 1);
    assert!((3..=5).contains(&count("reconcile")), "{order:?}");
    assert!(count("grant") >= 28, "{order:?}");
}

#[test]
fn a_429_without_a_time_pauses_every_lane_for_a_second_and_then_doubles() {
    let mut schedule = Schedule::new(5.0);
    let mut now = Instant::now();
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        schedule.enqueue(Lane::Revoke, 0);
        assert_eq!(schedule.next(now), Next::Go(0));
        schedule.sent(now, 0.0);
        schedule.finished(now, Outcome::RateLimited { retry_after: None });
        schedule.enqueue_first(Lane::Revoke, 1);
        let until = now + Duration::from_secs(seconds);
        assert_eq!(schedule.next(now), Next::Wait(until));
        assert_eq!(schedule.next(until), Next::Go(1));
        schedule.finished(until, Outcome::NoAnswer);
        now = until + ms(2000);
    }
    // An answer ends it: the next 429 begins with a second again.
    schedule.finished(now, Outcome::Answered);
    schedule.finished(now, Outcome::RateLimited { retry_after: None });
    schedule.enqueue(Lane::Revoke, 0);
    assert_eq!(schedule.next(now), Next::Wait(now + ms(1000)));
}

#[test]
fn a_time_that_kisi_names_is_kept_and_lengthened_only_when_it_proves_too_short() {
    let mut schedule = Schedule::new(5.0);
    let now = Instant::now();
    let told = |milliseconds| Outcome::RateLimited {
        retry_after: Some(ms(milliseconds)),
    };
    schedule.enqueue(Lane::Grant, 0);
    schedule.finished(now, told(300));
    assert_eq!(schedule.next(now), Next::Wait(now + ms(300)));
    // Refused again, although we waited as told: the backoff takes over.
    schedule.finished(now + ms(300), told(300));
    assert_eq!(schedule.next(now + ms(300)), Next::Wait(now + ms(1300)));
    schedule.finished(now + ms(1300), told(300));
    assert_eq!(schedule.next(now + ms(1300)), Next::Wait(now + ms(3300)));
    // A longer time than ours is kept; a senseless one is not.
    schedule.finished(now + ms(3300), told(90_000));
    assert_eq!(schedule.next(now + ms(3300)), Next::Wait(now + ms(93_300)));
    schedule.finished(now + ms(93_300), told(u64::MAX));
    let hour = now + ms(93_300) + Duration::from_secs(3600);
    assert_eq!(schedule.next(now + ms(93_300)), Next::Wait(hour));
}

#[test]
fn a_503_with_a_time_pauses_without_slowing_down() {
    let mut schedule = Schedule::new(5.0);
    let now = Instant::now();
    let retry_after = Duration::from_secs(3);
    schedule.enqueue(Lane::Grant, 0);
    schedule.finished(now, Outcome::Unavailable { retry_after });
    assert_eq!(schedule.next(now), Next::Wait(now + retry_after));
    send_next(&mut schedule, now);
    let later = now + Duration::from_secs(10);
    assert_eq!(distance(&mut schedule, later), INTERVAL.mul_f64(1.05));
}

#[test]
fn a_429_at_the_agreed_pace_slows_down_and_answers_win_the_pace_back() {
    let mut schedule = Schedule::new(5.0);
    let mut now = Instant::now();
    let agreed = INTERVAL.mul_f64(1.05);
    for _ in 0..3 {
        schedule.finished(now, Outcome::RateLimited { retry_after: None });
    }
    now += Duration::from_secs(60);
    let slowed = distance(&mut schedule, now);
    assert!(slowed > agreed.mul_f64(1.8), "{slowed:?}");
    for _ in 0..100 {
        schedule.finished(now, Outcome::RateLimited { retry_after: None });
    }
    now += Duration::from_secs(600);
    let slowest = distance(&mut schedule, now);
    assert!(slowest <= agreed.mul_f64(5.0), "{slowest:?}");
    for _ in 0..400 {
        schedule.finished(now, Outcome::Answered);
    }
    now += Duration::from_secs(600);
    assert_eq!(distance(&mut schedule, now), agreed);
}

#[test]
fn the_expected_wait_counts_what_is_at_least_as_urgent() {
    let mut schedule = Schedule::new(5.0);
    let now = Instant::now();
    for n in 0..200 {
        schedule.enqueue(Lane::Grant, n);
    }
    assert_eq!(schedule.expected_wait(Lane::Revoke, now), Duration::ZERO);
    assert_eq!(schedule.expected_wait(Lane::Grant, now), ms(200 * 220));
    assert_eq!(schedule.waiting(Lane::Grant), 200);
}
