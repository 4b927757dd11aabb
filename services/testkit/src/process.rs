//! A child process that does not outlive the test process, however that ends.
//!
//! Drop handlers do not run on `process::exit`, SIGKILL or for statics, and the kernel's parent
//! death signal follows the *thread* that forked, which in a test is short-lived. So each child
//! has a watchdog: a shell that reads from a pipe whose only writer is the test process. When that
//! is gone, the read ends, and the watchdog kills the child and removes its folder. Both are in
//! process groups of their own, so that Ctrl-C in a terminal reaches neither before the watchdog.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The folder goes when the child no longer writes to it; where nobody reaps the dead, after 5 s.
const WATCH: &str = r#"
cat >/dev/null
kill -"$2" "$1" 2>/dev/null
for _ in $(seq 100); do kill -0 "$1" 2>/dev/null || break; sleep 0.05; done
rm -rf "$3"
"#;

/// A running child with its watchdog. Dropping it kills the child.
pub(crate) struct Guarded {
    child: Child,
    watchdog: Child,
    last_signal: Signal,
}

impl Guarded {
    /// Starts `command`. `last_signal` ends it when the test process goes away, and `folder` is
    /// removed then.
    pub(crate) fn spawn(
        command: &mut Command,
        last_signal: Signal,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let program = command.get_program().to_owned();
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let watchdog = Command::new("sh")
            .arg("-c")
            .arg(WATCH)
            .arg("watchdog")
            .arg(child.id().to_string())
            .arg(last_signal.as_str().trim_start_matches("SIG"))
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting a watchdog")?;
        Ok(Self {
            child,
            watchdog,
            last_signal,
        })
    }

    /// The child's process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal` to the child.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).context("process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {pid}"))
    }

    /// True while the child runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends `signal` and waits until the child is gone.
    pub(crate) async fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        if self.is_running() {
            self.signal(signal)?;
        }
        let started = Instant::now();
        while self.is_running() {
            if started.elapsed() > Duration::from_secs(10) {
                bail!("process {} did not end on {signal}", self.child.id());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // The watchdog goes first: afterwards the child's id may belong to somebody else.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        if self.is_running() {
            let _ = self.signal(Signal::SIGCONT);
            let _ = self.signal(self.last_signal);
            let _ = self.child.wait();
        }
    }
}
