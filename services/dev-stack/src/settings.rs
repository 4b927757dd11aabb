//! What the dev stack can be told. Everything else in its environment is passed on to the services
//! as it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

/// Settings of the stack itself.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Where all state is kept between runs: `.data` by default; a demo without it starts afresh.
    #[arg(long, env = "DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Another Kisi, the real one included: no simulator is started then.
    #[arg(long, env = "KISI_BASE_URL")]
    pub kisi_base_url: Option<String>,

    /// The API key for that Kisi.
    #[arg(long, env = "KISI_API_KEY", hide_env_values = true)]
    pub kisi_api_key: Option<String>,

    /// Requests a second to Kisi; 50 with the simulator, 5 with another Kisi.
    #[arg(long, env = "KISI_REQUESTS_PER_SECOND")]
    pub kisi_requests_per_second: Option<String>,

    /// The folder of the services' programs; the one this program is in by default.
    #[arg(long, env = "BIN_DIR")]
    pub bin_dir: Option<PathBuf>,

    /// The nats-server to start.
    #[arg(
        long,
        env = "NATS_SERVER_BIN",
        default_value = ".tools/nats/bin/nats-server"
    )]
    pub nats_server: PathBuf,

    /// How many of each service to start.
    #[arg(long, env = "STACK_REPLICAS", default_value_t = 1)]
    pub replicas: usize,

    /// PostgreSQL for membership-events; SQLite below DATA_DIR by default.
    #[arg(
        long,
        env = "STACK_MEMBERSHIP_EVENTS_DATABASE_URL",
        hide_env_values = true
    )]
    pub membership_events_database_url: Option<String>,

    /// PostgreSQL for kisi-sync; SQLite below DATA_DIR by default.
    #[arg(long, env = "STACK_KISI_SYNC_DATABASE_URL", hide_env_values = true)]
    pub kisi_sync_database_url: Option<String>,

    /// Take free ports instead of the usual ones, so that many stacks can run at once.
    #[arg(long, env = "STACK_FREE_PORTS")]
    pub free_ports: bool,

    /// How many kisi-sync, where it is another number than of the rest.
    #[arg(skip)]
    pub kisi_sync_replicas: Option<usize>,

    /// Settings of kisi-sync's own, ahead of those in this program's environment.
    #[arg(skip)]
    pub kisi_sync_environment: BTreeMap<&'static str, String>,
}

impl Settings {
    /// The folder of a stack that runs on.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(".data"))
    }

    /// How many of this service to start.
    pub fn replicas_of(&self, service: &str) -> usize {
        let own = self.kisi_sync_replicas.filter(|_| service == "kisi-sync");
        own.unwrap_or(self.replicas).max(1)
    }
}
