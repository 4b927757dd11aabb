//! `make bench`: how fast the product is, next to what the same machine takes for the same durable
//! steps done bare, in the same run; only the ratios mean anything on another machine.
//!
//! In reading order: `memory` of the services at rest, `changes` from a webhook to Kisi, `lone`
//! webhooks one by one, and `senders`, many at once. What is compared takes turns, so that noise
//! meets all alike.

mod bare_http;
mod changes;
mod connection;
mod figure;
mod lone;
mod memory;
mod raw_publish;
mod senders;
mod webhook_servers;
mod webhooks;

use anyhow::Context;
use jiff::Timestamp;

use crate::control::StopSignals;
use crate::folder::Folder;
use crate::settings::Settings;
use crate::stack::Stack;

use figure::Figure;
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

    let mut figures = Vec::new();
    if only != Some(Part::Senders) {
        let folder = Folder::open(&data.path().join("stack"))?;
        let mut stack = Stack::start(folder, settings, &mut stop).await?;
        let measured = tokio::select! {
            measured = whole_chain(&mut stack, only) => measured,
            () = stop.wait() => Err(anyhow::anyhow!("stopped")),
        };
        stack.stop().await;
        figures.extend(measured?);
    }
    if only != Some(Part::Changes) {
        let folder = Folder::open(&data.path().join("webhooks"))?;
        figures.extend(tokio::select! {
            measured = webhooks_alone(&folder, settings, only) => measured?,
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
async fn whole_chain(stack: &mut Stack, only: Option<Part>) -> anyhow::Result<Vec<Figure>> {
    stack.prepare().await?;
    let mut figures = Vec::new();
    if only != Some(Part::Lone) {
        figures.extend(memory::measure(stack).await?);
        figures.extend(changes::measure(stack).await?);
    }
    if only != Some(Part::Changes) {
        figures.push(lone::whole_chain(stack).await?);
    }
    Ok(figures)
}

/// With nobody who reads what webhooks become.
async fn webhooks_alone(
    folder: &Folder,
    settings: &Settings,
    only: Option<Part>,
) -> anyhow::Result<Vec<Figure>> {
    let mut servers = WebhookServers::start(folder, settings).await?;
    let webhooks = Webhooks::default();
    let measured = async {
        let mut figures = Vec::new();
        if only != Some(Part::Senders) {
            figures.extend(lone::consumers_stopped(&servers, &webhooks).await?);
        }
        if only != Some(Part::Lone) {
            figures.extend(senders::measure(&servers, &webhooks).await?);
        }
        Ok(figures)
    };
    let measured = measured.await;
    servers.stop().await;
    measured
}
