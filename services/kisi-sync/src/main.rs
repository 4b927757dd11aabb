//! The process: settings, telemetry, `run`, flush. Everything else is in the library.

use std::process::ExitCode;

use kisi_sync::audit::command as audit;
use kisi_sync::config::Config;
use service_runtime::{lifecycle, settings};

// One thread: what a door waits for is a chain of small steps, and each hop to another thread costs
// more than a step. More work than one core can do goes to another replica.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == audit::WORD)
    {
        return audit::run(std::env::args_os().skip(1)).await;
    }
    let config: Config = settings::from_env();
    let (telemetry, life) = (config.telemetry.clone(), config.lifecycle.clone());
    lifecycle::run_service("kisi-sync", &telemetry, &life, |shutdown| {
        kisi_sync::run(config, shutdown)
    })
    .await
}
