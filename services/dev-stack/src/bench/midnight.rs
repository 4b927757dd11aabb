//! 50,000 memberships of twenty gyms that start at the same midnight: how fast they are decided and
//! published, what a live event waits meanwhile, and whether a small gym is done early.
//!
//! A midnight is had by letting it pass while membership-events is down. The roster says that all
//! start tomorrow, which makes a decision and a timer for each; then the service is stopped, and
//! in its tables "tomorrow" becomes today. So they are what they would be, had it stopped
//! yesterday: the start is catching up after downtime, which is the same work as a midnight.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use contracts::membership::v1::import_roster_request::Part;
use event_bus::GroupPublisher;
use futures_util::StreamExt;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::figure::{Figure, percentile};
use super::lone::ms;
use super::members::{failed_invoice, publish};
use super::membership_servers::{Database, MembershipServers};
use super::roster_import;
use crate::folder::Folder;
use crate::settings::Settings;

/// The gyms whose memberships start.
const GYMS: usize = 20;
const MEMBERS: usize = 50_000;
/// Of them, those of the last gym.
const SMALL: usize = 50;
/// The gym of live events, nobody of which waits for a midnight.
const LIVE: &str = "live";
const LIVE_MEMBERS: usize = 2_000;
/// Live events measured with nothing else under way.
const IDLE: usize = 100;
/// Between two of them.
const REST: Duration = Duration::from_millis(100);
const WITHIN: Duration = Duration::from_secs(600);
/// What a live event waits at most of what all take together: it stands behind a batch or two.
const AIM_LIVE: f64 = 0.05;
/// When a small gym is done: its turn comes as often as a large one's.
const AIM_SMALL: f64 = 0.25;

/// On one database.
pub async fn measure(
    folder: Folder,
    settings: &Settings,
    database: Database,
) -> anyhow::Result<Vec<Figure>> {
    let mut servers = MembershipServers::start(folder, settings, database).await?;
    let measured = measure_with(&mut servers, database.as_str()).await;
    servers.stop().await;
    measured
}

async fn measure_with(
    servers: &mut MembershipServers,
    database: &str,
) -> anyhow::Result<Vec<Figure>> {
    let today = Timestamp::now().to_zoned_datetime(TimeZone::UTC);
    let (tomorrow, midnight) = (today.date().tomorrow()?, today.start_of_day()?);
    servers.put_gym(LIVE, "UTC").await?;
    let parts = roster(LIVE, LIVE_MEMBERS, "2026-01-01");
    roster_import::import(servers, LIVE, parts).await?;
    for gym in 0..GYMS {
        let id = gym_id(gym);
        servers.put_gym(&id, "UTC").await?;
        let parts = roster(&id, size_of(gym), &tomorrow.to_string());
        roster_import::import(servers, &id, parts).await?;
    }
    servers
        .until_published((LIVE_MEMBERS + MEMBERS) as u64, WITHIN)
        .await?;

    let mut live = Live::new(servers);
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        idle.extend(live.event().await?);
        tokio::time::sleep(REST).await;
    }

    servers.stop_service().await;
    let moved = servers
        .move_starts(
            &tomorrow.to_string(),
            &today.date().to_string(),
            midnight.timestamp(),
        )
        .await?;
    ensure!(moved == MEMBERS as u64, "{moved} timers are due");

    let states = servers
        .bus
        .jetstream()
        .client()
        .subscribe("membership.v1.>")
        .await?;
    let starts = tokio::spawn(starts(states));
    servers.start_service().await?;
    let started = Instant::now();
    let mut meanwhile = Vec::new();
    while !starts.is_finished() {
        meanwhile.extend(live.event().await?);
        tokio::time::sleep(REST).await;
    }
    let starts = starts.await??;
    let done = starts.last_of_all.duration_since(started).as_secs_f64();
    let small = starts.last_of(&gym_id(GYMS - 1))?;
    let small = small.duration_since(started).as_secs_f64();
    ensure!(
        meanwhile.len() > 20,
        "too few live events to tell: {}",
        meanwhile.len()
    );

    let name = |what: &str| format!("midnight of {MEMBERS}, {what}, {database}");
    let p = |times: &[f64], percent| percentile(&mut times.to_vec(), percent);
    Ok(vec![
        Figure::new(name("members"), MEMBERS as f64 / done, "members/s"),
        Figure::new(name("live event, p50"), p(&meanwhile, 50), "ms").over(p(&idle, 50)),
        Figure::new(name("live event, p99"), p(&meanwhile, 99), "ms").over(p(&idle, 99)),
        Figure::new(
            name("live event, p99, of the whole"),
            p(&meanwhile, 99),
            "ms",
        )
        .over(done * 1e3)
        .at_most(AIM_LIVE),
        Figure::new(name("a gym of 50 is done"), small, "s")
            .over(done)
            .at_most(AIM_SMALL),
    ])
}

fn gym_id(gym: usize) -> String {
    format!("gym_{gym:02}")
}

fn size_of(gym: usize) -> usize {
    if gym == GYMS - 1 {
        return SMALL;
    }
    let (each, more) = (
        (MEMBERS - SMALL) / (GYMS - 1),
        (MEMBERS - SMALL) % (GYMS - 1),
    );
    each + usize::from(gym < more)
}

fn roster(
    gym: &str,
    members: usize,
    starts_on: &str,
) -> impl Iterator<Item = Part> + Send + 'static {
    let (gym, starts_on) = (gym.to_owned(), starts_on.to_owned());
    (0..members).flat_map(move |n| {
        let id = member_id(&gym, n);
        let membership = roster_import::membership(&id, &starts_on);
        [roster_import::person(&id), Part::Membership(membership)]
    })
}

fn member_id(gym: &str, n: usize) -> String {
    format!("{gym}_{n:05}")
}

/// When each gym's last start was published.
struct Starts {
    last: BTreeMap<String, Instant>,
    last_of_all: Instant,
}

impl Starts {
    fn last_of(&self, gym: &str) -> anyhow::Result<Instant> {
        self.last.get(gym).copied().context("a gym without a start")
    }
}

/// Listens until all have started.
async fn starts(mut states: async_nats::Subscriber) -> anyhow::Result<Starts> {
    let mut starts = Starts {
        last: BTreeMap::new(),
        last_of_all: Instant::now(),
    };
    let mut left = MEMBERS;
    while left > 0 {
        let state = tokio::time::timeout(WITHIN, states.next()).await;
        let state = state.context("a start did not come")?;
        let state = state.context("NATS is gone")?;
        let gym = state.subject.split('.').nth(2).unwrap_or_default();
        if gym != LIVE {
            left -= 1;
            starts.last_of_all = Instant::now();
            starts.last.insert(gym.to_owned(), starts.last_of_all);
        }
    }
    Ok(starts)
}

/// Payments that fail, each of another member who is let in.
struct Live {
    events: GroupPublisher,
    nats: async_nats::Client,
    made: usize,
}

impl Live {
    fn new(servers: &MembershipServers) -> Self {
        Self {
            events: GroupPublisher::new(servers.bus.publisher()),
            nats: servers.bus.jetstream().client(),
            made: 0,
        }
    }

    /// Milliseconds from the event's place on `BILLING` to the member's state on `MEMBERSHIP`; none
    /// when all members have had one.
    async fn event(&mut self) -> anyhow::Result<Option<f64>> {
        if self.made == LIVE_MEMBERS {
            return Ok(None);
        }
        let member = member_id(LIVE, self.made);
        self.made += 1;
        let event = failed_invoice(&member, &format!("live_{member}"), Timestamp::now());
        let subject = format!("membership.v1.{LIVE}.{member}");
        let mut state = self.nats.subscribe(subject).await?;
        self.nats.flush().await?;
        publish(&self.events, &event).await?;
        let stored = Instant::now();
        let state = tokio::time::timeout(WITHIN, state.next()).await;
        state.with_context(|| format!("no state of {member}"))?;
        Ok(Some(ms(stored.elapsed())))
    }
}
