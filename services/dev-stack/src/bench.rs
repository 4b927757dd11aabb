//! `make bench`: how fast the product is, next to what the same machine takes for the same durable
//! steps done bare, in the same run; only the ratios mean anything on another machine.
//!
//! In reading order: `memory` of the services at rest, `changes` from a webhook to Kisi, `lone`
//! webhooks one by one, and `senders`, many at once; `reconcile` of a large gym, and `many_gyms`.
//! What is compared takes turns, so that noise meets all alike.

mod bare_http;
mod changes;
mod commit_floor;
mod connection;
mod figure;
mod kisi_servers;
mod lone;
mod many_gyms;
mod members;
mod membership_servers;
mod memory;
mod midnight;
mod postgres_server;
mod raw_publish;
mod reconcile;
mod roster_import;
mod senders;
mod usage;
mod webhook_servers;
mod webhooks;

use anyhow::Context;
use jiff::Timestamp;

use crate::control::StopSignals;
use crate::folder::Folder;
use crate::settings::Settings;
use crate::stack::Stack;

use figure::Figure;
use membership_servers::Database;
use webhook_servers::WebhookServers;
use webhooks::Webhooks;

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Memory at rest, and webhook to Kisi.
    Changes,
    /// Webhooks one by one.
    Lone,
    /// Webhooks of many senders at once.
    Senders,
    /// Membership writes and billing events, on both databases.
    Members,
    /// A roster of 100,000, on both databases.
    Roster,
    /// 50,000 memberships that start at one midnight, on both databases.
    Midnight,
    /// Passes over 20,000 rights, and 1,000 gyms in one process.
    Kisi,
}

impl Part {
    /// With every service running.
    const WHOLE_CHAIN: [Self; 2] = [Self::Changes, Self::Lone];
    /// With billing-webhook alone.
    const WEBHOOKS: [Self; 2] = [Self::Lone, Self::Senders];
}

/// All, or one part.
#[derive(Clone, Copy)]
struct Wanted(Option<Part>);

impl Wanted {
    fn has(self, part: Part) -> bool {
        self.0.is_none_or(|only| only == part)
    }

    fn has_any(self, parts: [Part; 2]) -> bool {
        parts.into_iter().any(|part| self.has(part))
    }
}

/// Measures all, or one part; prints a table, and writes `target/bench/report.json`. `Ok(false)` when an aim was
/// missed.
pub async fn run(settings: &Settings, only: Option<Part>) -> anyhow::Result<bool> {
    // Beside the build, which is on a disk; the system's folder for temporary files may be memory.
    std::fs::create_dir_all("target/bench").context("target/bench")?;
    let data = tempfile::Builder::new()
        .prefix("data-")
        .tempdir_in("target/bench")?;
    let mut stop = StopSignals::listen()?;

    let wanted = Wanted(only);
    let mut figures = Vec::new();
    if wanted.has_any(Part::WHOLE_CHAIN) {
        let folder = Folder::open(&data.path().join("stack"))?;
        let mut stack = Stack::start(folder, settings, &mut stop).await?;
        let measured = tokio::select! {
            measured = whole_chain(&mut stack, wanted) => measured,
            () = stop.wait() => Err(anyhow::anyhow!("stopped")),
        };
        stack.stop().await;
        figures.extend(measured?);
    }
    if wanted.has_any(Part::WEBHOOKS) {
        let folder = Folder::open(&data.path().join("webhooks"))?;
        figures.extend(tokio::select! {
            measured = webhooks_alone(&folder, settings, wanted) => measured?,
            () = stop.wait() => anyhow::bail!("stopped"),
        });
    }

    for database in Database::ALL {
        let folder = |part: &str| Folder::open(&data.path().join(format!("{part}-{database:?}")));
        figures.extend(tokio::select! {
            measured = memberships_alone(folder, settings, database, wanted) => measured?,
            () = stop.wait() => anyhow::bail!("stopped"),
        });
    }

    if wanted.has(Part::Kisi) {
        let folder = |part: &str| Folder::open(&data.path().join(part));
        figures.extend(tokio::select! {
            measured = reconcile::measure(folder("reconcile")?, settings) => measured?,
            () = stop.wait() => anyhow::bail!("stopped"),
        });
        figures.extend(tokio::select! {
            measured = many_gyms::measure(folder("gyms")?, settings) => measured?,
            () = stop.wait() => anyhow::bail!("stopped"),
        });
    }

    figure::print(&figures);
    println!("\n{} {}", figures.len(), Timestamp::now());
    std::fs::write(
        "target/bench/report.json",
        serde_json::to_string_pretty(&figures)?,
    )
    .context("target/bench/report.json")?;
    Ok(figures.iter().all(|figure| figure.ok))
}

/// With every service running.
async fn whole_chain(stack: &mut Stack, wanted: Wanted) -> anyhow::Result<Vec<Figure>> {
    stack.prepare().await?;
    let mut figures = Vec::new();
    if wanted.has(Part::Changes) {
        figures.extend(memory::measure(stack).await?);
        figures.extend(changes::measure(stack).await?);
    }
    if wanted.has(Part::Lone) {
        figures.push(lone::whole_chain(stack).await?);
    }
    Ok(figures)
}

/// With nobody who reads what webhooks become.
async fn webhooks_alone(
    folder: &Folder,
    settings: &Settings,
    wanted: Wanted,
) -> anyhow::Result<Vec<Figure>> {
    let mut servers = WebhookServers::start(folder, settings).await?;
    let webhooks = Webhooks::default();
    let measured = async {
        let mut figures = Vec::new();
        if wanted.has(Part::Lone) {
            figures.extend(lone::consumers_stopped(&servers, &webhooks).await?);
        }
        if wanted.has(Part::Senders) {
            figures.extend(senders::measure(&servers, &webhooks).await?);
        }
        Ok(figures)
    };
    let measured = measured.await;
    servers.stop().await;
    measured
}

/// With membership-events alone, on one database; each part on data of its own.
async fn memberships_alone(
    folder: impl Fn(&str) -> anyhow::Result<Folder>,
    settings: &Settings,
    database: Database,
    wanted: Wanted,
) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if wanted.has(Part::Members) {
        figures.extend(members::measure(folder("members")?, settings, database).await?);
    }
    if wanted.has(Part::Roster) {
        figures.extend(roster_import::measure(folder("roster")?, settings, database).await?);
    }
    if wanted.has(Part::Midnight) {
        figures.extend(midnight::measure(folder("midnight")?, settings, database).await?);
    }
    Ok(figures)
}
