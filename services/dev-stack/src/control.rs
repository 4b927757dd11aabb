//! Ctrl-C and SIGTERM: both mean stop, in order, leaving no process.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The two signals that stop the stack. Once seen, it stays stopped.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    seen: bool,
}

impl StopSignals {
    /// Starts listening; from here on neither ends the program by itself.
    pub fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
            seen: false,
        })
    }

    /// Waits for the first of them. Safe to drop and call again.
    pub async fn wait(&mut self) {
        if !self.seen {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
                _ = self.hang_up.recv() => {}
            }
            self.seen = true;
        }
    }
}
