//! One process of the stack: started with its settings as environment variables alone, its output
//! in a log file, started again when it dies, and stopped in time.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child as Process, Command};

/// How long a process may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(15);

/// What to start.
#[derive(Clone, Debug)]
pub struct Program {
    /// The name in logs and `stack.json`, such as `kisi-sync` (or `kisi-sync-2`).
    pub name: String,
    pub binary: PathBuf,
    pub arguments: Vec<String>,
    /// Added to the stack's own environment.
    pub environment: BTreeMap<String, String>,
    pub log: PathBuf,
}

/// A started [`Program`].
pub struct Child {
    pub program: Program,
    process: Process,
}

impl Child {
    /// Starts it.
    ///
    /// # Errors
    /// Naming the binary when it is missing.
    pub fn start(program: Program) -> anyhow::Result<Self> {
        let process = spawn(&program)?;
        Ok(Self { program, process })
    }

    /// Its process id; `None` once it has ended.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Whether it has ended, without waiting.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> String {
        match self.process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Starts it again, with the same settings.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = spawn(&self.program)?;
        Ok(())
    }

    /// Sends a signal, to a stopped process as well as to a running one.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let Some(id) = self.id() else {
            return Ok(());
        };
        let id = i32::try_from(id).context("process id")?;
        kill(Pid::from_raw(id), signal)
            .with_context(|| format!("{signal} to {}", self.program.name))
    }

    /// SIGTERM, time to drain, then SIGKILL.
    pub async fn stop(&mut self) {
        if self.has_ended() {
            return;
        }
        let _ = self.signal(Signal::SIGCONT);
        let _ = self.signal(Signal::SIGTERM);
        if tokio::time::timeout(GRACE, self.process.wait())
            .await
            .is_err()
        {
            eprintln!(
                "{} did not stop within {GRACE:?}: killed",
                self.program.name
            );
            let _ = self.process.kill().await;
        }
    }

    /// SIGKILL, as a crash would look.
    pub async fn kill(&mut self) {
        let _ = self.process.kill().await;
    }
}

fn spawn(program: &Program) -> anyhow::Result<Process> {
    anyhow::ensure!(
        program.binary.is_file(),
        "{} is missing: `make run` builds and fetches what it needs",
        program.binary.display()
    );
    let log = File::options()
        .create(true)
        .append(true)
        .open(&program.log)
        .with_context(|| program.log.display().to_string())?;
    let errors = log.try_clone().context("log file")?;
    let mut command = bound_to_this_process(&program.binary);
    command
        .args(&program.arguments)
        .envs(&program.environment)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // Ctrl-C in a terminal reaches this program alone, which stops the others in order.
        .process_group(0)
        .kill_on_drop(true);
    command
        .spawn()
        .with_context(|| format!("starting {}", program.binary.display()))
}

/// Through `setpriv --pdeathsig` where there is one, so that nothing is left behind even when this
/// program is killed outright.
fn bound_to_this_process(binary: &Path) -> Command {
    const SETPRIV: &str = "/usr/bin/setpriv";
    if Path::new(SETPRIV).is_file() {
        let mut command = Command::new(SETPRIV);
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
        command
    } else {
        Command::new(binary)
    }
}
