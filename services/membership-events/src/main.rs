//! The process: settings, telemetry, [`membership_events::run`], flush.

use std::process::ExitCode;

use membership_events::{SERVICE, config::Config};
use service_runtime::{lifecycle, settings};

// One thread: what a door waits for is a chain of small steps, and each hop to another thread costs
// more than a step. More work than one core can do goes to another replica.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config: Config = settings::from_env();
    let telemetry = config.telemetry.clone();
    let ending = config.lifecycle.clone();
    lifecycle::run_service(SERVICE, &telemetry, &ending, |shutdown| {
        membership_events::run(config, shutdown)
    })
    .await
}
