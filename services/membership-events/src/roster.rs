//! `ImportRoster`: a gym's whole roster, streamed in, compared with what is held, and applied.
//!
//! Read in this order: [`receive`] stages the stream's messages, [`summary`] compares what was
//! staged with what is held and counts who is missing, [`apply`] does what differs. [`compare`] says
//! what differs, [`claim`] whose import it is, [`progress`] talks to the caller.
//!
//! - **Nothing changes before the stream ended well.** Until then there are staged rows only, which
//!   are removed when the stream breaks, and by [`run`] when its process died.
//! - **Memory is bounded**: a batch of rows at a time, on the way in as on the way through.
//! - **Others get their turn**: transactions are short, on SQLite too, and the import waits while
//!   its own messages wait, so that a door that has to close never queues behind them.
//! - **What was begun is finished**: an import that is being applied is a row with a cursor. Whoever
//!   finds it unclaimed goes on, after any kill.
//! - **One import at a time in each gym**; a second one is refused, not queued.

mod apply;
mod claim;
mod compare;
mod progress;
mod receive;
mod summary;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use contracts::membership::v1 as wire;
use contracts::membership::v1::import_roster_request::Part as WirePart;
use service_runtime::clock::Clock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Status, Streaming};
use tracing::{error, info, warn};

use crate::error::Error;
use crate::requests::roster::{Header, Scope, fault};
use crate::store::roster::imports::{self, Import};
use crate::store::{self, StoreError, micros};
use crate::unit::Decisions;
use crate::writes::By;
use claim::Claimed;
pub use progress::Answers;
use progress::Progress;
use summary::Finding;

/// How often imports are looked for whose process is gone.
const LOOK: Duration = Duration::from_secs(2);
/// A stream on which nothing comes for this long is broken.
const IDLE: Duration = Duration::from_secs(120);
/// Imports by what became of them.
pub const IMPORTS: &str = "membership_events_roster_imports_total";
/// The values of its label `outcome`. `broken` changed nothing: its stream did not end well, or it
/// was refused.
pub const OUTCOMES: [&str; 3] = ["applied", "held", "broken"];

/// When an import is held.
#[derive(Debug, Clone, Args)]
pub struct RosterSettings {
    /// So many members may always be missing from a roster without a confirmation.
    #[arg(long, env = "ROSTER_GUARD_MIN", default_value_t = 10)]
    pub roster_guard_min: u32,
    /// So many percent of the members with a current membership may be missing, where that is more.
    #[arg(long, env = "ROSTER_GUARD_PERCENT", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(0..=100))]
    pub roster_guard_percent: u32,
}

impl RosterSettings {
    /// The defaults.
    pub fn for_testing() -> Self {
        Self {
            roster_guard_min: 10,
            roster_guard_percent: 5,
        }
    }

    /// How many may be missing where `current` have a membership.
    fn allowed(&self, current: i64) -> i64 {
        let share = current.saturating_mul(i64::from(self.roster_guard_percent)) / 100;
        share.max(i64::from(self.roster_guard_min))
    }
}

/// Why an import went no further.
#[derive(Debug, thiserror::Error)]
enum Stop {
    /// The caller's fault.
    #[error("it was refused")]
    Refused(Box<Status>),
    /// Ours.
    #[error(transparent)]
    Failed(#[from] Error),
    /// Another process took it over.
    #[error("another process took it over")]
    Lost,
    /// The caller is gone.
    #[error("the stream broke")]
    Gone,
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl Stop {
    /// For a caller whose import changed nothing.
    fn into_status(self) -> Status {
        match self {
            Self::Refused(status) => *status,
            Self::Failed(error) => error.into_status(),
            Self::Lost | Self::Stopping => Status::unavailable(
                "The service is stopping. Nothing was changed; send the roster again.",
            ),
            Self::Gone => Status::cancelled("The stream broke. Nothing was changed."),
        }
    }
}

/// Takes rosters in. Clones share what they work with.
#[derive(Debug, Clone)]
pub struct Importer {
    decisions: Decisions,
    settings: RosterSettings,
    /// For claims: replicas compare them, so a clock that tests move would be wrong here.
    wall: Arc<dyn Clock>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Importer {
    /// Put together by `service.rs`. Imports stop at `shutdown`; `tasks` are waited for after it.
    pub fn new(
        decisions: Decisions,
        settings: RosterSettings,
        wall: Arc<dyn Clock>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            decisions,
            settings,
            wall,
            tasks,
            shutdown,
        }
    }

    /// Begins an import: its header is read, the rest is done while the answers are read.
    pub async fn import(
        &self,
        by: By,
        mut stream: Streaming<wire::ImportRosterRequest>,
    ) -> Result<Answers, Status> {
        let first = tokio::select! {
            first = stream.message() => first?,
            () = tokio::time::sleep(IDLE) => {
                return Err(Status::deadline_exceeded("Nothing came for too long."));
            }
            () = self.shutdown.cancelled() => return Err(Stop::Stopping.into_status()),
        };
        let Some(WirePart::Header(header)) = first.and_then(|message| message.part) else {
            return Err(fault(0, "header", "the header is expected first"));
        };
        let header = Header::parse(header, self.decisions.now())?;
        let (claimed, scope) = self.open(&by, &header).await.map_err(Stop::into_status)?;
        let (progress, answers) = Progress::new();
        self.tasks
            .spawn(self.clone().go(claimed, scope, header, stream, progress));
        Ok(answers)
    }

    /// Opens the import, in place of one whose process is gone.
    async fn open(&self, by: &By, header: &Header) -> Result<(Claimed, Scope), Stop> {
        let db = self.decisions.store().reads();
        if store::gyms::find(db, &header.gym).await?.is_none() {
            return Err(Error::Unknown("gym").into());
        }
        let accounts = store::gyms::list_accounts(db, &header.gym).await?;
        let as_of = micros(header.as_of);
        for _ in 0..2 {
            let until = claim::until(&*self.wall);
            let started_at = micros(self.decisions.now());
            let opened =
                imports::open(db, &header.gym, as_of, &by.actor, started_at, until).await?;
            if let Some(row) = opened {
                let scope = Scope {
                    gym: header.gym.clone(),
                    accounts: accounts.into_iter().collect(),
                    as_of: header.as_of,
                };
                return Ok((Claimed::new(self.clone(), row), scope));
            }
            let Some(other) = imports::find_open(db, &header.gym).await? else {
                continue;
            };
            let is_dead =
                other.state == "receiving" && other.claimed_until <= micros(self.wall.now());
            if !is_dead {
                let state = if other.state == "receiving" {
                    "received"
                } else {
                    "applied"
                };
                return Err(Status::aborted(format!(
                    "Import {} of this gym's roster is being {state}; one at a time.",
                    other.import_id
                ))
                .into());
            }
            if let Some(dead) = self.take_over(other).await? {
                dead.discard().await?;
            }
        }
        Err(Status::aborted("Another import of this gym's roster just began.").into())
    }

    /// Claims an import that is nobody's.
    async fn take_over(&self, row: Import) -> Result<Option<Claimed>, StoreError> {
        let until = claim::until(&*self.wall);
        let db = self.decisions.store().reads();
        if !imports::advance(db, &row, until).await? {
            return Ok(None);
        }
        let row = Import {
            claimed_until: until,
            ..row
        };
        Ok(Some(Claimed::new(self.clone(), row)))
    }

    /// The whole of an import, from its second message on.
    async fn go(
        self,
        mut claimed: Claimed,
        scope: Scope,
        header: Header,
        stream: Streaming<wire::ImportRosterRequest>,
        mut progress: Progress,
    ) {
        let (id, gym) = (claimed.row.import_id, scope.gym.clone());
        let found = self
            .prepare(&mut claimed, &scope, &header, stream, &mut progress)
            .await;
        let finding = match found {
            Ok(finding) => finding,
            Err(stop) => {
                metrics::counter!(IMPORTS, "outcome" => "broken").increment(1);
                info!(
                    import.id = id, gym.id = %gym,
                    "Import {id} of the roster of gym {gym} changed nothing: {stop}"
                );
                if !matches!(stop, Stop::Lost)
                    && let Err(error) = claimed.discard().await
                {
                    // Whoever looks for imports without a process removes it.
                    warn!(import.id = id, "Import {id} could not be removed: {error}");
                }
                progress.end(Err(stop.into_status())).await;
                return;
            }
        };
        let row = &claimed.row;
        if finding != Finding::Apply {
            metrics::counter!(IMPORTS, "outcome" => "held").increment(1);
        }
        info!(
            import.id = id, gym.id = %gym, rows.received = row.received,
            rows.changed = row.changed, rows.unchanged = row.unchanged,
            rows.left_alone = row.left_alone, members.missing = row.missing,
            "Import {id} of the roster of gym {gym} is {}", row.state
        );
        match finding {
            Finding::Held => progress.end(Ok(progress::message(row))).await,
            Finding::OtherSet => {
                progress.tell(row).await;
                progress.end(Err(summary::other_set(row))).await;
            }
            Finding::Apply => {
                let done = apply::apply(&mut claimed, Some(&mut progress)).await;
                progress
                    .end(
                        done.map(|()| progress::message(&claimed.row))
                            .map_err(going_on),
                    )
                    .await;
            }
        }
    }

    /// Receives the stream and finds what to do; up to here nothing is changed.
    async fn prepare(
        &self,
        claimed: &mut Claimed,
        scope: &Scope,
        header: &Header,
        stream: Streaming<wire::ImportRosterRequest>,
        progress: &mut Progress,
    ) -> Result<Finding, Stop> {
        receive::receive(claimed, scope, header, stream, progress).await?;
        summary::summarize(claimed, header.confirm_digest.as_deref(), progress).await
    }
}

/// For a caller whose import is being applied, whoever does it.
fn going_on(stop: Stop) -> Status {
    if let Stop::Failed(error) = stop {
        return error.into_status();
    }
    Status::unavailable("The roster is being applied, and that goes on by itself.")
}

/// Looks for imports whose process is gone, until shutdown: what was being received is removed,
/// what was being applied goes on.
pub async fn run(importer: Importer) {
    let store = importer.decisions.store().clone();
    // Records of imports are kept as long as decisions.
    let oldest = crate::history::kept_since(importer.decisions.now());
    log(imports::prune(store.reads(), micros(oldest)).await);
    loop {
        match imports::list_unclaimed(store.reads(), micros(importer.wall.now())).await {
            Ok(rows) => {
                for row in rows {
                    log(importer.go_on(row).await);
                }
            }
            Err(error) => log(Err(error)),
        }
        tokio::select! {
            () = importer.shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

impl Importer {
    /// Before any import begins: on SQLite nobody else uses the file, so that whatever is claimed
    /// was claimed by a process that is gone.
    pub async fn release_orphans(&self) {
        let store = self.decisions.store();
        if !store.is_postgres() {
            log(imports::release_all(store.reads()).await);
        }
    }

    async fn go_on(&self, row: Import) -> Result<(), StoreError> {
        let Some(mut claimed) = self.take_over(row).await? else {
            return Ok(());
        };
        let id = claimed.row.import_id;
        if claimed.row.state == "receiving" {
            warn!(
                import.id = id,
                "Import {id} was never received whole, and is removed"
            );
            return claimed.discard().await;
        }
        info!(import.id = id, "Import {id} goes on where it stood");
        self.tasks.spawn(async move {
            if let Err(stop) = apply::apply(&mut claimed, None).await {
                info!(import.id = id, "Import {id} went no further here: {stop}");
            }
        });
        Ok(())
    }
}

fn log(result: Result<(), StoreError>) {
    if let Err(error) = result {
        error!(
            "Roster imports could not be looked for: {}",
            service_runtime::lifecycle::chain(&error)
        );
    }
}

/// Ids for a log line: as many as can be read.
fn some_ids(ids: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = ids.iter().take(20).map(String::as_str).collect();
    let more = ids.len().saturating_sub(shown.len());
    if more == 0 {
        shown.join(", ")
    } else {
        format!("{} and {more} more", shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_or_five_percent_may_be_missing() {
        let settings = RosterSettings::for_testing();
        for (current, allowed) in [(0, 10), (219, 10), (220, 11), (1_000, 50), (100_000, 5_000)] {
            assert_eq!(settings.allowed(current), allowed, "{current}");
        }
    }
}
