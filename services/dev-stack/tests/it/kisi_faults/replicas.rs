//! Two and three replicas of kisi-sync on PostgreSQL, killed, stopped and held still past their
//! leases while members of several gyms change all the time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use testkit::{Postgres, eventually};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::answers::Answers;
use super::audit;
use super::desk::{DAY, Desk, NIGHT, PLANS};
use super::gyms::{Gyms, Plan};
use super::ledger::Ledger;
use super::owners::Owners;
use super::setting;
use crate::harness::{DEADLINE, folder, settings};

const MEMBERS: usize = 16;
/// One change of some member, so often.
const CHANGE_EVERY: Duration = Duration::from_millis(30);
/// What a replica had fetched comes to others when it has not been acknowledged for five seconds, and
/// what waits meanwhile is written at Kisi's pace.
const BACKLOG: Duration = Duration::from_secs(10);
/// How often a replica is looked for in the middle of a transaction.
const LOOKS: usize = 12;

/// A killed replica is replaced so soon.
const REPLACED: Duration = Duration::from_secs(15);

/// How long leases last, and how often they are renewed.
struct Pace {
    lease: Duration,
    renew: Duration,
}

impl Pace {
    /// A graceful stop gives the gyms back at once, and nobody waits for their leases to run out; the rest
    /// is a busy machine's.
    fn at_once(&self) -> Duration {
        self.lease * 3 / 4
    }
}

impl Pace {
    /// The usual one at full length.
    fn choose() -> Self {
        let (lease, renew) = match setting("KISI_FAULTS_ROUNDS") {
            Some(_) => (10, 3),
            None => (4, 1),
        };
        Self {
            lease: Duration::from_secs(lease),
            renew: Duration::from_secs(renew),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_that_die_stop_and_stand_still_keep_the_doors_right() {
    replicas(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_that_die_stop_and_stand_still_keep_the_doors_right() {
    replicas(3).await;
}

async fn replicas(count: usize) {
    let pace = Pace::choose();
    let server = Postgres::start().await.expect("PostgreSQL");
    let database = server.create_database().await.expect("a database");
    let folder = folder();
    let mut settings = settings(&folder);
    settings.kisi_sync_database_url = Some(database.url().to_owned());
    settings.kisi_sync_replicas = Some(count);
    // Slow enough for work to be on its way when somebody is held still.
    settings.kisi_requests_per_second = Some("20".to_owned());
    settings.kisi_sync_environment.extend([
        ("LEASE_TTL", format!("{}s", pace.lease.as_secs())),
        ("LEASE_RENEW_EVERY", format!("{}s", pace.renew.as_secs())),
        ("KISI_REQUEST_TIMEOUT", "2s".to_owned()),
        // Whatever is missed is not to be found by a pass.
        ("RECONCILE_EVERY", "24h".to_owned()),
    ]);
    let plan = Plan {
        gyms: 2 * count,
        members: MEMBERS,
        has: &|number| if number % 2 == 0 { &[DAY] } else { &[NIGHT] },
        strangers: 0,
    };
    let gyms = Gyms::start(&settings, &plan).await;
    let answers = Answers::listen(&gyms.stack).await;
    let owners = Owners {
        database_url: database.url().to_owned(),
    };
    owners
        .until_shared(&gyms.stack, count, gyms.all.len())
        .await;
    let seed = setting("KISI_FAULTS_SEED").unwrap_or(7);
    let load = Load::start(&gyms, seed);
    let mut trial = Trial {
        gyms,
        owners,
        count,
        at_once: pace.at_once(),
    };
    let rounds = setting("KISI_FAULTS_ROUNDS").unwrap_or(1);
    for round in 0..rounds {
        trial.kill(round).await;
        trial.stop(round).await;
        trial.hold_still(round, &load.gate).await;
    }
    let changes = load.end().await;
    trial.gyms.until_doors_are_right("all of it").await;
    trial.gyms.desk.check().await;

    let mut ledger = Ledger::default();
    ledger.read(&trial.gyms, 0).await;
    let decisions = trial.gyms.desk.decisions().clone();
    let stale = ledger.stale(&decisions, &answers.heard());
    assert!(stale.is_empty(), "seed {seed}: {stale:#?}");
    // A replica has one request of each of its gyms under way, whose answer may be lost with it.
    let lost = 3 * rounds as usize * (trial.gyms.all.len() / count);
    assert!(ledger.repeated <= lost, "{} repeats", ledger.repeated);
    eprintln!(
        "seed {seed}: {changes} changes, {} writes, {} repeated",
        ledger.writes.len(),
        ledger.repeated
    );
    audit::check(&settings, &ledger).await;
    trial.gyms.stack.stop().await;
}

struct Trial {
    gyms: Gyms,
    owners: Owners,
    count: usize,
    at_once: Duration,
}

impl Trial {
    /// SIGKILL: others have the gyms when the leases have run out.
    async fn kill(&mut self, round: u64) {
        let (name, lost) = self.next(round).await;
        let killed = Instant::now();
        self.gyms.stack.child(&name).expect("it").kill().await;
        self.until_others_have(&name, &lost).await;
        let took = killed.elapsed();
        self.until_doors_follow(&lost).await;
        eprintln!(
            "{name} was killed: {} gyms are others' after {took:?}, and follow after {:?}",
            lost.len(),
            killed.elapsed()
        );
        assert!(took < REPLACED, "{took:?}");
        assert!(killed.elapsed() < REPLACED + BACKLOG);
        self.back(&name).await;
    }

    /// SIGTERM: others have the gyms at once.
    async fn stop(&mut self, round: u64) {
        let (name, lost) = self.next(round + 1).await;
        self.gyms.stack.child(&name).expect("it").stop().await;
        let stopped = Instant::now();
        self.until_others_have(&name, &lost).await;
        let took = stopped.elapsed();
        self.until_doors_follow(&lost).await;
        eprintln!(
            "{name} was stopped: {} gyms are others' after {took:?}, and follow after {:?}",
            lost.len(),
            stopped.elapsed()
        );
        assert!(took < self.at_once, "{took:?}");
        assert!(stopped.elapsed() < self.at_once + BACKLOG);
        self.back(&name).await;
    }

    /// SIGSTOP with work on its way, in the middle of a transaction where that can be had, and
    /// SIGCONT past the lease, when all of it is undone: others have the gyms, and what the one that
    /// wakes had in mind does no harm.
    async fn hold_still(&mut self, round: u64, gate: &Mutex<()>) {
        let (name, lost) = self.next(round + 2).await;
        let quiet = gate.lock().await;
        let mut held = false;
        let mut still = Instant::now();
        for look in 1..=LOOKS {
            self.turn_over(&lost).await;
            still = Instant::now();
            self.signal(&name, Signal::SIGSTOP);
            tokio::time::sleep(Duration::from_millis(250)).await;
            held = self.owners.is_held().await;
            if held || look == LOOKS {
                break;
            }
            self.signal(&name, Signal::SIGCONT);
        }
        self.turn_over(&lost).await;
        // Under load, asleep and awake again.
        drop(quiet);
        self.until_doors_follow(&lost).await;
        let took = still.elapsed();
        eprintln!(
            "{name} stands still, in a transaction: {held}: {} gyms follow after {took:?}",
            lost.len()
        );
        assert!(took < REPLACED + BACKLOG, "{took:?}");
        // Whatever it was in the middle of keeps nobody waiting.
        let what = "a replica that stands still";
        let quiet = gate.lock().await;
        self.gyms.until_doors_are_right(what).await;
        drop(quiet);
        self.signal(&name, Signal::SIGCONT);
        let (gyms, all) = (&self.gyms, self.gyms.all.len());
        self.owners.until_shared(&gyms.stack, self.count, all).await;
    }

    /// Each member of these gyms loses the day, or gets it: more than is written at once.
    async fn turn_over(&self, lost: &[usize]) {
        let Gyms { desk, all, .. } = &self.gyms;
        let members = lost.iter().flat_map(|number| {
            let gym = &all[*number];
            gym.members[1..].iter().map(|member| (&gym.id, member))
        });
        let changes = members.map(|(gym, member)| async move {
            let has = desk.has(gym, member, DAY);
            desk.set(gym, member, DAY, !has).await;
        });
        futures_util::future::join_all(changes).await;
    }

    fn signal(&mut self, name: &str, signal: Signal) {
        let child = self.gyms.stack.child(name).expect("it");
        child.signal(signal).expect("a signal");
    }

    /// A replica, each in its turn, and its gyms by number.
    async fn next(&self, turn: u64) -> (String, Vec<usize>) {
        let owners = self.owners.find(&self.gyms.stack).await;
        let mut names: Vec<&String> = owners.values().collect();
        names.sort();
        names.dedup();
        let name = names[turn as usize % names.len()].clone();
        let gyms = self.gyms.all.iter().enumerate();
        let lost = gyms.filter(|(_, gym)| owners.get(&gym.id) == Some(&name));
        let lost: Vec<usize> = lost.map(|(number, _)| number).collect();
        assert!(!lost.is_empty(), "{name} has nothing to lose");
        (name, lost)
    }

    async fn until_others_have(&self, name: &str, lost: &[usize]) {
        let (gyms, owners) = (&self.gyms, &self.owners);
        eventually("its gyms are others'", DEADLINE, async || {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = owners.find(&gyms.stack).await;
            let is_others = |gym: &usize| now.get(&gyms.all[*gym].id).is_some_and(|it| it != name);
            lost.iter().all(is_others)
        })
        .await;
    }

    /// The first member of each of these gyms, whom nothing else changes, loses or gets the night.
    async fn until_doors_follow(&self, lost: &[usize]) {
        let Gyms { desk, all, .. } = &self.gyms;
        for number in lost {
            let gym = &all[*number];
            let has = desk.has(&gym.id, &gym.members[0], NIGHT);
            desk.set(&gym.id, &gym.members[0], NIGHT, !has).await;
        }
        eventually("doors follow", DEADLINE, async || {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let doors = self.gyms.doors().await;
            lost.iter().all(|number| {
                let gym = &all[*number];
                let member = (gym.id.clone(), gym.members[0].clone());
                let wanted = desk.has(&gym.id, &gym.members[0], NIGHT);
                doors.contains_key(&(member, NIGHT)) == wanted
            })
        })
        .await;
    }

    /// It is started again and gets its share.
    async fn back(&mut self, name: &str) {
        let child = self.gyms.stack.child(name).expect("it");
        child.start_again().expect("started");
        let (gyms, all) = (&self.gyms, self.gyms.all.len());
        self.owners.until_shared(&gyms.stack, self.count, all).await;
    }
}

/// Changes of members, one after another, until it ends.
struct Load {
    stop: CancellationToken,
    /// Whoever has it keeps changes from being made.
    gate: Arc<Mutex<()>>,
    task: JoinHandle<usize>,
}

impl Load {
    fn start(gyms: &Gyms, seed: u64) -> Self {
        let stop = CancellationToken::new();
        let members: Vec<(String, Vec<String>)> = gyms
            .all
            .iter()
            .map(|gym| (gym.id.clone(), gym.members[1..].to_vec()))
            .collect();
        let changing = change(gyms.desk.clone(), members, StdRng::seed_from_u64(seed));
        let (until, gate) = (stop.clone(), Arc::<Mutex<()>>::default());
        let open = Arc::clone(&gate);
        let task = tokio::spawn(async move {
            let mut changing = changing;
            while !until.is_cancelled() {
                let passes = open.lock().await;
                changing.one().await;
                drop(passes);
                tokio::time::sleep(CHANGE_EVERY).await;
            }
            changing.made
        });
        Self { stop, gate, task }
    }

    async fn end(self) -> usize {
        self.stop.cancel();
        self.task.await.expect("no panic")
    }
}

struct Changing {
    desk: Desk,
    members: Vec<(String, Vec<String>)>,
    dice: StdRng,
    made: usize,
}

fn change(desk: Desk, members: Vec<(String, Vec<String>)>, dice: StdRng) -> Changing {
    Changing {
        desk,
        members,
        dice,
        made: 0,
    }
}

impl Changing {
    async fn one(&mut self) {
        let (gym, members) = &self.members[self.dice.random_range(0..self.members.len())];
        let member = &members[self.dice.random_range(0..members.len())];
        let plan = PLANS[self.dice.random_range(0..PLANS.len())];
        let has = self.desk.has(gym, member, plan);
        self.desk.set(gym, member, plan, !has).await;
        self.made += 1;
    }
}
