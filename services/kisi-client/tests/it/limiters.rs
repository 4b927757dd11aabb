//! The pace against every model of a limiter, in virtual time: thousands of requests, no waiting.
//!
//! The limiters are the simulator's own. The same over sockets is in `limited.rs`.

use std::time::Duration;

use kisi_client::Lane;
use kisi_client::pacing::Outcome;
use kisi_client::pacing::schedule::{Next, Schedule};
use kisi_simulator::limiter::{Budget, Limiter};
use kisi_simulator::settings::LimiterModel;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

const RATE: u32 = 5;

/// What a run of requests met.
struct Run {
    requests: u32,
    refused: u32,
    span: Duration,
}

impl Run {
    fn refused_share(&self) -> f64 {
        f64::from(self.refused) / f64::from(self.requests)
    }
}

/// Sends `requests`, each arriving after up to `jitter` on the way, in bursts with idle time
/// between them, to a server that allows `allowed` a second.
fn run(model: LimiterModel, seed: u64, requests: u32, jitter: Duration, allowed: u32) -> Run {
    let mut random = StdRng::seed_from_u64(seed);
    let mut limiter = Limiter::default();
    let mut schedule = Schedule::new(f64::from(RATE));
    let start = Instant::now();
    // The server's second begins anywhere inside ours.
    let offset = Duration::from_micros(random.random_range(0..1_000_000));
    let (mut now, mut refused) = (start, 0);
    for n in 0..requests {
        if n % 50 == 49 {
            now += Duration::from_millis(random.random_range(0..3000));
        }
        schedule.enqueue(Lane::ALL[n as usize % 4], n);
        loop {
            match schedule.next(now) {
                Next::Go(_) => break,
                Next::Wait(until) => now = until,
                Next::Nothing => unreachable!("one request waits and none is in flight"),
            }
        }
        schedule.sent(now, random.random());
        let arrived = now + jitter.mul_f64(random.random());
        let clock = (arrived - start + offset).as_micros() as i64;
        let admitted = limiter.admit(model, allowed, Budget::User(1), clock);
        now = arrived + Duration::from_millis(random.random_range(0..30));
        let outcome = if admitted {
            Outcome::Answered
        } else {
            refused += 1;
            Outcome::RateLimited { retry_after: None }
        };
        schedule.finished(now, outcome);
    }
    Run {
        requests,
        refused,
        span: now - start,
    }
}

const WITH_A_BURST: [LimiterModel; 4] = [
    LimiterModel::FixedWindow,
    LimiterModel::SlidingWindow,
    LimiterModel::SlidingWindowCountingRefused,
    LimiterModel::TokenBucket,
];

#[test]
fn no_model_with_a_burst_ever_answers_429_with_up_to_50_ms_of_jitter_on_the_way() {
    for model in WITH_A_BURST {
        for seed in 0..40 {
            let run = run(model, seed, 500, Duration::from_millis(50), RATE);
            assert_eq!(run.refused, 0, "{model:?}, seed {seed}");
            // And it is no slower than the band says: 500 requests, 220 ms each at most.
            assert!(run.span < Duration::from_secs(500 * 22 / 100 + 3 * 10 + 50));
        }
    }
}

#[test]
fn the_bucket_without_a_burst_never_answers_429_to_requests_that_arrive_evenly() {
    for seed in 0..40 {
        let run = run(LimiterModel::TokenBucket1, seed, 500, Duration::ZERO, RATE);
        assert_eq!(run.refused, 0, "seed {seed}");
    }
}

#[test]
fn a_limit_lower_than_we_were_told_is_found_and_kept_to() {
    for model in WITH_A_BURST.into_iter().chain([LimiterModel::TokenBucket1]) {
        let run = run(model, 7, 1000, Duration::ZERO, 3);
        assert!(run.refused > 0, "{model:?} should have refused at first");
        assert!(
            run.refused_share() < 0.06,
            "{model:?}: {} of {} refused",
            run.refused,
            run.requests
        );
    }
}
