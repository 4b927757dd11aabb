//! The service as a process of its own that can be killed, under a clock that a test sets.
//!
//! The program itself goes by the machine's clock; so the process is this test binary again, which
//! runs one function: the service with the clock port bound to a file.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use jiff::Timestamp;
use membership_events::config::Config;
use membership_events::{SERVICE, Service};
use service_runtime::clock::Clock;
use service_runtime::lifecycle;

use crate::world::World;

const VARIABLE: &str = "CLOCK_FILE";

/// A clock that stands where its file says, in every process that has it.
#[derive(Debug, Clone)]
pub struct FileClock(PathBuf);

impl FileClock {
    /// A clock in `folder` that stands at `start`.
    pub fn new(folder: &Path, start: Timestamp) -> Self {
        let clock = Self(folder.join("clock"));
        clock.set(start);
        clock
    }

    /// Sets it, forwards or backwards; whoever reads meanwhile sees the one or the other.
    pub fn set(&self, instant: Timestamp) {
        let new = self.0.with_extension("new");
        fs::write(&new, instant.to_string()).expect("written");
        fs::rename(new, &self.0).expect("set");
    }
}

impl Clock for FileClock {
    fn now(&self) -> Timestamp {
        let instant = fs::read_to_string(&self.0).expect("a clock");
        instant.parse().expect("an instant")
    }
}

/// Starts the service at `address` under `clock`.
pub fn start(world: &mut World, address: SocketAddr, clock: &FileClock) {
    let this = std::env::current_exe().expect("this program");
    let mut program = world.program(this, address);
    program
        .args(["--exact", "steered::the_service_of_another_test"])
        .args(["--ignored", "--nocapture", "--quiet"])
        .env(VARIABLE, &clock.0)
        .stdout(std::process::Stdio::null());
    world.start_program(program, address);
}

#[tokio::test]
#[ignore = "it is what other tests start as a process of its own"]
async fn the_service_of_another_test() {
    let Some(file) = std::env::var_os(VARIABLE) else {
        return;
    };
    let config = Config::try_parse_from([SERVICE]).expect("settings");
    let (telemetry, ending) = (config.telemetry.clone(), config.lifecycle.clone());
    let clock = Arc::new(FileClock(file.into()));
    lifecycle::run_service(SERVICE, &telemetry, &ending, |shutdown| async {
        Service::start(config, clock, shutdown).await?.serve().await
    })
    .await;
}
