//! The process: settings, telemetry, [`billing_webhook::run`], flush.

use std::process::ExitCode;

use billing_webhook::config::{Cli, Command};
use billing_webhook::endpoints::Endpoints;
use service_runtime::{lifecycle, settings};

fn main() -> ExitCode {
    let cli: Cli = settings::from_env();
    if let Some(Command::CheckEndpoints { file }) = cli.command {
        return check(&file);
    }
    let config = cli.config;
    // One thread takes thousands of posts a second, and a lone post does not wait for a second one
    // to wake up.
    let runtime = tokio::runtime::Builder::new_current_thread()
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
        lifecycle::run_service("billing-webhook", &telemetry, &ending, |shutdown| {
            billing_webhook::run(config, shutdown)
        })
        .await
    })
}

fn check(file: &std::path::Path) -> ExitCode {
    match Endpoints::read(file) {
        Ok(endpoints) => {
            println!(
                "{}: {} endpoints, all good",
                file.display(),
                endpoints.len()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}
