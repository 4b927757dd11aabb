#![doc = include_str!("../README.md")]
#![allow(
    clippy::disallowed_methods,
    reason = "this program plays people and providers, who live in real time"
)]

use clap::Subcommand;

pub mod bench;
pub mod child;
pub mod control;
pub mod demo;
pub mod folder;
pub mod identity;
pub mod ports;
pub mod programs;
pub mod roster;
pub mod seed;
pub mod set_up;
pub mod settings;
pub mod simulated_kisi;
pub mod stack;
pub mod stack_file;
pub mod stripe;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Starts everything and keeps it running until Ctrl-C or SIGTERM.
    Run,
    /// Starts everything on fresh data, shows that doors follow payments, and stops it.
    Demo,
    /// Measures webhooks and doors next to bare floors, and memory at rest.
    Bench {
        /// Only this part.
        part: Option<bench::Part>,
    },
}

/// Does it. `Ok(false)` when the demo ran and something did not hold.
pub async fn run(command: Command, settings: settings::Settings) -> anyhow::Result<bool> {
    // Two callers may have installed it already; that is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match command {
        Command::Run => {
            let folder = folder::Folder::open(&settings.data_dir())?;
            let mut stop = control::StopSignals::listen()?;
            let mut stack = stack::Stack::start(folder, &settings, &mut stop).await?;
            let outcome = run_until_stopped(&mut stack, &mut stop).await;
            stack.stop().await;
            outcome.map(|()| true)
        }
        Command::Demo => demo::run(&settings).await,
        Command::Bench { part } => bench::run(&settings, part).await,
    }
}

async fn run_until_stopped(
    stack: &mut stack::Stack,
    stop: &mut control::StopSignals,
) -> anyhow::Result<()> {
    tokio::select! {
        prepared = stack.prepare() => prepared?,
        () = stop.wait() => return Ok(()),
    }
    stack.write_stack_file()?;
    stack_file::welcome(stack)?;
    stack.supervise(stop).await
}
