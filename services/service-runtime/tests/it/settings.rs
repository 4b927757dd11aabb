use std::time::Duration;

use clap::Parser;
use secrecy::{ExposeSecret, SecretString};
use service_runtime::settings::{self, SettingsError};

#[derive(Debug, Parser)]
struct Config {
    /// Where things are.
    #[arg(long, env = "IT_DATABASE_URL")]
    database_url: String,
    /// How often.
    #[arg(long, env = "IT_RECONCILE_EVERY", default_value = "15m", value_parser = settings::positive_duration)]
    reconcile_every: Duration,
    /// The seal.
    #[arg(long, env = "IT_SEALING_KEYS", value_parser = settings::secret)]
    sealing_keys: Option<SecretString>,
    /// Percent.
    #[arg(long, env = "IT_PERCENT", default_value_t = 5)]
    percent: u8,
}

fn read(flags: &[&str]) -> Result<Config, SettingsError> {
    settings::read(std::iter::once("service").chain(flags.iter().copied()))
}

fn line(flags: &[&str]) -> String {
    match read(flags) {
        Err(SettingsError::Bad(line)) => line,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_setting_is_named_by_its_variable_in_one_line() {
    assert_eq!(line(&[]), "missing setting: IT_DATABASE_URL");
}

#[test]
fn a_bad_setting_is_named_with_what_is_expected_and_without_its_value() {
    let bad = line(&["--database-url", "x", "--reconcile-every", "secret-ish"]);
    assert_eq!(
        bad,
        "bad setting IT_RECONCILE_EVERY: a span such as 500ms, 30s, 15m or 1h is expected"
    );
    let bad = line(&["--database-url", "x", "--percent", "900"]);
    assert!(bad.starts_with("bad setting IT_PERCENT: "), "{bad}");
    assert!(!bad.contains('\n'), "{bad}");
}

#[test]
fn help_names_every_variable_and_is_no_failure() {
    match read(&["--help"]) {
        Err(SettingsError::Shown(text)) => {
            for variable in ["IT_DATABASE_URL", "IT_RECONCILE_EVERY", "IT_SEALING_KEYS"] {
                assert!(text.contains(variable), "{text}");
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let config = read(&["--database-url", "x", "--sealing-keys", "k1:AAAA"]).unwrap();
    assert_eq!(
        config.sealing_keys.as_ref().unwrap().expose_secret(),
        "k1:AAAA"
    );
    assert!(!format!("{config:?}").contains("AAAA"));
}

#[test]
fn spans_are_read_in_the_words_of_the_documentation() {
    for (text, seconds) in [
        ("15m", 900.0),
        ("500ms", 0.5),
        ("1h 30m", 5400.0),
        ("0s", 0.0),
    ] {
        assert_eq!(
            settings::duration(text).unwrap().as_secs_f64(),
            seconds,
            "{text}"
        );
    }
    for text in ["15", "", "-1s", "soon"] {
        assert!(settings::duration(text).is_err(), "{text}");
    }
    assert!(settings::positive_duration("0s").is_err());
}

#[test]
fn addresses_are_http_and_lose_their_trailing_slash() {
    assert_eq!(settings::http_url("http://a:1/").unwrap(), "http://a:1");
    for text in ["a:1", "ftp://a", "http://"] {
        assert!(settings::http_url(text).is_err(), "{text}");
    }
}
