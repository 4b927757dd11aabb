#![doc = include_str!("../README.md")]

pub mod answer;
pub mod auth;
pub mod context;
pub mod control;
mod deliveries;
pub mod faults;
pub mod limiter;
mod listed;
pub mod paging;
pub mod parameters;
pub mod render;
pub mod request_log;
pub mod routes;
pub mod rows;
mod server;
pub mod settings;
pub mod spec;
pub mod state;
pub mod world;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::settings::Settings;
use crate::state::Shared;

/// Changes are in the file this long after they happened.
const SAVE_AFTER: Duration = Duration::from_millis(100);

/// How to start.
#[derive(Clone, Debug)]
pub struct SimulatorConfig {
    /// Port 0 takes a free one.
    pub addr: SocketAddr,
    /// Where the world is kept between runs.
    pub state_file: Option<PathBuf>,
    pub settings: Settings,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            state_file: None,
            settings: Settings::default(),
        }
    }
}

/// A running simulator. Dropping it stops it.
pub struct Simulator {
    addr: SocketAddr,
    shared: Shared,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Simulator {
    /// Starts serving.
    ///
    /// # Errors
    /// When the address is taken or the state file makes no sense.
    pub async fn start(config: SimulatorConfig) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Takes a while, which must not delay the first requests: their arrival is what is counted.
        std::sync::LazyLock::force(&spec::SPEC);
        let (events, queue) = mpsc::unbounded_channel();
        let shared = Shared::open(config.settings, config.state_file, events)?;
        let listener = TcpListener::bind(config.addr)
            .await
            .with_context(|| format!("{} cannot be bound", config.addr))?;
        let addr = listener.local_addr()?;
        let shutdown = CancellationToken::new();
        let router = server::router(shared.clone());
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let stop = shutdown.clone();
        let serving = tokio::spawn(async move {
            // Clients that keep their connections must not keep the simulator.
            tokio::select! {
                () = stop.cancelled() => {}
                _ = axum::serve(listener, service) => {}
            }
        });
        let delivering = tokio::spawn(deliveries::run(shared.clone(), queue, shutdown.clone()));
        let saving = tokio::spawn(save(shared.clone(), shutdown.clone()));
        Ok(Self {
            addr,
            shared,
            shutdown,
            tasks: vec![serving, delivering, saving],
        })
    }

    /// Where clients find it.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The state, for tests in the same process.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Every exchange as one JSON object a line, for a validator of openapi.yaml outside.
    pub fn exchanges_jsonl(&self) -> String {
        self.shared.lock().log.as_jsonl()
    }

    /// Stops, with everything written.
    pub async fn shutdown(mut self) {
        self.shutdown.cancel();
        for task in std::mem::take(&mut self.tasks) {
            let _ = task.await;
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn save(shared: Shared, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = shared.changed.notified() => {}
        }
        let _ = shutdown
            .run_until_cancelled(tokio::time::sleep(SAVE_AFTER))
            .await;
        report(shared.save());
    }
    report(shared.save());
}

fn report(saved: anyhow::Result<()>) {
    if let Err(error) = saved {
        tracing::error!("The state could not be kept: {error:#}");
    }
}
