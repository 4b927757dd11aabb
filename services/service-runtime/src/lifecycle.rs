//! The life of a process: start, run until told to stop, drain, flush.
//!
//! Shutdown is a token that is passed in; there are no globals. SIGTERM and SIGINT cancel it. What
//! is still running after the drain time is abandoned, which is safe because nothing that people
//! rely on lives in memory alone. A second signal does not wait for the drain.

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::telemetry::{self, TelemetrySettings};

/// How a process ends.
#[derive(Debug, Clone, Args)]
pub struct LifecycleSettings {
    /// How long open work may take to finish after a stop signal.
    #[arg(long, env = "DRAIN_TIME", default_value = "10s", value_parser = crate::settings::duration)]
    pub drain_time: Duration,
}

/// Runs a service from start to end; the body of every `main`.
///
/// `run` gets the shutdown token, and ends by itself soon after it is cancelled. The exit code is
/// 0 after an orderly end, 1 when `run` failed or did not end within the drain time, 2 when the
/// telemetry settings are bad.
pub async fn run_service<F, Fut, E>(
    service: &'static str,
    telemetry: &TelemetrySettings,
    lifecycle: &LifecycleSettings,
    run: F,
) -> ExitCode
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    crate::tls::install_crypto_provider();
    // First, so that what registers at zero finds it.
    crate::metrics::install();
    let telemetry = match telemetry::start(service, telemetry) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let shutdown = CancellationToken::new();
    let code = match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(terminate), Ok(interrupt)) => {
            info!(service.name = service, "{service} starts");
            let running = run(shutdown.clone());
            supervise(
                service,
                running,
                shutdown,
                lifecycle.drain_time,
                terminate,
                interrupt,
            )
            .await
        }
        (Err(failed), _) | (_, Err(failed)) => {
            error!(error = %failed, "Stop signals cannot be received");
            ExitCode::FAILURE
        }
    };
    telemetry.flush().await;
    code
}

async fn supervise<E>(
    service: &'static str,
    running: impl Future<Output = Result<(), E>>,
    shutdown: CancellationToken,
    drain_time: Duration,
    mut terminate: Signal,
    mut interrupt: Signal,
) -> ExitCode
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    tokio::pin!(running);
    tokio::select! {
        ended = &mut running => return report(service, ended),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!(
        service.name = service,
        "{service} was told to stop and drains"
    );
    shutdown.cancel();
    tokio::select! {
        ended = &mut running => report(service, ended),
        () = tokio::time::sleep(drain_time) => {
            error!(service.name = service, drain_ms = drain_time.as_millis(),
                "{service} did not finish within the drain time and is stopped");
            ExitCode::FAILURE
        }
        _ = terminate.recv() => abandoned(service),
        _ = interrupt.recv() => abandoned(service),
    }
}

fn abandoned(service: &str) -> ExitCode {
    warn!(
        service.name = service,
        "{service} was told twice to stop and does not drain"
    );
    ExitCode::FAILURE
}

fn report<E>(service: &str, ended: Result<(), E>) -> ExitCode
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    match ended {
        Ok(()) => {
            info!(service.name = service, "{service} ended");
            ExitCode::SUCCESS
        }
        Err(failed) => {
            let failed = failed.into();
            error!(
                service.name = service,
                "{service} failed: {}",
                chain(failed.as_ref())
            );
            ExitCode::FAILURE
        }
    }
}

/// An error with all its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
