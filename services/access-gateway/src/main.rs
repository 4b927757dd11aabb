//! The process: settings, telemetry, [`access_gateway::run`], flush.

use std::process::ExitCode;

use access_gateway::config::Config;
use service_runtime::{lifecycle, settings};

fn main() -> ExitCode {
    let config: Config = settings::from_env();
    // Two threads serve thousands of lookups a second; each more costs memory at rest.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(failed) => {
            eprintln!("the runtime cannot start: {failed}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let telemetry = config.telemetry.clone();
        let ending = config.lifecycle.clone();
        lifecycle::run_service("access-gateway", &telemetry, &ending, |shutdown| {
            access_gateway::run(config, shutdown)
        })
        .await
    })
}
