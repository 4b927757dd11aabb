//! A gym whose lists never stand still: others give and take rights in its groups all the time, and
//! so do we. Passes over it come to an end, are valid, and harm nobody.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dev_stack::set_up;
use dev_stack::simulated_kisi::Control;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::answers::Answers;
use super::desk::{DAY, Desk, NIGHT};
use super::gyms::{Gyms, Plan};
use super::ledger::Ledger;
use super::setting;
use crate::harness::{DEADLINE, folder, settings};

const MEMBERS: usize = 40;
/// Whom nothing changes.
const STEADY: usize = 20;
/// Rights that others gave: with ours, some pages of 250.
const STRANGERS: usize = 1_400;
const WE_CHANGE_EVERY: Duration = Duration::from_millis(250);
const OTHERS_CHANGE_EVERY: Duration = Duration::from_millis(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_never_stand_still_give_valid_passes_and_harm_nobody() {
    let passes = setting("KISI_BUSY_PASSES").unwrap_or(3);
    let seed = setting("KISI_FAULTS_SEED").unwrap_or(7);
    let folder = folder();
    let mut settings = settings(&folder);
    settings.kisi_requests_per_second = Some("40".to_owned());
    let plan = Plan {
        gyms: 1,
        members: MEMBERS,
        has: &|_| &[DAY],
        strangers: STRANGERS,
    };
    let mut gyms = Gyms::start(&settings, &plan).await;
    let answers = Answers::listen(&gyms.stack).await;
    let before = gyms.kisi().last_request().await.expect("the log");
    let given = given_by_others(&gyms).await;
    assert_eq!(given.len(), STRANGERS);

    // Every other one of them is taken, for others that are given.
    let steady: BTreeSet<i64> = given.iter().step_by(2).copied().collect();
    let moving: Vec<i64> = given.iter().skip(1).step_by(2).copied().collect();
    let stop = CancellationToken::new();
    let hands = tokio::spawn(others_change(
        gyms.stack.http.clone(),
        gyms.stack.kisi_url.clone(),
        gyms.all[0].groups[DAY],
        moving,
        StdRng::seed_from_u64(seed),
        stop.clone(),
    ));
    valid_passes(&gyms, "others change it", passes).await;
    let load = tokio::spawn(we_change(
        gyms.desk.clone(),
        gyms.all[0].id.clone(),
        gyms.all[0].members[STEADY..].to_vec(),
        StdRng::seed_from_u64(seed),
        stop.clone(),
    ));
    valid_passes(&gyms, "others and we change it", passes).await;
    stop.cancel();
    let ours = load.await.expect("no panic");
    let theirs = hands.await.expect("no panic");
    eprintln!("{ours} changes of ours and {theirs} of others");

    gyms.until_doors_are_right("the changes").await;
    gyms.desk.check().await;
    let left: BTreeSet<i64> = given_by_others(&gyms).await.into_iter().collect();
    assert!(left.is_superset(&steady), "what others gave was taken");
    let mut ledger = Ledger::default();
    ledger.read(&gyms, 0).await;
    let decisions = gyms.desk.decisions().clone();
    let stale = ledger.stale(&decisions, &answers.heard());
    assert!(stale.is_empty(), "seed {seed}: {stale:#?}");
    let needless = ledger.writes.iter().filter(|write| {
        let steady = &gyms.all[0].members[..STEADY];
        write.seq > before && steady.contains(&write.member.1)
    });
    let needless: Vec<_> = needless.collect();
    assert!(needless.is_empty(), "{needless:#?}");
    // Once all is quiet a pass finds nothing to do.
    let last = pass(&gyms).await;
    assert_eq!(
        (&last["state"], &last["in_sync"]),
        (&json!("done"), &json!(true)),
        "{last}"
    );
    gyms.stack.stop().await;
}

/// Of so many passes most are valid.
async fn valid_passes(gyms: &Gyms, when: &str, passes: u64) {
    let mut ends = Vec::new();
    for _ in 0..passes {
        let began = Instant::now();
        let ended = pass(gyms).await;
        let state = ended["state"].as_str().expect("a state").to_owned();
        let report = &ended["report"];
        eprintln!(
            "{state} after {:?}, {} requests, {} by others",
            began.elapsed(),
            report["requests"],
            report["unmanaged"]
        );
        ends.push(state);
    }
    let valid = ends.iter().filter(|state| *state == "done").count();
    assert!(2 * valid > ends.len(), "while {when}: {ends:?}");
}

/// A pass, and how it ended.
async fn pass(gyms: &Gyms) -> Value {
    let gym = &gyms.all[0].id;
    let call = async |method, path: &str| {
        let body = (method == Method::POST).then(|| json!({}));
        let answer = set_up::call(&gyms.stack, gym, method, path, body).await;
        answer.unwrap_or_else(|error| panic!("{path}: {error:#}"))
    };
    let begun = call(Method::POST, "/integration/sync").await;
    let path = format!(
        "/integration/syncs/{}",
        begun["id"].as_str().expect("an id")
    );
    testkit::eventually_some("the pass ends", DEADLINE * 2, async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let sync = call(Method::GET, &path).await;
        let is_on = ["queued", "running"].contains(&sync["state"].as_str()?);
        (!is_on).then_some(sync)
    })
    .await
}

/// The rights of people who are no members.
async fn given_by_others(gyms: &Gyms) -> Vec<i64> {
    let state = gyms.kisi().call(Method::GET, "/state", None).await;
    let state = state.expect("Kisi's state");
    let rows = |name: &str| state[name].as_array().cloned().unwrap_or_default();
    let strangers: BTreeSet<i64> = rows("users")
        .iter()
        .filter(|user| user["email"].as_str().is_some_and(|it| it.starts_with('s')))
        .filter_map(|user| user["id"].as_i64())
        .collect();
    rows("role_assignments")
        .iter()
        .filter(|row| {
            row["assignee_id"]
                .as_i64()
                .is_some_and(|id| strangers.contains(&id))
        })
        .filter_map(|row| row["id"].as_i64())
        .collect()
}

async fn we_change(
    desk: Desk,
    gym: String,
    members: Vec<String>,
    mut dice: StdRng,
    stop: CancellationToken,
) -> usize {
    let mut made = 0;
    while !stop.is_cancelled() {
        let member = &members[dice.random_range(0..members.len())];
        let plan = if dice.random() { DAY } else { NIGHT };
        let has = desk.has(&gym, member, plan);
        desk.set(&gym, member, plan, !has).await;
        made += 1;
        tokio::time::sleep(WE_CHANGE_EVERY).await;
    }
    made
}

/// Takes a right here and gives another there; now and then there is one more or one less.
async fn others_change(
    http: reqwest::Client,
    kisi: String,
    group: i64,
    mut moving: Vec<i64>,
    mut dice: StdRng,
    stop: CancellationToken,
) -> usize {
    let control = Control::at(&http, &kisi);
    let hand = async |change| {
        let made = control.call(Method::POST, "/hands", Some(change)).await;
        made.expect("a change by hand")
    };
    let mut made = 0;
    while !stop.is_cancelled() {
        if moving.len() > 1 && dice.random_bool(0.9) {
            let right = moving.swap_remove(dice.random_range(0..moving.len()));
            hand(json!({ "action": "remove_assignment", "assignment_id": right })).await;
            made += 1;
        }
        if dice.random_bool(0.9) {
            let email = format!("s{made}@others.example.com");
            let new = json!({ "action": "add_assignment", "email": email, "group_id": group });
            moving.push(hand(new).await["assignment_id"].as_i64().expect("an id"));
            made += 1;
        }
        tokio::time::sleep(OTHERS_CHANGE_EVERY).await;
    }
    made
}
