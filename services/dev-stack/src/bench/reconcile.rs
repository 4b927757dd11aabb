//! A gym of 20,000 rights in 40 groups: what its passes ask of Kisi next to the least that the API
//! allows, how long they take next to what the pace alone makes of that, and how soon a revoke
//! leaves while one runs.
//!
//! The least is the look at the key, as every pass has; a page for every 250 rights of a group; and of
//! each right that others took, one look by its id, without which no right is given twice by mistake,
//! and one grant. Passes are the scheduled ones, at Kisi's own 5 requests a second, so that both
//! together take about two minutes; the pace is 1.05 to 1.10 ÷ rate between two requests, 1.075 on
//! average, and what a pass takes besides is the time before its first and after its last request.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use contracts::membership::v1::import_roster_request::Part;
use event_bus::GroupPublisher;
use futures_util::StreamExt;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::json;

use super::figure::{Figure, percentile};
use super::kisi_servers::{KisiServers, next_aligned, organization, plan, sleep_until};
use super::members::{failed_invoice, publish};
use super::usage::Usage;
use super::{lone::ms, roster_import};
use crate::folder::Folder;
use crate::settings::Settings;

const GYM: &str = "bench";
const KEY: &str = "bench-key-0000000000000000000000000001";
const MEMBERS: usize = 20_000;
const GROUPS: usize = 40;
/// Whose the key is, her rights, her other logins, and the organization's integrations.
pub(super) const KEY_CHECK: usize = 4;
/// Rights on a page of Kisi's.
const PAGE: usize = 250;
/// What Kisi allows.
const RATE: f64 = 5.0;
/// Between two requests, on average, in units of 1 ÷ rate.
const SPACING: f64 = 1.075;
/// The same at most.
const WIDEST: f64 = 1.10;
/// How often a pass begins; the longer of the two takes several of these.
const EVERY: Duration = Duration::from_secs(30);
/// Of so many rights one is taken by hand. No multiple of the number of groups, so that every group
/// lacks some.
const ONE_OF: usize = 101;
/// Members who lose access while a pass runs, one by one.
const REVOKES: usize = 120;
const WITHIN: Duration = Duration::from_secs(600);

/// All of it.
pub async fn measure(folder: Folder, settings: &Settings) -> anyhow::Result<Vec<Figure>> {
    let mut servers = KisiServers::start(folder, settings).await?;
    let measured = measure_with(&mut servers).await;
    servers.stop().await;
    measured
}

async fn measure_with(servers: &mut KisiServers) -> anyhow::Result<Vec<Figure>> {
    let mut figures = first_sync(servers).await?;
    servers.start_again(RATE, EVERY).await?;
    let least = KEY_CHECK + GROUPS * MEMBERS.div_ceil(GROUPS).div_ceil(PAGE);
    figures.extend(pass(servers, "in sync", least).await?);
    let taken = take_by_hand(servers).await?;
    figures.extend(pass(servers, "1 % drift", least + 2 * taken).await?);
    figures.push(revokes_meanwhile(servers).await?);
    Ok(figures)
}

/// Everybody is new at Kisi.
async fn first_sync(servers: &KisiServers) -> anyhow::Result<Vec<Figure>> {
    let memberships = &servers.memberships;
    memberships.put_gym(GYM, "Europe/Zurich").await?;
    roster_import::import(memberships, GYM, everybody()).await?;
    memberships.until_published(MEMBERS as u64, WITHIN).await?;
    servers.until_consumed(WITHIN).await?;
    let seed = json!({ "organizations": [organization(GYM, KEY, GROUPS)] });
    let control = servers.control();
    control.call(Method::POST, "/seed", Some(seed)).await?;

    servers.connect(GYM, KEY).await?;
    let seen = control.last_request().await?;
    let usage = Usage::of(servers.pid()?)?;
    servers.sync(GYM, WITHIN).await?;
    let requests = control.last_request().await? - seen;
    // Each group's empty list, one page of users, and each member's user and right. What is looked at
    // besides, once (the key, the doors, what else opens them), is less than one in a hundred.
    let floor = GROUPS + 1 + 2 * MEMBERS;
    let name = |what| format!("first sync of {MEMBERS}, {what}");
    Ok(vec![
        Figure::new(name("requests"), requests as f64, "")
            .over(floor as f64)
            .at_most(1.01),
        Figure::new(name("CPU"), usage.cpu_seconds()?, "s"),
        Figure::new(name("peak memory"), usage.peak_mib()?, "MiB"),
    ])
}

fn everybody() -> impl Iterator<Item = Part> + Send + 'static {
    (0..MEMBERS).flat_map(|n| {
        let id = name(n);
        let mut membership = roster_import::membership(&id, "2026-01-01");
        membership.plan_id = plan(n % GROUPS);
        [roster_import::person(&id), Part::Membership(membership)]
    })
}

fn name(n: usize) -> String {
    format!("m_{n:06}")
}

/// The next scheduled pass: its requests, and its time.
async fn pass(servers: &KisiServers, what: &str, least: usize) -> anyhow::Result<Vec<Figure>> {
    let due = next_aligned(Timestamp::now(), EVERY)?;
    sleep_until(due).await;
    let seen = servers.control().last_request().await?;
    let usage = Usage::of(servers.pid()?)?;
    let passes = servers.until_passed(due, 1, WITHIN).await?;
    let requests = servers.control().last_request().await? - seen;
    let pass = passes.first().context("no pass")?;
    let by_the_pace = requests as f64 * SPACING / RATE;
    let name = |figure| format!("reconcile of {MEMBERS}, {what}, {figure}");
    Ok(vec![
        Figure::new(name("requests"), requests as f64, "")
            .over(least as f64)
            .at_most(1.0),
        Figure::new(name("time"), pass.seconds(), "s")
            .over(by_the_pace)
            .at_most(1.03),
        Figure::new(name("CPU"), usage.cpu_seconds()?, "s"),
        Figure::new(name("peak memory"), usage.peak_mib()?, "MiB"),
    ])
}

/// Takes one right of a hundred away at Kisi, past us; answers how many that are.
async fn take_by_hand(servers: &KisiServers) -> anyhow::Result<usize> {
    let rights = servers.assignments().await?;
    let control = servers.control();
    let taken: Vec<&i64> = rights.iter().step_by(ONE_OF).collect();
    for right in &taken {
        let change = json!({ "action": "remove_assignment", "assignment_id": right });
        control.call(Method::POST, "/hands", Some(change)).await?;
    }
    Ok(taken.len())
}

/// Passes on demand run one after the other, and meanwhile payments fail: milliseconds from the
/// event's way onto `BILLING` to Kisi's having the request.
async fn revokes_meanwhile(servers: &KisiServers) -> anyhow::Result<Figure> {
    let passes = async {
        loop {
            if let Err(error) = servers.sync(GYM, WITHIN).await {
                return error;
            }
        }
    };
    let mut waits = tokio::select! {
        waits = revokes(servers) => waits?,
        error = passes => return Err(error),
    };
    let slots = 2_000.0 * WIDEST / RATE;
    Ok(Figure::new(
        "revoke during a reconcile, p99",
        percentile(&mut waits, 99),
        "ms",
    )
    .over(slots)
    .at_most(1.0))
}

async fn revokes(servers: &KisiServers) -> anyhow::Result<Vec<f64>> {
    let bus = &servers.memberships.bus;
    let events = GroupPublisher::new(bus.publisher());
    let nats = bus.jetstream().client();
    let control = servers.control();
    // The first pass has begun to ask.
    let seen = control.last_request().await?;
    let began = Instant::now();
    while control.last_request().await? == seen {
        ensure!(began.elapsed() < WITHIN, "no pass asks Kisi for anything");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut waits = Vec::with_capacity(REVOKES);
    for n in 0..REVOKES {
        let member = name(n * (MEMBERS / REVOKES));
        let subject = contracts::subjects::access(GYM, &member);
        let mut answers = nats.subscribe(subject).await?;
        nats.flush().await?;
        let seen = control.last_request().await?;
        let posted = Timestamp::now();
        let event = failed_invoice(&member, &format!("bench_{member}"), posted);
        publish(&events, &event).await?;
        let answer = tokio::time::timeout(WITHIN, answers.next()).await;
        answer.with_context(|| format!("no answer for {member}"))?;
        let requests = servers.requests(seen).await?;
        let revoke = requests
            .iter()
            .find(|request| request["method"] == "DELETE");
        let arrived = revoke.and_then(|request| request["time"].as_str());
        let arrived: Timestamp = arrived
            .with_context(|| format!("the door of {member} was not closed"))?
            .parse()?;
        waits.push(ms(Duration::try_from(arrived.duration_since(posted))?));
        // At another moment between two turns each time.
        tokio::time::sleep(Duration::from_millis(rand::random_range(150..550))).await;
    }
    Ok(waits)
}
