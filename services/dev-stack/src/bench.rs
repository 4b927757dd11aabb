//! `make bench`: how long from a webhook to Kisi, next to what the same machine takes for the same
//! durable steps done bare, in the same run.
//!
//! A change and a round of the floor take turns, so that noise meets both alike; only the ratios
//! mean anything on another machine.

use std::time::{Duration, Instant};

use anyhow::Context;
use async_nats::jetstream;
use jiff::Timestamp;
use serde::Serialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};

use crate::control::StopSignals;
use crate::demo::Demo;
use crate::folder::Folder;
use crate::settings::Settings;
use crate::stack::{SERVICES, Stack};

/// Changes measured, one a second, so that the pacer is idle at each.
const CHANGES: usize = 200;
/// Changes before them that are not counted: connections, caches, file growth.
const WARM_UP: usize = 10;
const EVERY: Duration = Duration::from_secs(1);
/// Durable publishes on the way: the billing event and the member's state.
const PUBLISHES: usize = 2;
/// Commits on the way: membership-events' and kisi-sync's.
const COMMITS: usize = 2;
/// A message on the way is about this large.
const MESSAGE: usize = 800;
/// What a service may hold at rest.
const MEMORY_AIM_MIB: f64 = 20.0;

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// What the same steps take bare, in the same unit.
    pub floor: Option<f64>,
    pub ratio: Option<f64>,
    /// The largest ratio, or value without a floor, that is good enough.
    pub aim: f64,
    pub ok: bool,
}

/// Measures, prints a table, and writes `target/bench/report.json`. `Ok(false)` when an aim was
/// missed.
pub async fn run(settings: &Settings) -> anyhow::Result<bool> {
    let data = tempfile::Builder::new()
        .prefix("gymflow-bench-")
        .tempdir()?;
    let mut stop = StopSignals::listen()?;
    let mut stack = Stack::start(Folder::open(data.path())?, settings, &mut stop).await?;
    let measured = tokio::select! {
        measured = measure(&mut stack) => measured,
        () = stop.wait() => Err(anyhow::anyhow!("stopped")),
    };
    stack.stop().await;
    let figures = measured?;
    print(&figures);
    std::fs::create_dir_all("target/bench").context("target/bench")?;
    std::fs::write(
        "target/bench/report.json",
        serde_json::to_string_pretty(&figures)?,
    )
    .context("target/bench/report.json")?;
    Ok(figures.iter().all(|figure| figure.ok))
}

async fn measure(stack: &mut Stack) -> anyhow::Result<Vec<Figure>> {
    stack.prepare().await?;
    // At rest: nothing has been asked for a while.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut figures = memory(stack)?;
    let floor = Floor::new(stack).await?;
    let demo = Demo::new(stack)?;

    let mut ours = Vec::with_capacity(CHANGES);
    let mut bare = Vec::with_capacity(CHANGES);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for change in 0..WARM_UP + CHANGES {
        ticks.tick().await;
        let (change_ms, requests) = demo.one_change(change).await?;
        anyhow::ensure!(
            requests == 1,
            "change {change} took {requests} requests to Kisi"
        );
        // What a change leaves to be done is over by then: the floor finds the machine as idle.
        tokio::time::sleep(EVERY / 3).await;
        let floor_ms = floor.round().await?;
        if change >= WARM_UP {
            ours.push(change_ms);
            bare.push(floor_ms);
        }
    }
    for (name, percent, aim) in [("p50", 50, 1.5), ("p99", 99, 3.0)] {
        let (value, floor) = (
            percentile(&mut ours, percent),
            percentile(&mut bare, percent),
        );
        let ratio = value / floor;
        figures.push(Figure {
            name: format!("webhook to Kisi, {name}"),
            value: round(value),
            unit: "ms",
            floor: Some(round(floor)),
            ratio: Some(round(ratio)),
            aim,
            ok: ratio <= aim,
        });
    }
    Ok(figures)
}

/// The same durable steps with nothing between them.
struct Floor {
    jetstream: jetstream::Context,
    database: SqlitePool,
    http: reqwest::Client,
    url: String,
    key: String,
}

impl Floor {
    async fn new(stack: &Stack) -> anyhow::Result<Self> {
        let nats = async_nats::connect(format!("nats://{}", stack.nats)).await?;
        let jetstream = jetstream::new(nats);
        jetstream
            .create_stream(jetstream::stream::Config {
                name: "FLOOR".into(),
                subjects: vec!["floor.>".into()],
                ..Default::default()
            })
            .await?;
        let options = SqliteConnectOptions::new()
            .filename(stack.folder.path("floor.sqlite"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let database = SqlitePool::connect_with(options).await?;
        sqlx::query("create table floor (id integer primary key, body blob not null)")
            .execute(&database)
            .await?;
        Ok(Self {
            jetstream,
            database,
            http: stack.http.clone(),
            url: format!("{}/login", stack.kisi_url),
            key: stack.kisi_key.clone(),
        })
    }

    /// Milliseconds of one round.
    async fn round(&self) -> anyhow::Result<f64> {
        let body = vec![b'x'; MESSAGE];
        let started = Instant::now();
        for _ in 0..PUBLISHES {
            self.jetstream
                .publish("floor.x", body.clone().into())
                .await?
                .await?;
        }
        for _ in 0..COMMITS {
            sqlx::query("insert into floor (body) values (?)")
                .bind(&body)
                .execute(&self.database)
                .await?;
        }
        let answer = self
            .http
            .get(&self.url)
            .header("authorization", format!("KISI-LOGIN {}", self.key))
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .header("x-kisi-integration-identifier", "floor")
            .header("x-kisi-integration-contact", "floor@example.com")
            .send()
            .await?;
        anyhow::ensure!(
            answer.status().is_success(),
            "the floor's request: {}",
            answer.status()
        );
        answer.bytes().await?;
        Ok(started.elapsed().as_secs_f64() * 1_000.0)
    }
}

fn memory(stack: &Stack) -> anyhow::Result<Vec<Figure>> {
    let pids = stack.pids();
    SERVICES
        .iter()
        .map(|service| {
            let pid = pids
                .get(*service)
                .with_context(|| format!("{service} does not run"))?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let kib: f64 = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))
                .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
                .context("VmRSS")?;
            let mib = kib / 1024.0;
            Ok(Figure {
                name: format!("{service}, memory at rest"),
                value: round(mib),
                unit: "MiB",
                floor: None,
                ratio: None,
                aim: MEMORY_AIM_MIB,
                ok: mib <= MEMORY_AIM_MIB,
            })
        })
        .collect()
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(index).copied().unwrap_or(f64::NAN)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn print(figures: &[Figure]) {
    println!(
        "\n{:<36} {:>9} {:<4} {:>9} {:>7} {:>7}",
        "figure", "value", "", "floor", "ratio", "aim"
    );
    for figure in figures {
        let optional = |value: Option<f64>| value.map_or_else(|| "-".into(), |v| format!("{v:.2}"));
        println!(
            "{:<36} {:>9.2} {:<4} {:>9} {:>7} {:>7.2} {}",
            figure.name,
            figure.value,
            figure.unit,
            optional(figure.floor),
            optional(figure.ratio),
            figure.aim,
            if figure.ok { "" } else { "missed" },
        );
    }
    println!("\n{} {}", figures.len(), Timestamp::now());
}
