//! All that the simulator holds, behind one lock: a request sees the world whole, as in a database.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

use crate::faults::Faults;
use crate::limiter::Limiter;
use crate::request_log::RequestLog;
use crate::rows::EventRow;
use crate::settings::Settings;
use crate::world::World;

/// What a lock guards.
#[derive(Default)]
pub struct State {
    pub world: World,
    pub settings: Settings,
    pub limiter: Limiter,
    pub faults: Faults,
    pub log: RequestLog,
    /// The simulator's clock runs this far from the real one.
    pub clock_offset: SignedDuration,
    /// Changes that are not in the file yet.
    pub dirty: bool,
}

/// What is kept between runs.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    world: World,
    clock_offset_ms: i64,
}

/// The state, shared by the server, the deliveries and the keeper of the file.
#[derive(Clone)]
pub struct Shared {
    state: Arc<Mutex<State>>,
    pub changed: Arc<Notify>,
    pub events: mpsc::UnboundedSender<EventRow>,
    file: Option<PathBuf>,
}

impl Shared {
    /// Empty, or as the file has it.
    pub fn open(
        settings: Settings,
        file: Option<PathBuf>,
        events: mpsc::UnboundedSender<EventRow>,
    ) -> anyhow::Result<Self> {
        let mut state = State {
            settings,
            ..State::default()
        };
        if let Some(path) = file.as_ref().filter(|path| path.exists()) {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let kept: Kept = serde_json::from_str(&text)
                .with_context(|| format!("{} is not a simulator's state", path.display()))?;
            state.world = kept.world;
            state.world.rebuild_index();
            state.clock_offset = SignedDuration::from_millis(kept.clock_offset_ms);
        }
        Ok(Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(Notify::new()),
            events,
            file,
        })
    }

    /// The state, for as long as the guard lives. A handler that panicked left it as it was.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the file if anything changed: a reader sees the old text or the new one.
    pub fn save(&self) -> anyhow::Result<()> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        let text = {
            let mut state = self.lock();
            if !std::mem::take(&mut state.dirty) {
                return Ok(());
            }
            let kept = Kept {
                world: state.world.clone(),
                clock_offset_ms: i64::try_from(state.clock_offset.as_millis()).unwrap_or(0),
            };
            serde_json::to_string(&kept)?
        };
        let draft = path.with_extension("new");
        std::fs::write(&draft, text)
            .and_then(|()| std::fs::rename(&draft, path))
            .with_context(|| path.display().to_string())
    }
}

impl State {
    /// The simulator's time. The one place where the real clock is read.
    #[allow(
        clippy::disallowed_methods,
        reason = "the edge: everything else gets this value"
    )]
    pub fn now(&self) -> Timestamp {
        let real = Timestamp::now();
        real.checked_add(self.clock_offset).unwrap_or(real)
    }
}
