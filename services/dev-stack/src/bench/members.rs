//! Membership writes and billing events a second, next to what their database commits bare.
//!
//! Both count until the last state is on `MEMBERSHIP`, since a service that answers faster than it
//! publishes only makes people wait elsewhere. Floors are measured before and after, with nothing
//! else under way; the mean of the two counts.
//!
//! There are two floors on PostgreSQL, which flushes for all who wait at once, and the aim is held
//! against both: one connection that commits row after row, and as many as the service's pool has.
//! The latter use up both cores of a small machine by themselves, so what comes near it there depends
//! on what else runs on them: here the callers, nats-server and the service.

use std::time::{Duration, Instant};

use anyhow::ensure;
use contracts::billing::v1::BillingEvent;
use contracts::membership::v1 as membership;
use contracts::message::BusMessage;
use contracts::wire;
use event_bus::{Envelope, GroupPublisher};
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::commit_floor::{CommitFloor, IN_FLIGHT};
use super::figure::Figure;
use super::membership_servers::{ACCOUNT, Database, MembershipServers};
use super::roster_import;
use crate::folder::Folder;
use crate::settings::Settings;

const GYM: &str = "bench";
/// People, memberships written, and billing events: one of each for everybody.
const MEMBERS: usize = 6_000;
/// Callers, each of whom waits for an answer before the next write.
const CALLERS: usize = 64;
/// Their connections.
const CONNECTIONS: usize = 4;
/// What is good enough, as a part of the floor.
const AIM: f64 = 0.6;
const WITHIN: Duration = Duration::from_secs(120);

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
    servers.put_gym(GYM, "Europe/Zurich").await?;
    let people = (0..MEMBERS).map(|n| roster_import::person(&name(n)));
    roster_import::import(servers, GYM, people).await?;

    let floor = CommitFloor::new(servers).await?;
    let before = Floors::measure(&floor).await?;
    let writes = membership_writes(servers).await?;
    let between = Floors::measure(&floor).await?;
    let events = billing_events(servers).await?;
    let after = Floors::measure(&floor).await?;

    let mut figures = Vec::new();
    for (what, rate, unit, floors) in [
        ("membership writes", writes, "writes/s", before.and(between)),
        ("billing events", events, "events/s", between.and(after)),
    ] {
        let name = format!("{what}, {database}");
        let figure = Figure::new(&name, rate, unit).over(floors.one);
        figures.push(figure.at_least(AIM));
        figures.extend(floors.pool.map(|pool| {
            let name = format!("{name}, by {IN_FLIGHT} that commit at once");
            Figure::new(name, rate, unit).over(pool).at_least(AIM)
        }));
    }
    Ok(figures)
}

/// Commits a second.
#[derive(Clone, Copy)]
struct Floors {
    /// Of one connection.
    one: f64,
    /// Of as many as the pool has, where that is more than one.
    pool: Option<f64>,
}

impl Floors {
    async fn measure(floor: &CommitFloor) -> anyhow::Result<Self> {
        Ok(Self {
            one: floor.of_one().await?,
            pool: floor.of_pool().await?,
        })
    }

    /// Between the two.
    fn and(self, other: Self) -> Self {
        let pools = self.pool.zip(other.pool);
        Self {
            one: f64::midpoint(self.one, other.one),
            pool: pools.map(|(one, other)| f64::midpoint(one, other)),
        }
    }
}

fn name(n: usize) -> String {
    format!("m_{n:06}")
}

/// PutMembership, a new one for everybody.
async fn membership_writes(servers: &MembershipServers) -> anyhow::Result<f64> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(servers.client().await?);
    }
    let already = servers.published().await?;
    let started = Instant::now();
    stream::iter(0..MEMBERS)
        .map(|n| {
            let mut client = clients[n % CONNECTIONS].clone();
            let mut request = roster_import::membership(&name(n), "2026-01-01");
            request.gym_id = GYM.into();
            async move { client.put_membership(request).await }
        })
        .buffer_unordered(CALLERS)
        .try_for_each(|answer| async move {
            match answer.into_inner().applied {
                true => Ok(()),
                false => Err(tonic::Status::internal("a first write was stale")),
            }
        })
        .await?;
    let all = already + MEMBERS as u64;
    servers.until_published(all, WITHIN).await?;
    Ok(MEMBERS as f64 / started.elapsed().as_secs_f64())
}

/// A backlog that piled up while membership-events was down: of everybody, an invoice that failed.
async fn billing_events(servers: &mut MembershipServers) -> anyhow::Result<f64> {
    servers.stop_service().await;
    let events = GroupPublisher::new(servers.bus.publisher());
    let now = Timestamp::now();
    stream::iter(0..MEMBERS)
        .map(|n| {
            let events = &events;
            async move { publish(events, &failed_invoice(&name(n), &n.to_string(), now)).await }
        })
        .buffer_unordered(256)
        .try_for_each(|()| async { Ok(()) })
        .await?;

    let all = servers.published().await? + MEMBERS as u64;
    servers.start_service().await?;
    let started = Instant::now();
    servers.until_published(all, WITHIN).await?;
    let rate = MEMBERS as f64 / started.elapsed().as_secs_f64();

    ensure!(
        servers.published().await? == all,
        "a state was published twice"
    );
    let closed = closed_for_debt(servers).await?;
    ensure!(closed == MEMBERS, "{closed} of {MEMBERS} doors were closed");
    let taken = servers.count_billing_events().await?;
    ensure!(
        taken == MEMBERS as i64,
        "{taken} of {MEMBERS} events are kept"
    );
    Ok(rate)
}

/// An event as billing-webhook makes it.
pub fn failed_invoice(member: &str, id: &str, now: Timestamp) -> BillingEvent {
    BillingEvent {
        event_id: format!("evt_{id}"),
        provider: "stripe".into(),
        account: ACCOUNT.into(),
        kind: "payment_failed".into(),
        occurred_at: Some(wire::timestamp(now)),
        invoice_id: Some(format!("in_{id}")),
        payment_id: Some(format!("pi_{id}")),
        subscription_id: Some(format!("sub_{member}")),
        customer_id: Some(format!("cus_{member}")),
        amount_minor: Some(4_900),
        amount_due_minor: Some(4_900),
        currency: Some("EUR".into()),
        attempt_count: Some(1),
        payment_url: Some(format!("https://invoice.stripe.com/i/{ACCOUNT}/{id}")),
        ..Default::default()
    }
}

/// Puts it on `BILLING`.
pub async fn publish(events: &GroupPublisher, event: &BillingEvent) -> anyhow::Result<()> {
    let envelope = Envelope {
        ce_id: event.id(),
        ce_type: BillingEvent::TYPE.into(),
        ce_source: "/billing-webhook/bench".into(),
        ce_time: Timestamp::now(),
        ce_subject: event.about(),
        traceparent: None,
    };
    events.publish(&event.subject(), &envelope, event).await?;
    Ok(())
}

/// Members whose doors are closed because of a missed payment.
async fn closed_for_debt(servers: &MembershipServers) -> anyhow::Result<usize> {
    let mut client = servers.client().await?;
    let (mut closed, mut page_token) = (0, String::new());
    loop {
        let request = membership::ListMembersRequest {
            gym_id: GYM.into(),
            reason: "missed_payment".into(),
            page_size: 500,
            page_token,
            ..Default::default()
        };
        let page = client.list_members(request).await?.into_inner();
        closed += page.members.len();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(closed);
        }
    }
}
