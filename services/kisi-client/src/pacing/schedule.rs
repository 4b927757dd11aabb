//! The rules of pacing as a value: who is next, and not before when. No clock, no randomness.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The narrowest and the widest distance between two sends, in units of 1 ÷ rate. Requests sent
/// evenly can arrive closer together; five percent are the margin for that.
const MARGIN: f64 = 1.05;
const BAND: f64 = 0.05;
/// The first wait after a 429 that names no time; doubled for each one that follows.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// A `Retry-After` beyond this is taken for this: a wrong date must not stop a gym for a year.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Each 429 at the agreed pace widens the distance by this, each other answer takes some back.
/// Five is what Kisi advises for bulk work: a request a second.
const SLOW_DOWN: f64 = 1.25;
const SLOWEST: f64 = 5.0;
const RECOVER: f64 = 0.99;
/// After so many turns that passed it over, a lane below `Revoke` gets one.
const PATIENCE: u32 = 8;

/// How urgent a request is. A waiting revoke is always the next request out; the others follow in
/// this order, except that a lane passed over eight times in a row gets one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Doors that must close.
    Revoke,
    /// People waiting at a door.
    Grant,
    /// Staff waiting at a page.
    SetUp,
    /// Background work.
    Reconcile,
}

impl Lane {
    /// Most urgent first.
    pub const ALL: [Self; 4] = [Self::Revoke, Self::Grant, Self::SetUp, Self::Reconcile];

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Grant => "grant",
            Self::SetUp => "set_up",
            Self::Reconcile => "reconcile",
        }
    }
}

/// How a request ended, as far as pacing cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Any answer but those below.
    Answered,
    /// 429.
    RateLimited { retry_after: Option<Duration> },
    /// 503 with a time to wait.
    Unavailable { retry_after: Duration },
    /// Never sent, abandoned, or lost.
    NoAnswer,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<W> {
    /// This one may send; nobody else until it has finished.
    Go(W),
    /// Somebody waits, but not before this instant.
    Wait(Instant),
    /// Nobody waits, or one is in flight.
    Nothing,
}

/// The queue of one Kisi user.
#[derive(Debug)]
pub struct Schedule<W> {
    lanes: [VecDeque<W>; 4],
    passed_over: [u32; 4],
    in_flight: bool,
    interval: Duration,
    slow_down: f64,
    last_sent: Option<Instant>,
    not_before: Option<Instant>,
    paused_until: Option<Instant>,
    refusals: u32,
}

impl<W> Schedule<W> {
    /// `rate` in requests a second.
    pub fn new(rate: f64) -> Self {
        let rate = if rate.is_finite() {
            rate.max(0.01)
        } else {
            5.0
        };
        Self {
            lanes: Default::default(),
            passed_over: [0; 4],
            in_flight: false,
            interval: Duration::from_secs_f64(1.0 / rate),
            slow_down: 1.0,
            last_sent: None,
            not_before: None,
            paused_until: None,
            refusals: 0,
        }
    }

    pub fn enqueue(&mut self, lane: Lane, waiter: W) {
        self.lanes[lane as usize].push_back(waiter);
    }

    /// Ahead of all others in its lane.
    pub fn enqueue_first(&mut self, lane: Lane, waiter: W) {
        self.lanes[lane as usize].push_front(waiter);
    }

    pub fn waiting(&self, lane: Lane) -> usize {
        self.lanes[lane as usize].len()
    }

    /// Who sends now.
    pub fn next(&mut self, now: Instant) -> Next<W> {
        if self.in_flight {
            return Next::Nothing;
        }
        let Some(lane) = self.choose() else {
            return Next::Nothing;
        };
        if let Some(until) = self.not_before.max(self.paused_until)
            && until > now
        {
            return Next::Wait(until);
        }
        let Some(waiter) = self.lanes[lane].pop_front() else {
            return Next::Nothing;
        };
        for other in 0..self.lanes.len() {
            if other == lane || self.lanes[other].is_empty() {
                self.passed_over[other] = 0;
            } else if other > lane {
                self.passed_over[other] += 1;
            }
        }
        self.in_flight = true;
        Next::Go(waiter)
    }

    /// The most urgent lane, or one below it that has been passed over too often.
    fn choose(&self) -> Option<usize> {
        let first = self.lanes.iter().position(|lane| !lane.is_empty())?;
        if first == Lane::Revoke as usize {
            return Some(first);
        }
        let starved = (first + 1..self.lanes.len())
            .filter(|&lane| !self.lanes[lane].is_empty() && self.passed_over[lane] >= PATIENCE)
            .max_by_key(|&lane| self.passed_over[lane]);
        Some(starved.unwrap_or(first))
    }

    /// The request left at `at`; `jitter` in `0.0..1.0` places the next send inside the band.
    pub fn sent(&mut self, at: Instant, jitter: f64) {
        let at = self.last_sent.map_or(at, |last| last.max(at));
        self.last_sent = Some(at);
        let factor = (MARGIN + BAND * jitter.clamp(0.0, 1.0)) * self.slow_down;
        self.not_before = Some(at + self.interval.mul_f64(factor));
    }

    /// The one in flight has ended.
    pub fn finished(&mut self, now: Instant, outcome: Outcome) {
        self.in_flight = false;
        match outcome {
            Outcome::Answered => {
                self.refusals = 0;
                self.slow_down = (self.slow_down * RECOVER).max(1.0);
            }
            Outcome::RateLimited { retry_after } => {
                self.slow_down = (self.slow_down * SLOW_DOWN).min(SLOWEST);
                let backoff = self.backoff(retry_after.is_some());
                self.refusals = self.refusals.saturating_add(1);
                let told = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
                self.pause(now + told.max(backoff));
            }
            Outcome::Unavailable { retry_after } => {
                self.pause(now + retry_after.min(LONGEST_RETRY_AFTER));
            }
            Outcome::NoAnswer => {}
        }
    }

    /// Doubling from the first 429 on; behind a `Retry-After` only from the second on, when what
    /// we were told has proved too short.
    fn backoff(&self, told: bool) -> Duration {
        let doublings = if told {
            match self.refusals.checked_sub(1) {
                Some(doublings) => doublings,
                None => return Duration::ZERO,
            }
        } else {
            self.refusals
        };
        FIRST_BACKOFF
            .saturating_mul(2u32.saturating_pow(doublings))
            .min(LONGEST_BACKOFF)
    }

    fn pause(&mut self, until: Instant) {
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// How long a newcomer to `lane` would wait.
    pub fn expected_wait(&self, lane: Lane, now: Instant) -> Duration {
        let ahead: usize = self.lanes[..=lane as usize].iter().map(VecDeque::len).sum();
        let first = self
            .not_before
            .max(self.paused_until)
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let each = self.interval.mul_f64((MARGIN + BAND) * self.slow_down);
        first + each.saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX))
    }
}
