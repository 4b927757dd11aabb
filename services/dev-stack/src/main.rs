//! `make run` and `make demo`.

use std::process::ExitCode;

use clap::Parser;
use dev_stack::{Command, settings::Settings};

#[derive(Parser)]
#[command(about = "Starts Gymflow × Kisi access on one machine", version)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

// One thread: a child's parent-death signal follows the thread that started it, and this one lives
// as long as the program.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match dev_stack::run(cli.command, cli.settings).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dev-stack: {error:#}");
            ExitCode::from(2)
        }
    }
}
