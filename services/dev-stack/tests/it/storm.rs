//! Storms of webhooks over real processes that are stopped and killed in the middle of them.
//!
//! Senders like Stripe and GoCardless post the histories of some hundred memberships, out of order
//! and partly twice, and again until each post has its 2xx. Meanwhile nats-server is stopped and
//! started, billing-webhook and membership-events are killed, and PostgreSQL crashes, at moments
//! that a seed chooses. At the end every event is held once, it was applied exactly once in effect,
//! and everybody is where the history says.
//!
//! `STORM_WEBHOOKS` (400) says how many webhooks there are at least, and `STORM_SEED` (4) what
//! happens when. `make soak` runs it at full length, 2,000, with another seed each time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dev_stack::seed;
use dev_stack::settings::Settings;
use dev_stack::stack::Stack;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use testkit::{Postgres, eventually};
use tokio::task::JoinSet;

use crate::harness::{DEADLINE, folder, settings};
use crate::history::{Known, Signed};
use crate::observed;
use crate::plot::Plot;
use crate::post::Post;
use crate::processes::{keep_alive, of_kind, stack_to_try};
use crate::sender::{self, Senders};
use crate::watch::Watch;

/// Who posts at once.
const SENDERS: usize = 8;
/// One fault for so many webhooks.
const WEBHOOKS_PER_FAULT: usize = 50;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}: a number")),
        Err(_) => default,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_over_stopped_and_killed_processes_is_applied_once_and_ends_right() {
    let folder = folder();
    let settings = settings(&folder);
    let tables = folder.path().join("membership_events.sqlite");
    storm(&settings, &format!("sqlite://{}", tables.display()), None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_over_two_of_each_and_a_postgresql_that_crashes_is_applied_once_and_ends_right() {
    let server = Postgres::start().await.expect("PostgreSQL");
    let folder = folder();
    let mut settings = settings(&folder);
    settings.replicas = 2;
    let database = server.create_database().await.expect("a database");
    settings.membership_events_database_url = Some(database.url().to_owned());
    let kisi_sync = server.create_database().await.expect("a database");
    settings.kisi_sync_database_url = Some(kisi_sync.url().to_owned());
    storm(&settings, database.url(), Some(server)).await;
}

async fn storm(settings: &Settings, database_url: &str, mut postgres: Option<Postgres>) {
    let webhooks = setting("STORM_WEBHOOKS", 400) as usize;
    let seed = setting("STORM_SEED", 4);
    let mut dice = StdRng::seed_from_u64(seed);
    let plot = Plot::make_up(webhooks, &mut dice);
    let mut stack = stack_to_try(settings).await;
    plot.seed(&mut stack).await;
    let bus = observed::jetstream(&stack).await;
    let watch = Watch::start(&bus);

    let began = Instant::now();
    let senders = Senders::start(&stack, SENDERS);
    let arriving = sender::shuffled(&plot.posts, &mut dice);
    let mut puts = Puts::new(&plot, &stack).await;
    let faults = Fault::in_some_order(webhooks, postgres.is_some(), &mut dice);
    let slices = arriving.chunks(arriving.len().div_ceil(faults.len()));
    for (round, (slice, fault)) in slices.zip(&faults).enumerate() {
        puts.start(faults.len() - round);
        let at = somewhere_in(slice, &senders, &mut dice);
        senders.release(slice);
        eventually("the storm goes on", DEADLINE, async || {
            keep_alive(&mut stack);
            accepted(&senders) >= at || senders.are_done()
        })
        .await;
        fault.strike(&mut stack, postgres.as_mut(), &mut dice).await;
    }
    eventually("every webhook has its 2xx", DEADLINE, async || {
        keep_alive(&mut stack);
        senders.are_done()
    })
    .await;
    puts.end().await;
    let counts = format!("{:?}", senders.counts());
    let met = senders.counts().refused.load(Ordering::SeqCst)
        + senders.counts().cut.load(Ordering::SeqCst);
    let heard = senders.end().await;
    assert_eq!(heard.len(), plot.posts.len(), "each webhook was accepted");
    assert!(met > 0, "no fault was met: {counts}");

    let held = plot.check(&mut stack, database_url).await;
    let (on_billing, messages) = observed::on_billing(&bus).await;
    assert_eq!(on_billing, plot.facts());
    let (seen, changes) = watch.end().await;
    assert_eq!(seen, held, "versions, as watched and as held");
    eprintln!(
        "seed {seed}: {} webhooks of {} facts in {} posts, {counts}; {messages} messages on \
         BILLING; {} faults, {changes} changes seen, {:?}",
        plot.posts.len(),
        on_billing.len(),
        arriving.len(),
        faults.len(),
        began.elapsed()
    );
    stack.stop().await;
}

fn accepted(senders: &Senders) -> usize {
    senders.counts().accepted.load(Ordering::SeqCst)
}

/// How many will have been accepted somewhere in the middle of these.
fn somewhere_in(slice: &[Arc<Post>], senders: &Senders, dice: &mut StdRng) -> usize {
    accepted(senders) + dice.random_range(0..slice.len())
}

/// The memberships that are put in while their events arrive.
struct Puts {
    client: seed::Client,
    late: Vec<Signed>,
    under_way: JoinSet<()>,
}

impl Puts {
    async fn new(plot: &Plot, stack: &Stack) -> Self {
        let late = plot.memberships.iter();
        Self {
            client: seed::client(stack).await.expect("membership-events"),
            late: late.filter(|it| it.known == Known::Late).cloned().collect(),
            under_way: JoinSet::new(),
        }
    }

    /// An equal part of what is left, when there are so many rounds left.
    fn start(&mut self, rounds: usize) {
        let left = self.late.len();
        for signed in self.late.split_off(left - left / rounds) {
            let put = observed::put(self.client.clone(), signed);
            self.under_way.spawn(put);
        }
    }

    async fn end(mut self) {
        self.start(1);
        self.under_way.join_all().await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    StopNats,
    KillNats,
    KillWebhook,
    KillMembershipEvents,
    KillBoth,
    CrashPostgres,
}

impl Fault {
    const ALL: [Self; 5] = [
        Self::StopNats,
        Self::KillNats,
        Self::KillWebhook,
        Self::KillMembershipEvents,
        Self::KillBoth,
    ];

    /// Each at least once; where there is PostgreSQL, it crashes once, in the middle.
    fn in_some_order(webhooks: usize, on_postgres: bool, dice: &mut StdRng) -> Vec<Self> {
        let count = (webhooks / WEBHOOKS_PER_FAULT).max(Self::ALL.len());
        let mut order = Vec::new();
        while order.len() < count {
            let mut all = Self::ALL;
            all.shuffle(dice);
            order.extend(all);
        }
        order.truncate(count);
        if on_postgres {
            order.insert(count / 2, Self::CrashPostgres);
        }
        order
    }

    /// Does it, and starts again what it hit.
    async fn strike(self, stack: &mut Stack, postgres: Option<&mut Postgres>, dice: &mut StdRng) {
        let kinds: &[&str] = match self {
            Self::StopNats | Self::KillNats => &["nats-server"],
            Self::KillMembershipEvents => &["membership-events"],
            Self::KillWebhook => &["billing-webhook"],
            Self::KillBoth => &["membership-events", "billing-webhook"],
            Self::CrashPostgres => &[],
        };
        let mut hit = Vec::new();
        for kind in kinds {
            let mut all = of_kind(stack, kind);
            // Of two that do the same, one of them or both.
            all.shuffle(dice);
            all.truncate(dice.random_range(1..=all.len()));
            hit.extend(all);
        }
        for name in &hit {
            let child = stack.child(name).expect("it");
            match self {
                Self::StopNats => child.stop().await,
                _ => child.kill().await,
            }
        }
        let mut crashed = postgres.filter(|_| self == Self::CrashPostgres);
        if let Some(server) = &mut crashed {
            server.kill().await.expect("PostgreSQL is down");
        }
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..500))).await;
        for name in &hit {
            let child = stack.child(name).expect("it");
            child.start_again().expect("started");
        }
        if let Some(server) = crashed {
            server.restart().await.expect("PostgreSQL is up");
        }
    }
}
