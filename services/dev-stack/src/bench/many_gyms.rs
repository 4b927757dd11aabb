//! A thousand gyms in one kisi-sync, each with a Kisi user of its own: what they cost while nothing
//! happens, and when the quarter-hour comes for all of them at once.
//!
//! The quarter-hour is had every minute, so that it can be waited for.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use contracts::membership::v1::import_roster_request::Part;

use super::figure::Figure;
use super::kisi_servers::{KisiServers, next_aligned, organization, plan, sleep_until};
use super::reconcile::KEY_CHECK;
use super::roster_import;
use super::usage::Usage;
use crate::folder::Folder;
use crate::settings::Settings;

const GYMS: usize = 1_000;
const MEMBERS: usize = 5;
/// Gyms set up at once.
const AT_ONCE: usize = 8;
/// Requests of a pass in sync: the look at the key, and the one page of the one group.
const LEAST: usize = KEY_CHECK + 1;
/// What Kisi allows each of them.
const RATE: f64 = 5.0;
const EVERY: Duration = Duration::from_secs(60);
/// How long it is watched at rest.
const REST: Duration = Duration::from_secs(15);
const WITHIN: Duration = Duration::from_secs(600);

/// All of it.
pub async fn measure(folder: Folder, settings: &Settings) -> anyhow::Result<Vec<Figure>> {
    let mut servers = KisiServers::start(folder, settings).await?;
    let measured = measure_with(&mut servers).await;
    servers.stop().await;
    measured
}

async fn measure_with(servers: &mut KisiServers) -> anyhow::Result<Vec<Figure>> {
    let organizations: Vec<Value> = (0..GYMS)
        .map(|n| organization(&gym(n), &key(n), 1))
        .collect();
    let seed = json!({ "organizations": organizations });
    let control = servers.control();
    control.call(Method::POST, "/seed", Some(seed)).await?;
    stream::iter((0..GYMS).map(|n| make(servers, n)))
        .buffer_unordered(AT_ONCE)
        .try_for_each(|()| async { Ok(()) })
        .await?;

    servers.start_again(RATE, EVERY).await?;
    // The first quarter-hour finds everything cold, and the rest after it is as usual.
    let due = next_aligned(Timestamp::now(), EVERY)?;
    sleep_until(due).await;
    servers.until_passed(due, GYMS, WITHIN).await?;
    let mut due = next_aligned(Timestamp::now(), EVERY)?;
    let left = due.duration_since(Timestamp::now());
    if left < SignedDuration::try_from(REST + REST / 5)? {
        sleep_until(due).await;
        servers.until_passed(due, GYMS, WITHIN).await?;
        due = next_aligned(Timestamp::now(), EVERY)?;
    }
    let resting = Usage::of(servers.pid()?)?;
    tokio::time::sleep(REST).await;
    let rest = resting.cpu_seconds()?;
    let memory = resting.resident_mib()?;

    sleep_until(due).await;
    let control = servers.control();
    let seen = control.last_request().await?;
    let busy = Usage::of(servers.pid()?)?;
    let passes = servers.until_passed(due, GYMS, WITHIN).await?;
    let requests = control.last_request().await? - seen;
    let ended = passes.iter().map(|pass| pass.ended_at).max().unwrap_or(0);
    let seconds = (ended - due.as_microsecond()) as f64 / 1e6;
    let name = |what| format!("{GYMS} gyms, {what}");
    Ok(vec![
        Figure::new(name("memory at rest"), memory, "MiB"),
        Figure::new(name("CPU at rest"), percent(rest, REST), "% of one"),
        Figure::new(name("quarter-hour, requests"), requests as f64, "")
            .over((LEAST * GYMS) as f64)
            .at_most(1.0),
        Figure::new(name("quarter-hour, CPU"), busy.cpu_seconds()?, "s"),
        Figure::new(name("quarter-hour, all are done after"), seconds, "s"),
        Figure::new(name("quarter-hour, peak memory"), busy.peak_mib()?, "MiB"),
    ])
}

/// A gym with its members, in sync.
async fn make(servers: &KisiServers, n: usize) -> anyhow::Result<()> {
    let gym = gym(n);
    servers.memberships.put_gym(&gym, "UTC").await?;
    roster_import::import(&servers.memberships, &gym, roster(&gym)).await?;
    servers.connect(&gym, &key(n)).await?;
    servers.sync(&gym, WITHIN).await
}

fn roster(gym: &str) -> impl Iterator<Item = Part> + Send + 'static {
    let gym = gym.to_owned();
    (0..MEMBERS).flat_map(move |n| {
        let id = format!("{gym}_{n}");
        let mut membership = roster_import::membership(&id, "2026-01-01");
        membership.plan_id = plan(0);
        [roster_import::person(&id), Part::Membership(membership)]
    })
}

fn gym(n: usize) -> String {
    format!("gym-{n:04}")
}

fn key(n: usize) -> String {
    format!("bench-key-{n:032}")
}

fn percent(seconds: f64, of: Duration) -> f64 {
    100.0 * seconds / of.as_secs_f64()
}
