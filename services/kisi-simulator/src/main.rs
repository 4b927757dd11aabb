//! The simulator as a program, for the dev stack and for trying things by hand.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use kisi_simulator::settings::{LimiterModel, Settings};
use kisi_simulator::{Simulator, SimulatorConfig};
use tokio::signal::unix::{SignalKind, signal};

/// A stateful Kisi for development and tests.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Where it listens.
    #[arg(long, env = "KISI_SIMULATOR_ADDR", default_value = "127.0.0.1:8090")]
    addr: SocketAddr,
    /// File in which its world is kept between runs.
    #[arg(long, env = "KISI_SIMULATOR_STATE")]
    state: Option<PathBuf>,
    /// Requests a second and user.
    #[arg(long, env = "KISI_SIMULATOR_RATE", default_value_t = 5)]
    rate: u32,
    /// How requests over the rate are recognised.
    #[arg(long, env = "KISI_SIMULATOR_LIMITER", default_value = "fixed_window")]
    limiter: LimiterModel,
    /// Milliseconds before a request arrives.
    #[arg(long, env = "KISI_SIMULATOR_LATENCY_MS", default_value_t = 0)]
    latency_ms: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let cli = Cli::parse();
    let settings = Settings {
        rate: cli.rate,
        limiter: cli.limiter,
        latency_ms: cli.latency_ms,
        ..Settings::default()
    };
    let config = SimulatorConfig {
        addr: cli.addr,
        state_file: cli.state,
        settings,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let simulator = Simulator::start(config).await?;
    tracing::info!("Kisi is simulated on {}", simulator.base_url());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    simulator.shutdown().await;
    Ok(())
}
