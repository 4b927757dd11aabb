//! ImportRoster of a large gym: the first time, and again with nothing new, with the most memory
//! that membership-events held at each.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use contracts::membership::v1 as membership;
use contracts::membership::v1::import_roster_request::Part;
use contracts::wire;
use futures_util::stream;
use jiff::Timestamp;

use super::figure::Figure;
use super::membership_servers::{ACCOUNT, Database, MembershipServers};
use crate::folder::Folder;
use crate::settings::Settings;

const GYM: &str = "bench";
/// Each has a membership: twice as many rows.
const MEMBERS: usize = 100_000;
/// What membership-events may hold at most meanwhile, however large the gym.
const AIM_MIB: f64 = 48.0;
const WITHIN: Duration = Duration::from_secs(120);

/// On one database.
pub async fn measure(
    folder: Folder,
    settings: &Settings,
    database: Database,
) -> anyhow::Result<Vec<Figure>> {
    let mut servers = MembershipServers::start(folder, settings, database).await?;
    let measured = measure_with(&servers, database.as_str()).await;
    servers.stop().await;
    measured
}

async fn measure_with(servers: &MembershipServers, database: &str) -> anyhow::Result<Vec<Figure>> {
    servers.put_gym(GYM, "Europe/Zurich").await?;
    let mut figures = Vec::new();
    for (which, changed) in [("first", 2 * MEMBERS as i64), ("unchanged", 0)] {
        forget_peak(servers)?;
        let started = Instant::now();
        let last = import(servers, GYM, everybody()).await?;
        ensure!(last.changed == changed, "of the {which} one: {last:?}");
        let seconds = started.elapsed().as_secs_f64();
        servers.until_published(MEMBERS as u64, WITHIN).await?;
        let name = |what| format!("roster of {MEMBERS}, {which}, {what}, {database}");
        let rows = 2.0 * MEMBERS as f64;
        figures.extend([
            Figure::new(name("time"), seconds, "s"),
            Figure::new(name("rows"), rows / seconds, "rows/s"),
            Figure::new(name("peak memory"), peak_mib(servers)?, "MiB").at_most(AIM_MIB),
        ]);
    }
    ensure!(
        servers.published().await? == MEMBERS as u64,
        "an unchanged roster made a state"
    );
    Ok(figures)
}

fn everybody() -> impl Iterator<Item = Part> + Send + 'static {
    let name = |n| format!("m_{n:06}");
    (0..MEMBERS)
        .map(move |n| person(&name(n)))
        .chain((0..MEMBERS).map(move |n| Part::Membership(membership(&name(n), "2026-01-01"))))
}

/// Imports a roster, and answers the last that is told of it.
pub async fn import(
    servers: &MembershipServers,
    gym: &str,
    parts: impl Iterator<Item = Part> + Send + 'static,
) -> anyhow::Result<membership::ImportRosterProgress> {
    let header = Part::Header(membership::RosterHeader {
        gym_id: gym.into(),
        as_of: Some(wire::timestamp(Timestamp::now())),
        confirm_digest: None,
        parts: None,
    });
    let requests = std::iter::once(header)
        .chain(parts)
        .map(|part| membership::ImportRosterRequest { part: Some(part) });
    let mut client = servers.client().await?;
    let answers = client.import_roster(stream::iter(requests)).await?;
    let mut answers = answers.into_inner();
    let mut last = None;
    while let Some(told) = answers.message().await? {
        last = Some(told);
    }
    let last = last.context("an import without an answer")?;
    ensure!(last.state == "applied", "{last:?}");
    Ok(last)
}

/// A person of a roster.
pub fn person(id: &str) -> Part {
    Part::Member(membership::RosterMember {
        member_id: id.into(),
        email: format!("{id}@example.org"),
        name: format!("Person {id}"),
        source_version: 1,
    })
}

/// Her membership, with a subscription of its own.
pub fn membership(member: &str, starts_on: &str) -> membership::PutMembershipRequest {
    membership::PutMembershipRequest {
        membership_id: format!("ms_{member}"),
        plan_id: "open-gym".into(),
        member_ids: vec![member.into()],
        starts_on: starts_on.into(),
        billing: Some(membership::BillingReference {
            provider: "stripe".into(),
            account: ACCOUNT.into(),
            subscription_id: Some(format!("sub_{member}")),
            customer_id: Some(format!("cus_{member}")),
            mandate_id: None,
        }),
        source_version: 1,
        ..Default::default()
    }
}

/// From here on the peak is counted anew.
fn forget_peak(servers: &MembershipServers) -> anyhow::Result<()> {
    let path = format!("/proc/{}/clear_refs", servers.pid()?);
    std::fs::write(&path, "5").context(path)
}

/// The most resident memory of membership-events.
fn peak_mib(servers: &MembershipServers) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", servers.pid()?))?;
    super::memory::mib(&status, "VmHWM:")
}
