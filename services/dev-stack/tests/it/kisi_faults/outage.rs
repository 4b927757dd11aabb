//! Kisi is down, in three ways one after another, while many members change: it answers 500, it is
//! not there, it does not answer. Then everything drains, revokes first.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::eventually;

use super::answers::Answers;
use super::audit;
use super::desk::{DAY, Desk, NIGHT};
use super::gyms::{Gyms, Plan};
use super::ledger::Ledger;
use super::setting;
use crate::harness::{DEADLINE, folder, settings};

const MEMBERS: usize = 90;

/// What becomes of a member while Kisi is down, by number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not at Kisi so far, and let in.
    Joins,
    /// Known at Kisi, and let in.
    Returns,
    /// Shut out and let in again.
    Wavers,
    /// Shut out, let in, shut out.
    WaversOut,
    Leaves,
    /// Keeps one plan of two.
    LosesOne,
}

impl Fate {
    /// In this order things change, so that what closes doors comes last.
    const ALL: [Self; 6] = [
        Self::Joins,
        Self::Returns,
        Self::Wavers,
        Self::WaversOut,
        Self::Leaves,
        Self::LosesOne,
    ];

    fn of(number: usize) -> Self {
        Self::ALL[number % Self::ALL.len()]
    }

    fn begins_with(number: usize) -> &'static [&'static str] {
        match Self::of(number) {
            Self::Joins => &[],
            Self::LosesOne => &[DAY, NIGHT],
            _ => &[DAY],
        }
    }

    /// Whether the day is had after each change.
    fn changes(self) -> &'static [bool] {
        match self {
            Self::Joins | Self::Returns => &[true],
            Self::Wavers => &[false, true],
            Self::WaversOut => &[false, true, false],
            Self::Leaves | Self::LosesOne => &[false],
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_everything_drains_revokes_first_and_nothing_is_lost() {
    let outage = Duration::from_secs(setting("KISI_OUTAGE_SECONDS").unwrap_or(6));
    let folder = folder();
    let mut settings = settings(&folder);
    settings.kisi_sync_environment.extend([
        ("KISI_REQUEST_TIMEOUT", "1s".to_owned()),
        // Whatever is missed is not to be found by a pass.
        ("RECONCILE_EVERY", "24h".to_owned()),
        // Nor is anything held: this gym loses more than is usual.
        ("BRAKE_EXPLAINED_MIN", "1000".to_owned()),
    ]);
    let plan = Plan {
        gyms: 1,
        members: MEMBERS,
        has: &Fate::begins_with,
        strangers: 0,
    };
    let mut gyms = Gyms::start(&settings, &plan).await;
    let members = gyms.all[0].members.clone();
    for (number, member) in members.iter().enumerate() {
        if Fate::of(number) == Fate::Returns {
            gyms.desk.set(&gyms.all[0].id, member, DAY, false).await;
        }
    }
    gyms.until_doors_are_right("the beginning").await;
    let answers = Answers::listen(&gyms.stack).await;
    let mut ledger = Ledger::default();
    let begun = gyms.kisi().last_request().await.expect("the log");
    ledger.read(&gyms, 0).await;
    let before = ledger.writes.len();
    let rights = rights_of(&gyms).await;

    let began = Instant::now();
    let changing = tokio::spawn(change_all(
        gyms.desk.clone(),
        gyms.all[0].id.clone(),
        members.clone(),
        outage,
    ));
    fault(&gyms, json!({ "kind": "500" })).await;
    tokio::time::sleep(outage / 3).await;
    let failed = gyms.kisi().requests(begun).await.expect("the log");
    assert!(failed.iter().any(|request| request["status"] == 500));
    let left = rights_of(&gyms).await;
    assert_eq!(left, rights, "Kisi failed, and something was done");
    let kisi = gyms.stack.child("kisi-simulator").expect("it");
    kisi.signal(Signal::SIGSTOP).expect("stopped");
    tokio::time::sleep((outage * 2 / 3).saturating_sub(began.elapsed())).await;
    // What waits to be read is answered 500 as well, before nobody is there.
    kisi.stop().await;
    changing.await.expect("no panic");
    tokio::time::sleep(outage.saturating_sub(began.elapsed())).await;
    // Nor was it done while it hung, or was stopped.
    let kept = std::fs::read_to_string(settings.data_dir().join("kisi.json")).expect("its state");
    let kept: Value = serde_json::from_str(&kept).expect("JSON");
    let kept = kept["world"]["assignments"].as_object().expect("rights");
    let kept: BTreeSet<i64> = kept.keys().filter_map(|id| id.parse().ok()).collect();
    assert_eq!(kept, rights, "Kisi was down, and something was done");
    let kisi = gyms.stack.child("kisi-simulator").expect("it");
    kisi.start_again().expect("started");
    eventually("Kisi is there again", DEADLINE, async || {
        gyms.kisi().last_request().await.is_ok()
    })
    .await;
    let drained = Instant::now();
    gyms.until_doors_are_right("the outage").await;
    let drained = drained.elapsed();
    gyms.desk.check().await;

    // The simulator's log begins anew with its start.
    ledger.people_made.clear();
    ledger.read(&gyms, 0).await;
    let decisions = gyms.desk.decisions().clone();
    let stale = ledger.stale(&decisions, &answers.heard());
    assert!(stale.is_empty(), "{stale:#?}");
    let after = &ledger.writes[before..];
    revokes_first(after, &ledger);
    for (number, member) in members.iter().enumerate() {
        let made = after.iter().filter(|write| write.member.1 == *member);
        let most = usize::from(Fate::of(number) != Fate::Wavers);
        assert_eq!(
            made.count(),
            most,
            "{member}: the latest state alone counts"
        );
    }
    eprintln!("{} writes drained within {drained:?}", after.len());
    let read = gyms.kisi().last_request().await.expect("the log");
    lost_revoke(&gyms, &answers).await;
    killed_revoke(&mut gyms, &answers).await;
    ledger.read(&gyms, read).await;
    audit::check(&settings, &ledger).await;
    gyms.stack.stop().await;
}

/// Every right that stands at Kisi.
async fn rights_of(gyms: &Gyms) -> BTreeSet<i64> {
    let state = gyms.kisi().call(Method::GET, "/state", None).await;
    let state = state.expect("Kisi's state");
    let rows = state["role_assignments"].as_array().expect("rights");
    rows.iter().filter_map(|row| row["id"].as_i64()).collect()
}

/// What closes a door goes before what opens one.
fn revokes_first(after: &[super::ledger::Write], ledger: &Ledger) {
    let last_revoke = after.iter().rfind(|write| !write.opens);
    let last_revoke = last_revoke.expect("revokes").seq;
    let opened = after.iter().filter(|write| write.opens);
    let opened = opened.map(|write| write.seq);
    let made = ledger.people_made.iter().copied();
    let early: Vec<u64> = opened
        .chain(made)
        .filter(|seq| *seq < last_revoke)
        .collect();
    assert!(early.is_empty(), "before request {last_revoke}: {early:?}");
}

/// Kisi removes a right and its answer is lost; before that is known the member is let in again.
async fn lost_revoke(gyms: &Gyms, answers: &Answers) {
    let (kisi, gym) = (gyms.kisi(), &gyms.all[0]);
    let (member, seq) = removed_unheard(gyms, 0).await;
    fault(gyms, json!({ "kind": "500" })).await;
    gyms.desk.set(&gym.id, &member, DAY, true).await;
    // What she was before is overtaken, and what she is now was looked at.
    let version = gyms.desk.version(&gym.id, &member);
    eventually("she is answered", DEADLINE, async || {
        let asked = kisi.requests(seq).await.expect("the log");
        let failed = asked.iter().any(|request| request["status"] == 500);
        failed || answers.has(&gym.id, &member, version)
    })
    .await;
    kisi.call(Method::DELETE, "/faults", None)
        .await
        .expect("no faults");
    gyms.until_doors_are_right("a lost answer to a revoke")
        .await;
}

/// The same, and whoever waits for the answer is killed when the member has been let in again.
async fn killed_revoke(gyms: &mut Gyms, answers: &Answers) {
    let (member, _) = removed_unheard(gyms, 1).await;
    let gym = gyms.all[0].id.clone();
    let overtaken = gyms.desk.version(&gym, &member);
    gyms.desk.set(&gym, &member, DAY, true).await;
    eventually("she is heard of", DEADLINE, async || {
        answers.has(&gym, &member, overtaken)
    })
    .await;
    let child = gyms.stack.child("kisi-sync").expect("it");
    child.kill().await;
    child.start_again().expect("started");
    gyms.until_doors_are_right("a revoke whose sender died")
        .await;
}

/// A right is removed at Kisi, who does not answer, nor tell of it by an event: whose, and the number
/// of the request before.
async fn removed_unheard(gyms: &Gyms, nth: usize) -> (String, u64) {
    let (kisi, gym) = (gyms.kisi(), &gyms.all[0]);
    let members = gym.members.iter().enumerate();
    let mut wavering = members.filter(|(number, _)| Fate::of(*number) == Fate::Wavers);
    let (_, member) = wavering.nth(nth).expect("a member");
    let silent = json!({ "webhooks": { "drop_every": 1 } });
    kisi.call(Method::PUT, "/settings", Some(silent))
        .await
        .expect("settings");
    let seq = kisi.last_request().await.expect("the log");
    let lost = json!({ "kind": "hang_after_applying", "method": "DELETE", "count": 1 });
    fault(gyms, lost).await;
    gyms.desk.set(&gym.id, member, DAY, false).await;
    eventually("the right is gone", DEADLINE, async || {
        let requests = kisi.requests(seq).await.expect("the log");
        requests.iter().any(|request| request["method"] == "DELETE")
    })
    .await;
    (member.clone(), seq)
}

async fn fault(gyms: &Gyms, fault: Value) {
    let kisi = gyms.kisi();
    let call = kisi.call(Method::POST, "/faults", Some(fault));
    call.await.expect("a fault");
}

/// Everybody's changes, spread over the time that Kisi is down.
async fn change_all(desk: Desk, gym: String, members: Vec<String>, outage: Duration) {
    let steps: usize = Fate::ALL.iter().map(|fate| fate.changes().len()).sum();
    let pause = outage * 8 / 10 / u32::try_from(MEMBERS / Fate::ALL.len() * steps).expect("few");
    // Kisi is down by then.
    tokio::time::sleep(outage / 10).await;
    for fate in Fate::ALL {
        for has in fate.changes() {
            for (number, member) in members.iter().enumerate() {
                if Fate::of(number) == fate {
                    desk.set(&gym, member, DAY, *has).await;
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}
