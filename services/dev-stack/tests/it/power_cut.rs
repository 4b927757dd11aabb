//! A power cut in the middle of a stream of webhooks: nothing that had a 2xx is missing afterwards,
//! neither on `BILLING` nor in the tables of membership-events.
//!
//! nats-server's store and the tables are on a disk each that forgets what was not flushed. Two
//! controls must lose something, or this proves nothing: the server with its default of a flush
//! every two minutes, and membership-events with flushes that do nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use async_nats::jetstream::{self, consumer::pull};
use contracts::subjects;
use dev_stack::stack::Stack;
use rand::SeedableRng;
use rand::rngs::StdRng;
use testkit::eventually;

use crate::disk::{self, Disk};
use crate::harness::{DEADLINE, folder, settings};
use crate::plot::Plot;
use crate::post::FactId;
use crate::processes::{keep_alive, stack_to_try, tried, until_ready};
use crate::sender::{self, Senders};
use crate::{observed, tables};

const WEBHOOKS: usize = 400;
const SENDERS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    AsShipped,
    /// nats-server flushes every two minutes, which is its default.
    LazyServer,
    /// What membership-events flushes does not reach the disk.
    LazyTables,
}

/// Facts that had a 2xx before the cut, and how many of them are there after it.
#[derive(Debug)]
struct Kept {
    accepted: usize,
    on_billing: usize,
    in_tables: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_webhook_with_a_2xx_is_missing_after_a_power_cut() {
    let Some(kept) = cut_the_power(Case::AsShipped).await else {
        return;
    };
    assert_eq!(kept.on_billing, kept.accepted, "{kept:?}");
    assert_eq!(kept.in_tables, kept.accepted, "{kept:?}");
    let kept = cut_the_power(Case::LazyServer).await.expect("as before");
    assert!(kept.on_billing < kept.accepted, "nothing lost: {kept:?}");
    let kept = cut_the_power(Case::LazyTables).await.expect("as before");
    assert_eq!(kept.on_billing, kept.accepted, "{kept:?}");
    assert!(kept.in_tables < kept.accepted, "nothing lost: {kept:?}");
}

/// `None` where no image can be mounted.
async fn cut_the_power(case: Case) -> Option<Kept> {
    let folder = folder();
    let disks = ["nats", "tables"].map(|name| Disk::mount(folder.path(), name));
    let [Some(mut store), Some(mut database)] = disks else {
        eprintln!(
            "SKIPPED: no power cut was tried, because no image can be mounted here; it takes root, \
             mkfs.ext4 and a loop device"
        );
        return None;
    };
    let mut dice = StdRng::seed_from_u64(7);
    let plot = Plot::make_up(WEBHOOKS, &mut dice);
    let path = folder.path().join("tables/membership_events.sqlite");
    let database_url = format!("sqlite://{}", path.display());
    let mut settings = settings(&folder);
    settings.membership_events_database_url = Some(format!("{database_url}?mode=rwc"));
    let mut stack = stack_to_try(&settings).await;
    make_lazy(case, &mut stack, folder.path()).await;
    plot.seed(&mut stack).await;
    plot.put_late(&stack).await;
    if case != Case::AsShipped {
        // All but the stream is safe; a disk without anything would show less.
        store.flush();
        database.flush();
    }

    let senders = Senders::start(&stack, SENDERS);
    let arriving = sender::shuffled(&plot.posts, &mut dice);
    let (first, rest) = arriving.split_at(arriving.len() / 2);
    senders.release(first);
    eventually("the stream is on", DEADLINE, async || {
        let applied = tables::read(&database_url).await;
        senders.counts().accepted.load(Ordering::SeqCst) > first.len() / 2
            && applied.is_some_and(|tables| tables.facts.len() > first.len() / 4)
    })
    .await;
    senders.release(rest);
    for name in tried(&stack) {
        stack.child(&name).expect("it").kill().await;
    }
    let accepted = senders.end().await;
    store.cut_the_power();
    database.cut_the_power();

    make_diligent(&mut stack);
    for name in tried(&stack) {
        stack
            .child(&name)
            .expect("it")
            .start_again()
            .expect("started");
    }
    let bus = observed::jetstream(&stack).await;
    eventually(
        "membership-events has taken all in",
        2 * DEADLINE,
        async || {
            keep_alive(&mut stack);
            is_quiet(&bus).await
        },
    )
    .await;
    let facts = plot.facts();
    let posts = plot.posts.iter();
    let accepted: BTreeSet<&FactId> = posts
        .filter(|post| accepted.contains(&post.name))
        .flat_map(|post| &post.facts)
        .collect();
    let (on_billing, _) = observed::on_billing(&bus).await;
    let held = tables::read(&database_url).await.expect("the tables");
    let kept = Kept {
        accepted: accepted.len(),
        on_billing: accepted
            .iter()
            .filter(|fact| on_billing.contains(**fact))
            .count(),
        in_tables: accepted
            .iter()
            .filter(|fact| held.facts.contains(**fact))
            .count(),
    };
    eprintln!("{case:?}: {kept:?} of {} facts", facts.len());
    assert!(kept.accepted > WEBHOOKS / 10, "too few to tell: {kept:?}");
    if case == Case::AsShipped {
        // The provider sends what had no 2xx again, and all is as if nothing had been.
        let senders = Senders::start(&stack, SENDERS);
        senders.release(&arriving);
        eventually("every webhook has its 2xx", DEADLINE, async || {
            keep_alive(&mut stack);
            senders.are_done()
        })
        .await;
        senders.end().await;
        plot.check(&mut stack, &database_url).await;
    }
    drop(bus);
    stack.stop().await;
    Some(kept)
}

/// Whether membership-events has nothing on `BILLING` left to look at.
async fn is_quiet(bus: &jetstream::Context) -> bool {
    let Ok(stream) = bus.get_stream(subjects::BILLING).await else {
        return false;
    };
    let consumer = stream
        .get_consumer::<pull::Config>("membership-events")
        .await;
    consumer.is_ok_and(|consumer| {
        let info = consumer.cached_info();
        info.num_pending == 0 && info.num_ack_pending == 0
    })
}

/// Brings a control's fault in.
async fn make_lazy(case: Case, stack: &mut Stack, folder: &Path) {
    let name = match case {
        Case::AsShipped => return,
        Case::LazyServer => {
            set_sync_interval(stack, "2m");
            "nats-server"
        }
        Case::LazyTables => {
            let library = flushes_that_do_nothing(folder).display().to_string();
            let program = &mut stack.child("membership-events").expect("it").program;
            program.environment.insert("LD_PRELOAD".into(), library);
            "membership-events"
        }
    };
    let child = stack.child(name).expect("it");
    child.stop().await;
    child.start_again().expect("started");
    until_ready(stack, "membership-events").await;
}

/// Takes it out again.
fn make_diligent(stack: &mut Stack) {
    set_sync_interval(stack, "always");
    let program = &mut stack.child("membership-events").expect("it").program;
    program.environment.remove("LD_PRELOAD");
}

fn set_sync_interval(stack: &Stack, interval: &str) {
    let path = stack.folder.path("nats.conf");
    let settings = std::fs::read_to_string(&path).expect("nats.conf");
    let lines: Vec<String> = settings
        .lines()
        .map(
            |line| match line.trim_start().strip_prefix("sync_interval:") {
                Some(_) => format!("  sync_interval: {interval}"),
                None => line.to_owned(),
            },
        )
        .collect();
    let lazy = lines.join("\n");
    assert!(lazy.contains(&format!("sync_interval: {interval}")));
    std::fs::write(path, lazy).expect("nats.conf");
}

/// A library to load before all others. No setting of ours makes a commit lazy, so that the control
/// has to lie about the disk.
fn flushes_that_do_nothing(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("lazy.c"), folder.join("lazy.so"));
    let text = "int fsync(int file) { return 0; }\nint fdatasync(int file) { return 0; }\n";
    std::fs::write(&source, text).expect("lazy.c");
    let paths = [&library, &source].map(|path| path.to_str().expect("text"));
    let built = disk::tried("cc", &["-shared", "-fPIC", "-o", paths[0], paths[1]]);
    assert!(built.is_some(), "cc, which links every Rust program too");
    library
}
