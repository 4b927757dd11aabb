//! Everything is killed at once, PostgreSQL and NATS included, and started again: what the brake has
//! counted, what it holds for a person, and the work that waits are as before.

use std::collections::BTreeSet;

use dev_stack::set_up;
use dev_stack::stack::SERVICES;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use testkit::{Postgres, eventually};

use super::desk::{DAY, NIGHT};
use super::gyms::{Gyms, Plan};
use super::setting;
use crate::harness::{DEADLINE, folder, settings};

const MEMBERS: usize = 24;
/// So many may lose access in an hour.
const BRAKE: usize = 5;
/// So many lose it.
const LEAVING: usize = 12;

/// What is to outlast a power cut, as text.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    losses: BTreeSet<String>,
    held: BTreeSet<String>,
    held_members: BTreeSet<String>,
    waiting: BTreeSet<String>,
}

impl Kept {
    /// Losses are those of the one gym: in the other one a DELETE that Kisi answers with 503 may have been
    /// applied, counts for that, and may be tried at any time.
    async fn read(database_url: &str, braked: &str) -> Self {
        let mut tables = PgConnection::connect(database_url)
            .await
            .expect("PostgreSQL");
        let mut rows = async |sql: &'static str| -> BTreeSet<String> {
            let rows = sqlx::query_scalar(sql).fetch_all(&mut tables).await;
            let rows: Vec<String> = rows.expect(sql);
            rows.into_iter().collect()
        };
        let mut losses = rows("select gym_id || ' ' || losses::text from losses").await;
        losses.retain(|loss| loss.starts_with(&format!("{braked} ")));
        Self {
            losses,
            held: rows("select held_plans::text from held_plans").await,
            held_members: rows(
                "select gym_id || ' ' || member_id || ' ' || held_by from members
                where held_by is not null",
            )
            .await,
            waiting: rows(
                "select gym_id || ' ' || member_id || ' ' || version || ' ' || plans from members
                where pending",
            )
            .await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_as_a_whole_it_goes_on_with_the_same_counts_plans_and_work() {
    let mut server = Postgres::start().await.expect("PostgreSQL");
    let [memberships, doors] = [(); 2].map(|()| server.create_database());
    let (memberships, doors) = (memberships.await, doors.await);
    let (memberships, doors) = (memberships.expect("a database"), doors.expect("a database"));
    let folder = folder();
    let mut settings = settings(&folder);
    settings.membership_events_database_url = Some(memberships.url().to_owned());
    settings.kisi_sync_database_url = Some(doors.url().to_owned());
    settings.kisi_sync_environment.extend([
        ("BRAKE_EXPLAINED_MIN", BRAKE.to_string()),
        ("BRAKE_EXPLAINED_HOUR_PERCENT", "0".to_owned()),
        ("RECONCILE_EVERY", "24h".to_owned()),
        ("LEASE_TTL", "4s".to_owned()),
        ("LEASE_RENEW_EVERY", "1s".to_owned()),
        ("KISI_REQUEST_TIMEOUT", "2s".to_owned()),
    ]);
    let plan = Plan {
        gyms: 2,
        members: MEMBERS,
        has: &|_| &[DAY],
        strangers: 0,
    };
    let mut gyms = Gyms::start(&settings, &plan).await;

    // One gym loses more than the brake lets go, all at once.
    let leaving = gyms.all[0].members[..LEAVING].to_vec();
    let braked = gyms.all[0].id.clone();
    let at_once = leaving.iter().map(|member| {
        let desk = gyms.desk.clone();
        let (gym, member) = (braked.clone(), member.clone());
        async move { desk.set(&gym, &member, DAY, false).await }
    });
    futures_util::future::join_all(at_once).await;
    eventually("the rest is held", DEADLINE, async || {
        Kept::read(doors.url(), &braked).await.held_members.len() == LEAVING - BRAKE
    })
    .await;
    // Those who are held need no request, and may be held before the others are let go.
    eventually("the others are let go", DEADLINE, async || {
        open(&gyms, 0).await == MEMBERS - BRAKE
    })
    .await;
    let shown = held_plans(&gyms).await;
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0]["revokes"], LEAVING - BRAKE);

    // And work waits in both, because Kisi fails.
    let fault = json!({ "kind": "503" });
    gyms.kisi()
        .call(Method::POST, "/faults", Some(fault))
        .await
        .expect("a fault");
    for gym in &gyms.all {
        for member in &gym.members[LEAVING..LEAVING + 4] {
            gyms.desk.set(&gym.id, member, NIGHT, true).await;
        }
    }
    for member in &gyms.all[1].members[..3] {
        gyms.desk.set(&gyms.all[1].id, member, DAY, false).await;
    }
    let waiting = 4 + 4 + 3;
    eventually("work waits", DEADLINE, async || {
        Kept::read(doors.url(), &braked).await.waiting.len() == waiting
    })
    .await;

    for round in 0..setting("KISI_FAULTS_ROUNDS").unwrap_or(1) {
        let before = Kept::read(doors.url(), &braked).await;
        assert_eq!(before.losses.len(), BRAKE, "{before:?}");
        kill_all(&mut gyms, &mut server).await;
        let after = Kept::read(doors.url(), &braked).await;
        assert_eq!(after, before, "round {round}");
        assert_eq!(held_plans(&gyms).await, shown, "round {round}");
    }

    gyms.kisi()
        .call(Method::DELETE, "/faults", None)
        .await
        .expect("no faults");
    eventually("the work is done", DEADLINE, async || {
        Kept::read(doors.url(), &braked).await.waiting.is_empty()
    })
    .await;
    assert_eq!(open(&gyms, 0).await, MEMBERS - BRAKE + 4);
    assert_eq!(open(&gyms, 1).await, MEMBERS - 3 + 4);
    // What was counted before counts: one more is held as well, in a plan of its own.
    let one_more = gyms.all[0].members[LEAVING].clone();
    gyms.desk.set(&braked, &one_more, DAY, false).await;
    eventually("one more is held", DEADLINE, async || {
        held_plans(&gyms).await.len() == 2
    })
    .await;
    assert_eq!(open(&gyms, 0).await, MEMBERS - BRAKE + 4);
    // The plan is the one that was shown, and its digest still fits.
    approve(&gyms, &shown[0]).await;
    for plan in held_plans(&gyms).await {
        approve(&gyms, &plan).await;
    }
    gyms.until_doors_are_right("both plans are approved").await;
    gyms.desk.check().await;
    gyms.stack.stop().await;
}

/// Rights that stand at this gym.
async fn open(gyms: &Gyms, number: usize) -> usize {
    let doors = gyms.doors().await;
    let of_gym = doors
        .keys()
        .filter(|((gym, _), _)| *gym == gyms.all[number].id);
    of_gym.count()
}

async fn held_plans(gyms: &Gyms) -> Vec<Value> {
    let path = "/integration/held-plans";
    let shown = set_up::call(&gyms.stack, &gyms.all[0].id, Method::GET, path, None).await;
    let shown = shown.expect("an answer");
    shown["held_plans"].as_array().cloned().expect("plans")
}

async fn approve(gyms: &Gyms, plan: &Value) {
    let id = plan["id"].as_str().expect("an id");
    let path = format!("/integration/held-plans/{id}/approve");
    let digest = json!({ "digest": plan["digest"] });
    set_up::call(
        &gyms.stack,
        &gyms.all[0].id,
        Method::POST,
        &path,
        Some(digest),
    )
    .await
    .expect("approved");
}

/// SIGKILL to all, and all started again in the worst order: what is needed comes last.
async fn kill_all(gyms: &mut Gyms, server: &mut Postgres) {
    let names = SERVICES.iter().chain(&["nats-server"]);
    for name in names.clone() {
        gyms.stack.child(name).expect("it").kill().await;
    }
    server.kill().await.expect("PostgreSQL is down");
    for name in names.rev() {
        gyms.stack
            .child(name)
            .expect("it")
            .start_again()
            .expect("started");
    }
    server.restart().await.expect("PostgreSQL is up");
    for service in SERVICES {
        let address = gyms.stack.first(service).expect("it").health;
        let url = format!("http://{address}/readyz");
        eventually("it is ready", DEADLINE, async || {
            gyms.stack.start_dead_again().expect("started");
            let answer = gyms.stack.http.get(&url).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }
}
