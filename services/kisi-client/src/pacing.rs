//! The pace at which one Kisi user is spoken to, and who goes next.
//!
//! Kisi counts per user, not per key, and does not say how: fixed window, sliding window or token
//! bucket. One request in flight, and sends 1.05 to 1.10 ÷ rate apart, pass under all of them.
//! An idle pacer adds no delay. Who goes next is decided when the moment has come, not when the
//! caller began to wait, so a revoke is always the next request out.
//!
//! The rules are a pure value in [`schedule`], with time and randomness as arguments; here they
//! meet tokio's clock. Several processes with one Kisi user are deliberately not coordinated:
//! that is the caller's lease.

pub mod schedule;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use schedule::{Lane, Outcome};
use schedule::{Next, Schedule};

/// How fast, for one Kisi user.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PacerSettings {
    /// What Kisi allows: 5, unless they told you otherwise. Zero and less are taken as 0.01.
    pub requests_per_second: f64,
}

impl Default for PacerSettings {
    fn default() -> Self {
        Self {
            requests_per_second: 5.0,
        }
    }
}

/// Where the randomness between 1.05 and 1.10 comes from: values in `0.0..1.0`.
pub type Jitter = Box<dyn FnMut() -> f64 + Send>;

/// One per Kisi user, shared by everything that speaks for that user.
pub struct Pacer {
    state: Mutex<State>,
    runtime: OnceLock<Handle>,
    /// When an event set was last asked for; see [`Pacer::event_set_gate`].
    event_sets: tokio::sync::Mutex<Option<Instant>>,
}

/// `POST /event_sets` has a budget of its own besides: one a second.
const BETWEEN_EVENT_SETS: Duration = Duration::from_millis(1100);

struct State {
    schedule: Schedule<oneshot::Sender<Turn>>,
    jitter: Jitter,
    /// When the pending timer will look again.
    timer: Option<Instant>,
}

impl Pacer {
    /// A pacer with the process's own randomness.
    pub fn new(settings: PacerSettings) -> Arc<Self> {
        Self::with_jitter(settings, Box::new(rand::random::<f64>))
    }

    /// A pacer with given randomness.
    pub fn with_jitter(settings: PacerSettings, jitter: Jitter) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                schedule: Schedule::new(settings.requests_per_second),
                jitter,
                timer: None,
            }),
            runtime: OnceLock::new(),
            event_sets: tokio::sync::Mutex::new(None),
        })
    }

    /// Waits until a request may be sent, in the order of lanes. Dropping the future leaves the
    /// queue; dropping the [`Turn`] unsent lets the next one go at once.
    pub async fn turn(self: &Arc<Self>, lane: Lane) -> Turn {
        self.queue(|schedule, waiter| schedule.enqueue(lane, waiter), lane)
            .await
    }

    /// The same at the head of the lane, for a request that was refused in its turn.
    pub async fn turn_again(self: &Arc<Self>, lane: Lane) -> Turn {
        self.queue(
            |schedule, waiter| schedule.enqueue_first(lane, waiter),
            lane,
        )
        .await
    }

    async fn queue(
        self: &Arc<Self>,
        enqueue: impl Fn(&mut Schedule<oneshot::Sender<Turn>>, oneshot::Sender<Turn>),
        lane: Lane,
    ) -> Turn {
        let began = Instant::now();
        self.runtime.get_or_init(Handle::current);
        let turn = loop {
            let (sender, receiver) = oneshot::channel();
            enqueue(&mut self.lock().schedule, sender);
            self.dispatch();
            // A sender is only ever dropped by being used, so this goes round once.
            if let Ok(turn) = receiver.await {
                break turn;
            }
        };
        metrics::histogram!(crate::measures::PACER_WAIT, "lane" => lane.as_str())
            .record(began.elapsed().as_secs_f64());
        turn
    }

    /// Waits, outside of any turn, until another event set may be asked for, so that its 429
    /// never pauses a revoke. Whoever holds the gate notes when the request was over.
    pub(crate) async fn event_set_gate(&self) -> tokio::sync::MutexGuard<'_, Option<Instant>> {
        let gate = self.event_sets.lock().await;
        if let Some(last) = *gate {
            tokio::time::sleep_until(last + BETWEEN_EVENT_SETS).await;
        }
        gate
    }

    /// How many requests wait in a lane.
    pub fn waiting(&self, lane: Lane) -> usize {
        self.lock().schedule.waiting(lane)
    }

    /// How long a request that joined this lane now would wait, if every answer came in time and
    /// nothing more urgent arrived: what "its place in the queue explains".
    pub fn expected_wait(&self, lane: Lane) -> Duration {
        self.lock().schedule.expected_wait(lane, Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is a plain value that every method leaves whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the turn to whoever is next, or arranges to look again when the time has come.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            match state.schedule.next(Instant::now()) {
                Next::Go(sender) => {
                    drop(state);
                    let turn = Turn::new(Arc::clone(self));
                    match sender.send(turn) {
                        Ok(()) => return,
                        // Nobody waits for it any more: defused and on to the next, without the
                        // recursion that its drop would bring.
                        Err(turn) => turn.pass(),
                    }
                }
                Next::Wait(until) => {
                    if state.timer.is_none_or(|timer| timer > until) {
                        state.timer = Some(until);
                        drop(state);
                        self.look_again_at(until);
                    }
                    return;
                }
                Next::Nothing => return,
            }
        }
    }

    fn look_again_at(self: &Arc<Self>, until: Instant) {
        let Some(runtime) = self.runtime.get() else {
            return;
        };
        let pacer = Arc::clone(self);
        runtime.spawn(async move {
            tokio::time::sleep_until(until).await;
            {
                let mut state = pacer.lock();
                if state.timer.is_some_and(|timer| timer <= until) {
                    state.timer = None;
                }
            }
            pacer.dispatch();
        });
    }
}

impl std::fmt::Debug for Pacer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pacer").finish_non_exhaustive()
    }
}

/// The right to send one request now. Nobody else of this Kisi user sends until it is dropped,
/// so hold it for no longer than a last check takes.
#[derive(Debug)]
pub struct Turn {
    /// None once it is over.
    pacer: Option<Arc<Pacer>>,
    condition: Option<Condition>,
}

impl Turn {
    fn new(pacer: Arc<Pacer>) -> Self {
        Self {
            pacer: Some(pacer),
            condition: None,
        }
    }

    /// The request leaves only if this holds when its bytes are about to be written, as the last thing
    /// that is asked; otherwise it ends with [`KisiError::Withheld`](crate::KisiError::Withheld).
    #[must_use]
    pub fn only_while(mut self, holds: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(Condition(Arc::new(holds)));
        self
    }

    pub(crate) fn condition(&self) -> Option<Condition> {
        self.condition.clone()
    }

    /// The request left at this instant; said again, the later instant counts.
    pub fn sent(&mut self, at: Instant) {
        if let Some(pacer) = &self.pacer {
            let mut state = pacer.lock();
            let jitter = (state.jitter)();
            state.schedule.sent(at, jitter);
        }
    }

    /// How it ended.
    pub fn finish(mut self, outcome: Outcome) {
        if let Some(pacer) = self.pacer.take() {
            pacer.lock().schedule.finished(Instant::now(), outcome);
            pacer.dispatch();
        }
    }

    /// Gives the turn back from within `dispatch`, which goes on to the next.
    fn pass(mut self) {
        if let Some(pacer) = self.pacer.take() {
            pacer
                .lock()
                .schedule
                .finished(Instant::now(), Outcome::NoAnswer);
        }
    }
}

/// What must hold when a request leaves.
#[derive(Clone)]
pub(crate) struct Condition(Arc<dyn Fn() -> bool + Send + Sync>);

impl Condition {
    pub(crate) fn holds(&self) -> bool {
        (self.0)()
    }
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Condition").finish_non_exhaustive()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(pacer) = self.pacer.take() {
            pacer
                .lock()
                .schedule
                .finished(Instant::now(), Outcome::NoAnswer);
            pacer.dispatch();
        }
    }
}

/// How a write gets its turn.
#[derive(Debug)]
pub enum Slot {
    /// Wait in this lane.
    Wait(Lane),
    /// Use this turn, taken beforehand for a last check that the change is still wanted.
    Held(Turn),
}

impl From<Lane> for Slot {
    fn from(lane: Lane) -> Self {
        Self::Wait(lane)
    }
}

impl From<Turn> for Slot {
    fn from(turn: Turn) -> Self {
        Self::Held(turn)
    }
}
