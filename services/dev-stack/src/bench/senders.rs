//! Many senders at once, each of whom waits for its 2xx before it sends the next webhook: how many
//! webhooks a second, and how long each sender waits.
//!
//! Held against raw durable publishes at the same number in flight, and against billing-webhook
//! without group commit, on the same server. A round is a fixed number of webhooks; rounds of the
//! three take turns, and the median round counts.
//!
//! All load comes from one thread of this program, made beforehand and written over connections
//! that are kept (`connection`): on a machine of two cores the senders take their share of what is
//! measured, and a raw publish needs no sender beside it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::connection::Connection;
use super::figure::{Figure, percentile};
use super::lone::ms;
use super::raw_publish::RawPublish;
use super::webhook_servers::WebhookServers;
use super::webhooks::Webhooks;

/// (senders, webhooks of a round).
const LEVELS: [(usize, usize); 4] = [(1, 500), (16, 2_000), (64, 4_000), (256, 4_000)];
const ROUNDS: usize = 7;
/// From so many senders on there is an aim, and it is held against raw publishes at this many.
const MANY: usize = 64;

/// Who takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Contestant {
    Raw,
    InGroups,
    Singly,
}

/// What a round came to.
#[derive(Clone, Copy, Debug)]
struct Round {
    per_second: f64,
    p50: f64,
    p99: f64,
}

/// A measure of a round.
type Measure = fn(&Round) -> f64;

/// All rounds, by who and how many at once.
type Rounds = BTreeMap<(Contestant, usize), Vec<Round>>;

/// Every row of this part.
pub async fn measure(servers: &WebhookServers, webhooks: &Webhooks) -> anyhow::Result<Vec<Figure>> {
    // The message that a webhook became is what is published raw.
    let first = webhooks.make(1, servers.in_groups, &servers.secret);
    posts(servers.in_groups, 1, first).await?;
    let raw = RawPublish::of_last_webhook(servers.nats).await?;
    let mut rounds = Rounds::new();
    // The first one of each warms up and is not counted.
    for turn in 0..=ROUNDS {
        for (senders, count) in LEVELS {
            for who in [Contestant::Raw, Contestant::InGroups, Contestant::Singly] {
                let host = match who {
                    Contestant::Raw => None,
                    Contestant::InGroups => Some(servers.in_groups),
                    Contestant::Singly => Some(servers.singly),
                };
                let round = match host {
                    None => publishes(&raw, senders, count).await?,
                    Some(host) => {
                        let requests = webhooks.make(count, host, &servers.secret);
                        posts(host, senders, requests).await?
                    }
                };
                if turn > 0 {
                    rounds.entry((who, senders)).or_default().push(round);
                }
            }
        }
    }
    Ok(figures(&rounds))
}

fn figures(rounds: &Rounds) -> Vec<Figure> {
    let median = |who, senders, of: Measure| {
        let rounds = rounds.get(&(who, senders)).map_or(&[][..], Vec::as_slice);
        percentile(&mut rounds.iter().map(of).collect::<Vec<_>>(), 50)
    };
    let rate = |who, senders| median(who, senders, |round| round.per_second);
    let mut figures = Vec::new();
    for (senders, _) in LEVELS {
        let many = senders >= MANY;
        let ours = rate(Contestant::InGroups, senders);
        let figure = |name: String| Figure::new(name, ours, "webhooks/s");

        let per_second = figure(format!("webhooks_per_second_{senders}_senders"))
            .over(rate(Contestant::Raw, senders));
        figures.push(if senders == MANY {
            per_second.at_least(0.8)
        } else {
            per_second
        });
        if senders > MANY {
            let name = format!("webhooks_per_second_{senders}_senders_by_{MANY}_in_flight");
            let raw = rate(Contestant::Raw, MANY);
            figures.push(figure(name).over(raw).at_least(0.8));
        }
        let unbatched = figure(format!("webhooks_vs_unbatched_{senders}"))
            .over(rate(Contestant::Singly, senders));
        figures.push(if many {
            unbatched.at_least(1.3)
        } else {
            unbatched
        });
        let waits: [(_, Measure); 2] = [("p50", |round| round.p50), ("p99", |round| round.p99)];
        for (name, of) in waits {
            let value = median(Contestant::InGroups, senders, of);
            let floor = median(Contestant::Raw, senders, of);
            let name = format!("webhook_{name}_{senders}_senders");
            figures.push(Figure::new(name, value, "ms").over(floor));
        }
    }
    figures
}

/// All of `requests` over `senders` connections, which are open before the clock starts.
async fn posts(host: SocketAddr, senders: usize, requests: Vec<Vec<u8>>) -> anyhow::Result<Round> {
    let mut shares: Vec<Vec<Vec<u8>>> = (0..senders).map(|_| Vec::new()).collect();
    for (number, request) in requests.into_iter().enumerate() {
        shares[number % senders].push(request);
    }
    let mut connections = Vec::with_capacity(senders);
    for share in shares {
        connections.push((Connection::open(host).await?, share));
    }
    at_once(
        connections
            .into_iter()
            .map(|(mut connection, share)| async move {
                let mut waits = Vec::with_capacity(share.len());
                for request in share {
                    let started = Instant::now();
                    connection.ask(&request).await?;
                    waits.push(started.elapsed());
                }
                Ok(waits)
            }),
    )
    .await
}

/// `count` raw publishes with `in_flight` at once.
async fn publishes(raw: &RawPublish, in_flight: usize, count: usize) -> anyhow::Result<Round> {
    at_once((0..in_flight).map(|number| {
        let raw = raw.clone();
        // As requests are dealt out.
        let share = (count - number).div_ceil(in_flight);
        async move {
            let mut waits = Vec::with_capacity(share);
            for _ in 0..share {
                let started = Instant::now();
                raw.publish().await?;
                waits.push(started.elapsed());
            }
            Ok(waits)
        }
    }))
    .await
}

/// Runs all of them side by side.
async fn at_once<F>(work: impl Iterator<Item = F>) -> anyhow::Result<Round>
where
    F: Future<Output = anyhow::Result<Vec<Duration>>> + Send + 'static,
{
    let started = Instant::now();
    let mut running: JoinSet<_> = work.collect();
    let mut waits = Vec::new();
    while let Some(ended) = running.join_next().await {
        waits.extend(ended??.into_iter().map(ms));
    }
    let elapsed = started.elapsed();
    Ok(Round {
        per_second: waits.len() as f64 / elapsed.as_secs_f64(),
        p50: percentile(&mut waits, 50),
        p99: percentile(&mut waits, 99),
    })
}
