//! A random workload while everything around the service, and the service itself, is killed,
//! restarted and set to another time. When all is quiet, what was published last about everybody is
//! what the tables come to, and no version ever went back.
//!
//! `FAULTS_SEED` plays another one, `FAULTS_ROUNDS` a longer one.

use std::net::SocketAddr;
use std::time::Duration;

use contracts::message::BusMessage;
use event_bus::{Bus, Envelope};
use jiff::{SignedDuration, Timestamp};
use membership_events::store::{self, Store};
use testkit::{Postgres, eventually, free_port};
use tokio::task::JoinSet;

use crate::steered::{self, FileClock};
use crate::watch::Watch;
use crate::workload::{Step, Workload, is_refusal, may_be_sent_again};
use crate::world::{Client, World};

const DEADLINE: Duration = Duration::from_secs(90);
/// Steps of each round, half of them before its fault.
const STEPS: usize = 40;
/// Shortly before a repeated midnight in the gym's first zone.
const BEGINNING: &str = "2026-10-30T12:00:00Z";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_ends_as_the_tables_say_whatever_fails_on_sqlite() {
    let world = World::on_sqlite().await;
    let faults = [
        Fault::KillService,
        Fault::RestartNats,
        Fault::SetClock,
        Fault::KillNats,
    ];
    play(world, None, 1, &faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_ends_as_the_tables_say_whatever_fails_on_postgres() {
    let server = Postgres::start().await.expect("a server");
    let database = server.create_database().await.expect("a database");
    let world = World::on_database(database).await;
    let faults = [
        Fault::RestartPostgres,
        Fault::SetClock,
        Fault::KillService,
        Fault::RestartNats,
        Fault::KillPostgres,
    ];
    play(world, Some(server), 2, &faults).await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// One replica, with kill -9, whatever it is in the middle of.
    KillService,
    RestartNats,
    KillNats,
    RestartPostgres,
    KillPostgres,
    SetClock,
}

fn number(variable: &str, otherwise: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.map_or(otherwise, |text| text.parse().expect("a number"))
}

async fn play(world: World, mut postgres: Option<Postgres>, replicas: usize, faults: &[Fault]) {
    let seed = number("FAULTS_SEED", 20_261_030);
    println!("FAULTS_SEED={seed}");
    let folder = tempfile::tempdir().expect("a folder");
    // Dropped before it: its programs read the clock in it.
    let mut world = world;
    let mut now: Timestamp = BEGINNING.parse().expect("an instant");
    let clock = FileClock::new(folder.path(), now);
    world.stop_all().await;
    let addresses: Vec<SocketAddr> = (0..replicas)
        .map(|_| SocketAddr::from(([127, 0, 0, 1], free_port())))
        .collect();
    for address in &addresses {
        steered::start(&mut world, *address, &clock);
    }
    let watch = Watch::start(&world.bus);
    let clients = world.clients_with(&world.tokens.service("dice"));
    let mut workload = Workload::new(seed);
    for step in workload.beginning(now) {
        perform(step, clients.clone(), world.bus.clone()).await;
    }
    let (mut erased, mut imported) = (0, 0);
    let mut jumps = Jumps(0);
    let rounds = number("FAULTS_ROUNDS", faults.len() as u64) as usize;
    for round in 0..rounds {
        let mut under_way = JoinSet::new();
        for nth in 0..STEPS {
            if nth == STEPS / 2 {
                let fault = faults[round % faults.len()];
                println!("{round}: {fault:?} at {now}");
                let dice = &mut workload.dice;
                match fault {
                    Fault::KillService => {
                        let address = addresses[dice.below(replicas as u64) as usize];
                        world.kill(address).await;
                        steered::start(&mut world, address, &clock);
                    }
                    Fault::RestartNats => world.nats.restart().await.expect("restarted"),
                    Fault::KillNats => {
                        world.nats.kill().await.expect("killed");
                        world.nats.restart().await.expect("started");
                    }
                    Fault::RestartPostgres | Fault::KillPostgres => {
                        let server = postgres.as_mut().expect("a server");
                        if fault == Fault::KillPostgres {
                            server.kill().await.expect("killed");
                        }
                        server.restart().await.expect("started");
                    }
                    Fault::SetClock => {}
                }
                if fault == Fault::SetClock {
                    now = jumps.next(now);
                    clock.set(now);
                }
            }
            if nth == STEPS / 4 * 3 {
                now = jumps.next(now);
                clock.set(now);
            }
            let step = workload.next(now);
            erased += usize::from(matches!(step, Step::Delete(_)));
            imported += usize::from(matches!(step, Step::Import(_)));
            let mut clients = clients.clone();
            clients.rotate_left(nth % replicas);
            under_way.spawn(perform(step, clients, world.bus.clone()));
            while under_way.len() >= 8 {
                under_way.join_next().await.expect("one").expect("no panic");
            }
        }
        while let Some(done) = under_way.join_next().await {
            done.expect("no panic");
        }
    }
    // Put back at last, with nobody to say anything more.
    now -= SignedDuration::from_hours(71);
    clock.set(now);
    world.until_billing_is_quiet().await;
    world.clock.set(now);
    let store = world.store().await;
    until_quiet(&world, &store, now).await;
    let last = watch.end(&world.bus).await;
    world.check_everybody(&store).await;
    for (member, (version, state)) in &last {
        let published = world.published(member).await.expect("a state");
        assert_eq!(
            (published.version, &published),
            (*version, state),
            "{member}"
        );
    }
    assert!(last.len() >= 40, "{} members", last.len());
    assert!(
        erased > 0 && imported > 0,
        "{erased} erased, {imported} rosters"
    );
    let tombstones = last.values().filter(|(_, state)| state.erased).count();
    assert!(
        (1..=erased).contains(&tombstones),
        "{tombstones} of {erased}"
    );
    assert_eq!(world.dead_letters().await, 0);
    world.stop_all().await;
}

/// How the clock is set: over the night in which midnight is repeated, and back, and by days.
struct Jumps(usize);

impl Jumps {
    fn next(&mut self, now: Timestamp) -> Timestamp {
        let hours = [37, -50, 91, -20, 13, -7][self.0 % 6];
        self.0 += 1;
        now + SignedDuration::from_mins(hours * 60 + self.0 as i64)
    }
}

/// Waits until time has nothing left to do, nothing that was decided in a time to come is held, and
/// the outbox is empty.
async fn until_quiet(world: &World, store: &Store, now: Timestamp) {
    eventually("time has nothing to do", DEADLINE, async || {
        let due = store::timers::list_gyms(store.reads(), now).await;
        let later = world.is_anybody_held_otherwise(store).await;
        let waiting = store::outbox::backlog(store.reads(), i64::MAX).await;
        due.expect("gyms").is_empty() && !later && waiting.expect("a count").depth == 0
    })
    .await;
}

/// Sends a step until it is taken, as a caller does, to one replica after the other.
async fn perform(step: Step, mut clients: Vec<Client>, bus: Bus) {
    let taken = async {
        for attempt in 0.. {
            let nth = attempt % clients.len();
            let attempt = attempt_once(&step, &mut clients[nth], &bus);
            if let Ok(true) = tokio::time::timeout(Duration::from_secs(10), attempt).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let taken = tokio::time::timeout(DEADLINE, taken).await;
    taken.unwrap_or_else(|_| panic!("not taken in time: {step:?}"));
}

/// Whether it is taken.
async fn attempt_once(step: &Step, client: &mut Client, bus: &Bus) -> bool {
    let Step::Event(event) = step else {
        return match step.clone().send(client).await {
            Ok(()) => true,
            Err(status) if is_refusal(&status) => true,
            Err(status) if may_be_sent_again(&status) => false,
            Err(status) => panic!("{step:?}: {status:?}"),
        };
    };
    let envelope = Envelope {
        ce_id: event.id(),
        ce_type: contracts::billing::v1::BillingEvent::TYPE.into(),
        ce_source: "/test".into(),
        ce_time: Timestamp::UNIX_EPOCH,
        ce_subject: event.about(),
        traceparent: None,
    };
    let publisher = bus.publisher();
    publisher
        .publish(&event.subject(), &envelope, &**event)
        .await
        .is_ok()
}
