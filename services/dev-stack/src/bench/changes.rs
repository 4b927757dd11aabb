//! How long from a webhook to Kisi's answer, next to the same durable steps done bare.
//!
//! A change and a round of the floor take turns, so that noise meets both alike.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};

use super::figure::{Figure, percentile};
use crate::demo::Demo;
use crate::stack::Stack;

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

/// p50 and p99.
pub async fn measure(stack: &Stack) -> anyhow::Result<Vec<Figure>> {
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
    let figure = |name, percent, aim| {
        let value = percentile(&mut ours.clone(), percent);
        let floor = percentile(&mut bare.clone(), percent);
        Figure::new(name, value, "ms").over(floor).at_most(aim)
    };
    Ok(vec![
        figure("webhook to Kisi, p50", 50, 1.5),
        figure("webhook to Kisi, p99", 99, 3.0),
    ])
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
