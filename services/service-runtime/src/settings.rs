//! Reading settings: environment variables and flags by clap, checked once, before any port opens.
//!
//! A missing or bad setting ends the start with exit code 2 and ONE line that names it by its
//! variable. Values are never repeated in that line: some of them are secrets. An empty variable
//! counts as not set, because that is what deployment templates leave behind.

use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Parser};
use secrecy::SecretString;

/// The exit code of a start that settings stopped.
pub const EXIT_CODE: i32 = 2;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// `--help` or `--version`: the text to print; no failure.
    #[error("{0}")]
    Shown(String),
    /// One line that names the setting.
    #[error("{0}")]
    Bad(String),
}

/// Reads `C` from the process's flags and environment, or ends the process: with help and 0, or
/// with one line on stderr and [`EXIT_CODE`].
pub fn from_env<C: Parser>() -> C {
    match read(std::env::args_os()) {
        Ok(settings) => settings,
        Err(SettingsError::Shown(text)) => {
            println!("{text}");
            std::process::exit(0)
        }
        Err(SettingsError::Bad(line)) => {
            eprintln!("{line}");
            std::process::exit(EXIT_CODE)
        }
    }
}

/// Reads `C` from these arguments (the first is the program's name) and the environment.
pub fn read<C, I, T>(arguments: I) -> Result<C, SettingsError>
where
    C: Parser,
    I: IntoIterator<Item = T>,
    T: Into<std::ffi::OsString> + Clone,
{
    let mut described = C::command().mut_args(|argument| argument.hide_env_values(true));
    described.build();
    let command = C::command().mut_args(|argument| match argument.get_env() {
        Some(name) if std::env::var_os(name).is_some_and(|value| value.is_empty()) => {
            argument.env(clap::builder::Resettable::Reset)
        }
        _ => argument,
    });
    command
        .try_get_matches_from(arguments)
        .and_then(|mut matches| C::from_arg_matches_mut(&mut matches))
        .map_err(|error| explain(&mut described, &error))
}

fn explain(command: &mut Command, error: &clap::Error) -> SettingsError {
    match error.kind() {
        // From our own description: clap's would print the variables' values.
        ErrorKind::DisplayHelp => {
            return SettingsError::Shown(command.render_help().to_string());
        }
        ErrorKind::DisplayVersion => return SettingsError::Shown(error.to_string()),
        _ => {}
    }
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(one)) => vec![one.as_str()],
        Some(ContextValue::Strings(several)) => several.iter().map(String::as_str).collect(),
        _ => vec![],
    };
    let names = named
        .iter()
        .map(|argument| variable(command, argument))
        .collect::<Vec<_>>()
        .join(", ");
    let line = match error.kind() {
        ErrorKind::MissingRequiredArgument => format!("missing setting: {names}"),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let allowed = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(values)) if !values.is_empty() => {
                    format!("one of {} is expected", values.join(", "))
                }
                _ => std::error::Error::source(error)
                    .map_or_else(|| "a value is expected".to_owned(), ToString::to_string),
            };
            format!("bad setting {names}: {allowed}")
        }
        ErrorKind::UnknownArgument => format!("unknown flag {}", named.join(", ")),
        kind => format!("bad settings: {kind}"),
    };
    SettingsError::Bad(line.replace('\n', " "))
}

/// The variable behind clap's words for an argument (`--nats-url <NATS_URL>`), else those words.
fn variable(command: &Command, words: &str) -> String {
    let flag = words.split_whitespace().next().unwrap_or(words);
    command
        .get_arguments()
        .find(|argument| {
            argument
                .get_long()
                .is_some_and(|long| flag.strip_prefix("--") == Some(long))
        })
        .and_then(|argument| argument.get_env())
        .map_or_else(
            || words.to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
}

/// A span such as `15m`, `500ms`, `1h 30m` or `0s`; for `#[arg(value_parser = settings::duration)]`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "a span such as 500ms, 30s, 15m or 1h is expected".to_owned();
    let span: jiff::SignedDuration = text.trim().parse().map_err(|_| expected())?;
    Duration::try_from(span).map_err(|_| expected())
}

/// A span longer than nothing; see [`duration`].
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a span longer than 0s is expected".to_owned()),
        span => Ok(span),
    }
}

/// A secret, kept out of debug output; for `#[arg(value_parser = settings::secret)]`.
pub fn secret(text: &str) -> Result<SecretString, String> {
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        text => Ok(SecretString::from(text)),
    }
}

/// An `http://` or `https://` address, without a trailing slash.
pub fn http_url(text: &str) -> Result<String, String> {
    let text = text.trim().trim_end_matches('/');
    let uri: http::Uri = text
        .parse()
        .map_err(|_| "an http:// or https:// address is expected")?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(text.to_owned()),
        _ => Err("an http:// or https:// address is expected".to_owned()),
    }
}
