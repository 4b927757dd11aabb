//! A real nats-server with JetStream on free ports and a store of its own.
//!
//! It runs with `sync_interval: always`, as production does: tests of what an ack means would
//! prove nothing otherwise. `start_with_lazy_sync` exists for the tests that must see it refused.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::free_port;
use crate::process::Guarded;
use crate::tools;

/// A running (or stopped) nats-server. Dropping it kills the server and removes its store.
pub struct NatsServer {
    process: Option<Guarded>,
    port: u16,
    monitor_port: u16,
    folder: TempDir,
}

impl NatsServer {
    /// Starts a server whose publish acks are durable, and waits until it is healthy.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with("always").await
    }

    /// Starts a server with the default fsync policy (every 2 minutes): its acks are not durable.
    pub async fn start_with_lazy_sync() -> anyhow::Result<Self> {
        Self::start_with("2m").await
    }

    async fn start_with(sync_interval: &str) -> anyhow::Result<Self> {
        let mut last = None;
        // Another process may take a port between our look and the server's bind.
        for _ in 0..3 {
            let mut server = Self {
                process: None,
                port: free_port(),
                monitor_port: free_port(),
                folder: tempfile::Builder::new().prefix("gymflow-nats-").tempdir()?,
            };
            server.write_settings(sync_interval)?;
            match server.launch().await {
                Ok(()) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt was made")?)
    }

    /// `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// `127.0.0.1:PORT` of client connections.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `http://127.0.0.1:PORT` of the monitoring side (`/varz`, `/jsz`).
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor_port)
    }

    /// The server's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Guarded::id)
    }

    /// Stops the server in an orderly way. The store stays for [`Self::restart`].
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.end(Signal::SIGTERM).await
    }

    /// Kills the server (SIGKILL). The store stays for [`Self::restart`].
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.end(Signal::SIGKILL).await
    }

    /// Starts the server again, after an orderly stop if it still runs, on the same ports and the
    /// same store, and waits until it is healthy.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop().await?;
        self.launch().await
    }

    /// Freezes the server (SIGSTOP): connections stay open and nothing is answered.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.running()?.signal(Signal::SIGSTOP)
    }

    /// Ends [`Self::pause`].
    pub fn resume(&self) -> anyhow::Result<()> {
        self.running()?.signal(Signal::SIGCONT)
    }

    fn running(&self) -> anyhow::Result<&Guarded> {
        self.process.as_ref().context("nats-server is not running")
    }

    async fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        match self.process.take() {
            Some(mut process) => process.end(signal).await,
            None => Ok(()),
        }
    }

    fn write_settings(&self, sync_interval: &str) -> anyhow::Result<()> {
        let settings = format!(
            "listen: 127.0.0.1:{}\nhttp: 127.0.0.1:{}\nserver_name: test\n\
             jetstream {{ store_dir: \"{}\", sync_interval: {sync_interval}, max_file_store: 1G, max_memory_store: 64M }}\n",
            self.port,
            self.monitor_port,
            self.folder.path().join("store").display(),
        );
        fs::write(self.folder.path().join("nats.conf"), settings).context("nats.conf")
    }

    async fn launch(&mut self) -> anyhow::Result<()> {
        let log_path = self.folder.path().join("nats.log");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)?;
        let mut process = Guarded::spawn(
            Command::new(tools::nats_server()?)
                .arg("-c")
                .arg(self.folder.path().join("nats.conf"))
                .stdout(log.try_clone()?)
                .stderr(Stdio::from(log)),
            Signal::SIGKILL,
            self.folder.path(),
        )?;
        let started = Instant::now();
        loop {
            if !process.is_running() || started.elapsed() > Duration::from_secs(20) {
                let log = fs::read_to_string(&log_path).unwrap_or_default();
                bail!("nats-server did not become healthy:\n{log}");
            }
            if healthy(self.monitor_port).await {
                self.process = Some(process);
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// One request over plain TCP: a client library would be a heavy way to read a status line.
async fn healthy(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream
            .write_all(b"GET /healthz HTTP/1.0\r\n\r\n")
            .await
            .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        String::from_utf8_lossy(&answer)
            .lines()
            .next()
            .map(|status| status.contains(" 200 "))
    };
    matches!(
        tokio::time::timeout(Duration::from_secs(1), ask).await,
        Ok(Some(true))
    )
}
