//! A stack of real processes on free ports and fresh data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use dev_stack::control::StopSignals;
use dev_stack::folder::Folder;
use dev_stack::settings::Settings;
use dev_stack::stack::Stack;
use tempfile::TempDir;

/// Long, because machines are shared; reached only when something is wrong.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Another test's process may take a port between our look and the bind.
const STARTS: usize = 3;
const TAKEN: &str = "ddress already in use";

/// Settings of a stack below `folder`. The services' programs are beside this test's.
pub fn settings(folder: &TempDir) -> Settings {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let bin_dir = PathBuf::from(env!("CARGO_BIN_EXE_dev-stack"));
    let nats_server = std::env::var_os("NATS_SERVER_BIN")
        .map_or_else(|| root.join(".tools/nats/bin/nats-server"), PathBuf::from);
    assert!(
        nats_server.is_file(),
        "{} is missing: run `make tools`",
        nats_server.display()
    );
    Settings {
        data_dir: Some(folder.path().to_path_buf()),
        kisi_base_url: None,
        kisi_api_key: None,
        kisi_requests_per_second: None,
        bin_dir: bin_dir.parent().map(PathBuf::from),
        nats_server,
        replicas: 1,
        membership_events_database_url: None,
        kisi_sync_database_url: None,
        free_ports: true,
        kisi_sync_replicas: None,
        kisi_sync_environment: BTreeMap::new(),
    }
}

/// A started stack; the gyms are not in yet.
pub async fn start(settings: &Settings) -> Stack {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut stop = StopSignals::listen().expect("signals");
    for _ in 1..STARTS {
        let folder = Folder::open(&settings.data_dir()).expect("DATA_DIR");
        match Stack::start(folder, settings, &mut stop).await {
            Err(error) if format!("{error:#}").contains(TAKEN) => {}
            started => return started.expect("a stack"),
        }
    }
    let folder = Folder::open(&settings.data_dir()).expect("DATA_DIR");
    let started = Stack::start(folder, settings, &mut stop).await;
    started.expect("a stack")
}

pub fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("gymflow-stack-")
        .tempdir()
        .expect("a folder")
}
