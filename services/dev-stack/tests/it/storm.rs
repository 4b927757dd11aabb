//! A storm of webhooks over real processes that are stopped and killed in the middle of it.
//!
//! A sender like Stripe posts the histories of some hundred memberships, out of order and partly
//! twice, and again until each event has its 2xx. Meanwhile nats-server is stopped and started, and
//! billing-webhook and membership-events are killed, at moments that a seed chooses. At the end
//! every event is applied exactly once in effect, and everybody is where the history says.
//!
//! `STORM_WEBHOOKS` (400) says how many webhooks there are at least, and `STORM_SEED` (4) what
//! happens when. `make soak` runs it at full length, 2,000, with another seed each time.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dev_stack::seed;
use dev_stack::stack::Stack;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use testkit::eventually;

use crate::harness::{DEADLINE, folder, settings};
use crate::history::{Known, Signed};
use crate::observed::{self, Listener};
use crate::plot::{Plot, TRIED, keep_alive, stack_to_try};
use crate::sender::{self, Senders};

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
    let webhooks = setting("STORM_WEBHOOKS", 400) as usize;
    let seed = setting("STORM_SEED", 4);
    let mut dice = StdRng::seed_from_u64(seed);
    let plot = Plot::make_up(webhooks, &mut dice);
    let folder = folder();
    let mut stack = stack_to_try(&settings(&folder)).await;
    plot.seed(&mut stack).await;
    let bus = observed::jetstream(&stack).await;
    let listener = Listener::start(&bus).await;

    let began = Instant::now();
    let senders = Senders::start(&stack, SENDERS);
    let arriving = sender::shuffled(&plot.posts, &mut dice);
    let client = seed::client(&stack).await.expect("membership-events");
    let mut late: Vec<Signed> = plot
        .memberships
        .iter()
        .filter(|it| it.known == Known::Late)
        .cloned()
        .collect();
    let mut puts = tokio::task::JoinSet::new();
    let faults = (webhooks / WEBHOOKS_PER_FAULT).max(Fault::ALL.len());
    let mut order: Vec<Fault> = Vec::new();
    while order.len() < faults {
        let mut all = Fault::ALL;
        all.shuffle(&mut dice);
        order.extend(all);
    }
    for (round, slice) in arriving.chunks(arriving.len().div_ceil(faults)).enumerate() {
        for signed in late.split_off(late.len() - late.len() / (faults - round)) {
            puts.spawn(observed::put(client.clone(), signed));
        }
        // Somewhere in the middle of these.
        let at =
            senders.counts().accepted.load(Ordering::SeqCst) + dice.random_range(0..slice.len());
        senders.release(slice);
        eventually("the storm goes on", DEADLINE, async || {
            keep_alive(&mut stack);
            senders.counts().accepted.load(Ordering::SeqCst) >= at || senders.are_done()
        })
        .await;
        order[round].strike(&mut stack, &mut dice).await;
    }
    eventually("every webhook has its 2xx", DEADLINE, async || {
        keep_alive(&mut stack);
        senders.are_done()
    })
    .await;
    puts.join_all().await;
    let counts = format!("{:?}", senders.counts());
    let met = senders.counts().refused.load(Ordering::SeqCst)
        + senders.counts().cut.load(Ordering::SeqCst);
    let accepted = senders.end().await;
    assert_eq!(
        accepted.len(),
        plot.posts.len(),
        "each webhook was accepted"
    );
    assert!(met > 0, "no fault was met: {counts}");

    let tables = database_url(&stack);
    plot.check(&mut stack, &tables).await;
    let (on_billing, messages) = observed::on_billing(&bus).await;
    assert_eq!(on_billing, plot.facts());
    let changes = listener.end();
    eprintln!(
        "seed {seed}: {} webhooks of {} facts in {} posts, {counts}; {messages} messages on \
         BILLING; {faults} faults, {changes} changes heard, {:?}",
        plot.posts.len(),
        on_billing.len(),
        arriving.len(),
        began.elapsed()
    );
    stack.stop().await;
}

fn database_url(stack: &Stack) -> String {
    let path = stack.folder.path("membership_events.sqlite");
    format!("sqlite://{}", path.display())
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    StopNats,
    KillNats,
    KillWebhook,
    KillMembershipEvents,
    KillBoth,
}

impl Fault {
    const ALL: [Self; 5] = [
        Self::StopNats,
        Self::KillNats,
        Self::KillWebhook,
        Self::KillMembershipEvents,
        Self::KillBoth,
    ];

    /// Does it, and starts again what it hit.
    async fn strike(self, stack: &mut Stack, dice: &mut StdRng) {
        let hit: &[&str] = match self {
            Self::StopNats | Self::KillNats => &TRIED[..1],
            Self::KillMembershipEvents => &TRIED[1..2],
            Self::KillWebhook => &TRIED[2..],
            Self::KillBoth => &TRIED[1..],
        };
        for name in hit {
            let child = stack.child(name).expect("it");
            match self {
                Self::StopNats => child.stop().await,
                _ => child.kill().await,
            }
        }
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..500))).await;
        for name in hit {
            stack
                .child(name)
                .expect("it")
                .start_again()
                .expect("started");
        }
    }
}
