//! A PostgreSQL server for a measurement, as durable as PostgreSQL is by default. It refuses to run
//! as root, so then it runs as `nobody`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::child::{Child, Program};
use crate::folder::Folder;

const READY_WITHIN: Duration = Duration::from_secs(30);
const USER: &str = "nobody";
const GROUP: &str = "nogroup";

/// The running server.
pub struct PostgresServer {
    /// `DATABASE_URL` of its one database.
    pub url: String,
    child: Child,
}

impl PostgresServer {
    /// Makes a cluster in `folder`, and waits until it answers.
    pub async fn start(folder: &Folder, bin: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        ensure!(
            bin.join("postgres").is_file(),
            "{} is missing: `make tools` fetches it, or PG_BIN_DIR names its folder",
            bin.join("postgres").display()
        );
        let bin = bin.canonicalize()?;
        let cluster = folder.path("postgres");
        std::fs::create_dir_all(&cluster)?;
        let root = nix::unistd::geteuid().is_root();
        if root {
            open_ways_to(&cluster)?;
            let owner = format!("{USER}:{GROUP}");
            succeed("chown", &["-R", &owner, &cluster.display().to_string()]).await?;
        }
        let data = cluster.join("data").display().to_string();
        let initdb = [
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-D",
        ];
        let (program, mut arguments) = as_its_user(root, &bin.join("initdb"));
        arguments.extend(initdb.map(str::to_owned));
        arguments.push(data.clone());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        succeed(&program.display().to_string(), &arguments).await?;

        let (binary, mut arguments) = as_its_user(root, &bin.join("postgres"));
        let port = address.port().to_string();
        let server = ["-D", &data, "-p", &port, "-c", "listen_addresses=127.0.0.1"];
        arguments.extend(server.map(str::to_owned));
        arguments.extend(["-c", "unix_socket_directories="].map(str::to_owned));
        let child = Child::start(Program {
            name: "postgres".into(),
            binary,
            arguments,
            environment: BTreeMap::new(),
            log: folder.path("logs").join("postgres.log"),
        })?;
        let url = format!("postgres://postgres@{address}/postgres");
        wait_until_it_answers(&url).await?;
        Ok(Self { url, child })
    }

    /// Stops it.
    pub async fn stop(&mut self) {
        self.child.stop().await;
    }
}

/// The program and its first arguments.
fn as_its_user(root: bool, program: &Path) -> (PathBuf, Vec<String>) {
    if !root {
        return (program.to_owned(), Vec::new());
    }
    let (user, group) = (format!("--reuid={USER}"), format!("--regid={GROUP}"));
    let program = program.display().to_string();
    (
        "/usr/bin/setpriv".into(),
        vec![user, group, "--clear-groups".into(), "--".into(), program],
    )
}

/// The folders of this run are for their owner alone otherwise.
fn open_ways_to(cluster: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for folder in cluster.ancestors().skip(1).take(3) {
        let mode = std::fs::metadata(folder)?.permissions().mode();
        std::fs::set_permissions(folder, PermissionsExt::from_mode(mode | 0o011))?;
    }
    Ok(())
}

async fn succeed(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir("/")
        .output()
        .await
        .with_context(|| program.to_owned())?;
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

async fn wait_until_it_answers(url: &str) -> anyhow::Result<()> {
    use sqlx::Connection;
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        match sqlx::PgConnection::connect(url).await {
            Ok(connection) => return Ok(connection.close().await?),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context("PostgreSQL is not ready");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(30)).await,
        }
    }
}
