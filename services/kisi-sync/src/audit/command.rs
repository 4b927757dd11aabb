//! `kisi-sync audit verify`: reads the tables of `DATABASE_URL` and says of each gym's audit log
//! whether it is whole, or which row was changed.

use std::process::ExitCode;

use clap::Parser;
use secrecy::SecretString;
use service_runtime::settings::{self, SettingsError};

use super::verify::{Verdict, verify};
use crate::store;

/// The word after the program's name that asks for this instead of the service.
pub const WORD: &str = "audit";

/// The audit log, from the tables.
#[derive(Debug, Parser)]
#[command(name = "kisi-sync audit")]
struct Command {
    /// What to do: verify.
    #[arg(value_parser = ["verify"])]
    action: String,
    /// One gym; else all of them.
    #[arg(long)]
    gym: Option<String>,
    /// The tables: sqlite://… or postgres://…
    #[arg(long, env = "DATABASE_URL", value_parser = settings::secret)]
    database_url: SecretString,
}

/// Runs it. 0: every log is whole; 1: one is not, or cannot be read; 2: bad settings.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it speaks to a person"
)]
pub async fn run(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let command: Command = match settings::read(arguments) {
        Ok(command) => command,
        Err(SettingsError::Shown(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(SettingsError::Bad(line)) => {
            eprintln!("{line}");
            return ExitCode::from(2);
        }
    };
    match report(&command).await {
        Ok((lines, whole)) => {
            println!("{lines}");
            if whole {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("{}", service_runtime::lifecycle::chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn report(command: &Command) -> Result<(String, bool), sea_orm::DbErr> {
    let db = store::connect(&command.database_url).await?;
    let gyms = match &command.gym {
        Some(gym) => vec![gym.clone()],
        None => store::audit::list_gyms(&db).await?,
    };
    let mut lines = Vec::new();
    let mut whole = true;
    for gym in gyms {
        let verdict = verify(&db, &gym).await?;
        whole &= matches!(verdict, Verdict::Whole { .. });
        lines.push(match verdict {
            Verdict::Whole { first, last, head } => {
                format!("gym {gym}: rows {first} to {last} are whole, head {head}")
            }
            Verdict::Changed(row) => format!("gym {gym}: row {row} was changed"),
            Verdict::Missing(row) => format!("gym {gym}: row {row} is missing"),
        });
    }
    if lines.is_empty() {
        lines.push("no gym has an audit log yet".to_owned());
    }
    Ok((lines.join("\n"), whole))
}
