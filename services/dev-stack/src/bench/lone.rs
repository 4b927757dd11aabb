//! A lone webhook: how long its sender waits while nobody else sends, next to a raw durable publish
//! and a bare HTTP round trip. The three take turns.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::bare_http::BareHttp;
use super::connection::{self, Connection};
use super::figure::{Figure, percentile};
use super::raw_publish::RawPublish;
use super::webhook_servers::WebhookServers;
use super::webhooks::{self, Event, Webhooks};
use crate::roster::Contract;
use crate::stack::Stack;

/// Rounds of each measurement that rests in between.
const ROUNDS: usize = 300;
/// Without a rest a round takes a millisecond, and three hundred of them a moment in which anything
/// else that the machine does shows.
const ROUNDS_WITHOUT_REST: usize = 3_000;
/// Rounds before them that are not counted: caches, file growth.
const WARM_UP: usize = 20;
/// Long enough that each of the three finds everybody asleep.
const REST: Duration = Duration::from_millis(10);
/// What a webhook leaves the services to do is over by then.
const REST_OF_THE_CHAIN: Duration = Duration::from_millis(60);

/// With nobody who reads what webhooks become: one after the other, and, to inform, each after a
/// rest, which costs our longer way through colder code more than it costs the two short ones.
pub async fn consumers_stopped(
    servers: &WebhookServers,
    webhooks: &Webhooks,
) -> anyhow::Result<Vec<Figure>> {
    let host = servers.in_groups;
    let mut medians = Vec::new();
    for (rest, rounds) in [(Duration::ZERO, ROUNDS_WITHOUT_REST), (REST, ROUNDS)] {
        let requests = webhooks.make(WARM_UP + rounds, host, &servers.secret);
        let rests = Rests {
            after_webhook: rest,
            after_floor: rest,
        };
        medians.push(measure(host, servers.nats, requests, rests).await?);
    }
    let figure = |name, (value, floor)| Figure::new(name, value, "ms").over(floor);
    Ok(vec![
        figure("lone_webhook", medians[0]).at_most(1.3),
        figure("lone_webhook_after_rest", medians[1]),
    ])
}

/// With every service running: each webhook closes a door, or opens it again.
pub async fn whole_chain(stack: &Stack) -> anyhow::Result<Figure> {
    let host = stack.first("billing-webhook")?.http;
    let now = Timestamp::now();
    let contracts: Vec<&Contract> = stack
        .demo
        .contracts
        .iter()
        .filter(|contract| contract.holders.len() == 1)
        .collect();
    let requests = (0..WARM_UP + ROUNDS)
        .map(|number| {
            let event = Event {
                kind: match number % 2 {
                    0 => "invoice.payment_failed",
                    _ => "invoice.paid",
                },
                invoice: &format!("in_lone_{}_{}", now.as_second(), number / 2),
                id: &format!("evt_lone_{}_{number}", now.as_second()),
            };
            let contract = contracts[(number / 2) % contracts.len()];
            webhooks::request(host, &stack.stripe_secret, contract, event, now)
        })
        .collect();
    let rests = Rests {
        after_webhook: REST_OF_THE_CHAIN,
        after_floor: REST,
    };
    let (value, floor) = measure(host, stack.nats, requests, rests).await?;
    Ok(Figure::new("lone_webhook_whole_chain", value, "ms")
        .over(floor)
        .at_most(1.7))
}

struct Rests {
    after_webhook: Duration,
    after_floor: Duration,
}

/// Medians in milliseconds: of a webhook, and of a raw publish and a bare round trip together.
async fn measure(
    host: SocketAddr,
    nats: SocketAddr,
    requests: Vec<Vec<u8>>,
    rests: Rests,
) -> anyhow::Result<(f64, f64)> {
    let bare = BareHttp::start()?;
    let mut to_us = Connection::open(host).await?;
    let mut to_bare = Connection::open(bare.address).await?;
    let mut raw = None;
    let [mut ours, mut published, mut answered] =
        [(); 3].map(|()| Vec::with_capacity(requests.len()));
    for (round, request) in requests.iter().enumerate() {
        let started = Instant::now();
        to_us.ask(request).await?;
        let webhook = started.elapsed();
        rest(rests.after_webhook).await;

        // The message that a webhook became is what is published raw.
        let raw = match &mut raw {
            Some(raw) => raw,
            none => none.insert(RawPublish::of_last_webhook(nats).await?),
        };
        let started = Instant::now();
        raw.publish().await?;
        let publish = started.elapsed();
        rest(rests.after_floor).await;

        let echo = connection::post(bare.address, "/bare", &[], connection::body(request));
        let started = Instant::now();
        to_bare.ask(&echo).await?;
        let round_trip = started.elapsed();
        rest(rests.after_floor).await;

        if round >= WARM_UP {
            ours.push(ms(webhook));
            published.push(ms(publish));
            answered.push(ms(round_trip));
        }
    }
    Ok((
        percentile(&mut ours, 50),
        percentile(&mut published, 50) + percentile(&mut answered, 50),
    ))
}

/// A sleep of no length would last a millisecond all the same.
async fn rest(span: Duration) {
    if !span.is_zero() {
        tokio::time::sleep(span).await;
    }
}

/// Milliseconds.
pub fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}
