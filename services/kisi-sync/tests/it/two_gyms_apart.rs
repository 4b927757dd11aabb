//! Two gyms of one Kisi organization on two replicas, each with the key of an owner of its own, and
//! people who are members of both: what one replica does takes nothing that the other's gym wants.

use std::collections::BTreeSet;
use std::time::Duration;

use kisi_simulator::settings::LimiterModel;
use kisi_sync::store::members;
use sea_orm::DatabaseConnection;

use crate::harness::{GYM, On, PLAN, Process, SOON, Stage};
use crate::kisi::{Fault, GROUP};
use crate::{replicas, two_gyms};

pub const OTHER: &str = "steel";
pub const GYMS: [&str; 2] = [GYM, OTHER];
const DELETE_RIGHT: &str = "/role_assignments/{id}";
const DELETE_USER: &str = "/users/{id}";
/// A takeover, and what has piled up for it.
pub const AFTER_A_KILL: Duration = Duration::from_secs(60);

/// Short leases, and no brake: here nearly everybody comes and goes.
pub const FLAGS: [(&str, &str); 5] = [
    ("lease-ttl", "3s"),
    ("lease-renew-every", "500ms"),
    ("brake-unexplained-min", "10000"),
    ("brake-explained-min", "10000"),
    ("brake-grants-min", "10000"),
];

/// A request that a test holds back is waited for.
pub const PATIENT: [(&str, &str); 2] = [("kisi-request-timeout", "15s"), ("lease-ttl", "60s")];

/// One replica for each of [`GYMS`].
pub struct Apart {
    pub stage: Stage,
    pub db: DatabaseConnection,
    pub replicas: [Process; 2],
}

impl Apart {
    /// Both gyms set up, each by its own replica.
    pub async fn with(people: usize, flags: &[(&str, &str)]) -> Self {
        let stage = Stage::set(On::Postgres).await;
        // Alone, so that the first gym is its own.
        let mut first = stage.spawn(flags).await;
        for gym in GYMS {
            for number in 0..people {
                decide(&stage, gym, number, 1, true).await;
            }
        }
        two_gyms::in_sync(&mut first.running, GYM, &stage.kisi.api_key()).await;
        let mut second = stage.spawn(flags).await;
        two_gyms::in_sync(&mut second.running, OTHER, &stage.kisi.second_key()).await;
        let db = sea_orm::Database::connect(stage.database_url()).await;
        let apart = Self {
            stage,
            db: db.unwrap(),
            replicas: [first, second],
        };
        apart.are_apart().await;
        apart
    }

    pub async fn are_apart(&self) {
        testkit::eventually("each replica has one gym", AFTER_A_KILL, async || {
            let holders = replicas::holders(&self.db).await;
            let replicas: BTreeSet<&String> = holders.values().collect();
            replicas.len() == GYMS.len() && holders.values().all(|holder| !holder.is_empty())
        })
        .await;
    }

    /// What the gym's replica made of it.
    pub async fn told(&self, gym: &str, number: usize, version: i64) -> String {
        let member = member(gym, number);
        testkit::eventually_some("it is done", SOON, async || {
            let answer = two_gyms::answer(&self.stage, gym, &member, version).await;
            answer.failure.is_none().then_some(answer.outcome)
        })
        .await
    }

    /// The same as [`decide`], until it is in the tables: what a frozen replica has fetched comes again.
    async fn decide_and_keep(&self, gym: &str, number: usize, version: i64, wanted: bool) {
        decide(&self.stage, gym, number, version, wanted).await;
        testkit::eventually("the version is known", AFTER_A_KILL, async || {
            let kept = members::find(&self.db, gym, &member(gym, number)).await;
            kept.unwrap().is_some_and(|kept| kept.version == version)
        })
        .await;
    }

    /// Passes of both gyms, which find nothing to do.
    pub async fn nothing_is_left_to_do(&mut self) {
        self.stage.kisi.forget_requests().await;
        for (replica, gym) in self.replicas.iter_mut().zip(GYMS) {
            let sync = two_gyms::sync(&mut replica.running, gym).await;
            assert_eq!((sync.state.as_str(), sync.in_sync), ("done", true));
        }
        let writes = self.stage.kisi.writes().await;
        assert!(writes.is_empty(), "{writes:?}");
    }

    /// How many such requests have had an effect.
    fn done(&self, method: &str, route: &str) -> usize {
        let state = self.stage.kisi.shared().lock();
        let done = state.log.since(0).filter(|entry| {
            let is_done = entry.status.is_some_and(|status| status < 300);
            is_done && entry.method == method && entry.route == route
        });
        done.count()
    }

    pub async fn end(self) {
        for replica in self.replicas {
            replica.kill().await;
        }
    }
}

pub fn member(gym: &str, number: usize) -> String {
    format!("{gym}-{number}")
}

pub fn email(number: usize) -> String {
    format!("p{number}@example.com")
}

/// The same person in both gyms, by the e-mail.
pub async fn decide(stage: &Stage, gym: &str, number: usize, version: i64, wanted: bool) {
    say(stage, gym, number, version, wanted, false).await;
}

async fn erase(stage: &Stage, gym: &str, number: usize, version: i64) {
    say(stage, gym, number, version, false, true).await;
}

async fn say(stage: &Stage, gym: &str, number: usize, version: i64, wanted: bool, erased: bool) {
    let plans: &[&str] = if wanted { &[PLAN] } else { &[] };
    let mut person = stage
        .directory
        .put(gym, &member(gym, number), version, plans);
    person.email = email(number);
    person.name = format!("Person {number}");
    stage.directory.insert(person.clone());
    let mut state = person.state.unwrap();
    state.erased = erased;
    stage.directory.publish(&state).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_of_both_gyms_goes_with_the_last_of_them() {
    let mut apart = Apart::with(1, &FLAGS).await;
    for gym in GYMS {
        apart.told(gym, 0, 1).await;
    }
    let before = apart.stage.kisi.group_rows(GROUP).await;
    assert_eq!(before.len(), 1);
    for (gym, versions) in GYMS.into_iter().zip([[2, 3], [2, 3]]) {
        decide(&apart.stage, gym, 0, versions[0], false).await;
        assert_eq!(apart.told(gym, 0, versions[0]).await, "revoked");
        assert_eq!(apart.stage.kisi.group_rows(GROUP).await, before);
        decide(&apart.stage, gym, 0, versions[1], true).await;
        apart.told(gym, 0, versions[1]).await;
        assert_eq!(apart.stage.kisi.group_rows(GROUP).await, before);
    }
    apart.nothing_is_left_to_do().await;

    // Both at the same moment.
    tokio::join!(
        decide(&apart.stage, GYM, 0, 4, false),
        decide(&apart.stage, OTHER, 0, 4, false)
    );
    for gym in GYMS {
        assert_eq!(apart.told(gym, 0, 4).await, "revoked");
    }
    assert!(apart.stage.kisi.group_rows(GROUP).await.is_empty());
    assert_eq!(apart.done("DELETE", DELETE_RIGHT), 1);
    assert!(apart.stage.kisi.emails_of_users().contains(&email(0)));
    apart.nothing_is_left_to_do().await;
    apart.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_both_gyms_goes_with_the_last_erasure() {
    let apart = Apart::with(1, &FLAGS).await;
    // One whom people have made, and who is nobody's of ours.
    let theirs = apart.stage.kisi.add_user_by_hand(&email(1)).await;
    for gym in GYMS {
        decide(&apart.stage, gym, 1, 1, true).await;
        apart.told(gym, 0, 1).await;
        apart.told(gym, 1, 1).await;
    }
    let before = apart.stage.kisi.group_rows(GROUP).await;
    assert_eq!(before.len(), 2);
    for number in [0, 1] {
        erase(&apart.stage, GYM, number, 2).await;
        assert_eq!(apart.told(GYM, number, 2).await, "erased");
    }
    assert_eq!(apart.stage.kisi.group_rows(GROUP).await, before);
    for number in [0, 1] {
        erase(&apart.stage, OTHER, number, 2).await;
        assert_eq!(apart.told(OTHER, number, 2).await, "erased");
    }
    assert!(apart.stage.kisi.group_rows(GROUP).await.is_empty());
    assert!(!apart.stage.kisi.emails_of_users().contains(&email(0)));
    assert!(apart.stage.kisi.users().contains(&theirs));
    assert_eq!(apart.done("DELETE", DELETE_USER), 1);
    apart.end().await;
}

/// The erasure of one gym's member was looked into, or is on its way to Kisi already, when the other
/// gym lets the same person in.
async fn who_joins_while_her_user_goes_gets_in(method: &str, route: &str) {
    let apart = Apart::with(0, &PATIENT).await;
    decide(&apart.stage, GYM, 0, 1, true).await;
    apart.told(GYM, 0, 1).await;
    decide(&apart.stage, GYM, 0, 2, false).await;
    apart.told(GYM, 0, 2).await;
    apart.stage.kisi.fail(method, route, 1, Fault::Wait).await;
    erase(&apart.stage, GYM, 0, 3).await;
    apart.stage.kisi.one_is_held_back(0).await;
    decide(&apart.stage, OTHER, 0, 1, true).await;
    assert_eq!(apart.told(OTHER, 0, 1).await, "granted");
    apart.stage.kisi.clear_faults();
    assert_eq!(apart.told(GYM, 0, 3).await, "erased");
    testkit::eventually("the door is open", SOON, async || {
        let rows = apart.stage.kisi.group_rows(GROUP).await;
        let users = apart.stage.kisi.users();
        rows.len() == 1 && users.contains(&rows[0]["assignee_id"].as_i64().unwrap())
    })
    .await;
    apart.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_while_an_erasure_looks_at_her_user_gets_in() {
    who_joins_while_her_user_goes_gets_in("GET", "/role_assignments").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_while_her_user_is_deleted_gets_in() {
    who_joins_while_her_user_goes_gets_in("DELETE", DELETE_USER).await;
}

/// One gym's grant is done and not answered yet when the other gym finds the right.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_another_gym_is_just_given_is_of_both() {
    let apart = Apart::with(0, &FLAGS).await;
    let route = "/role_assignments";
    let fault = Fault::HangAfterApplying;
    apart.stage.kisi.fail("POST", route, 1, fault).await;
    decide(&apart.stage, GYM, 0, 1, true).await;
    testkit::eventually("the right is given", SOON, async || {
        !apart.stage.kisi.group_rows(GROUP).await.is_empty()
    })
    .await;
    decide(&apart.stage, OTHER, 0, 1, true).await;
    for gym in GYMS {
        apart.told(gym, 0, 1).await;
    }
    let before = apart.stage.kisi.group_rows(GROUP).await;
    assert_eq!(before.len(), 1);
    decide(&apart.stage, GYM, 0, 2, false).await;
    assert_eq!(apart.told(GYM, 0, 2).await, "revoked");
    assert_eq!(apart.stage.kisi.group_rows(GROUP).await, before);
    decide(&apart.stage, OTHER, 0, 2, false).await;
    assert_eq!(apart.told(OTHER, 0, 2).await, "revoked");
    assert!(apart.stage.kisi.group_rows(GROUP).await.is_empty());
    apart.end().await;
}

/// The other gym wants it no more, and wants it again before its replica has come to that.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_wanted_again_after_the_other_gym_took_it_is_given_anew() {
    let apart = Apart::with(1, &PATIENT).await;
    for gym in GYMS {
        apart.told(gym, 0, 1).await;
    }
    let [_, theirs] = &apart.replicas;
    theirs.freeze();
    apart.decide_and_keep(OTHER, 0, 2, false).await;
    apart.decide_and_keep(GYM, 0, 2, false).await;
    assert_eq!(apart.told(GYM, 0, 2).await, "revoked");
    assert!(apart.stage.kisi.group_rows(GROUP).await.is_empty());
    apart.decide_and_keep(OTHER, 0, 3, true).await;
    theirs.thaw();
    apart.told(OTHER, 0, 3).await;
    testkit::eventually("the door is open", SOON, async || {
        apart.stage.kisi.group_rows(GROUP).await.len() == 1
    })
    .await;
    apart.end().await;
}

const RATE: u32 = 10;
const EACH: usize = 10;

/// Two keys of one owner, set up through two replicas: one of them works on both gyms, and then the
/// other one does.
async fn one_owner_is_asked_at_her_pace_across_a_takeover(is_killed: bool) {
    let stage = Stage::set(On::Postgres).await;
    let rate = RATE.to_string();
    let mut flags = FLAGS.to_vec();
    flags.push(("kisi-requests-per-second", &rate));
    let mut first = stage.spawn(&flags).await;
    for number in 0..EACH {
        decide(&stage, GYM, number, 1, true).await;
        decide(&stage, OTHER, EACH + number, 1, true).await;
    }
    two_gyms::in_sync(&mut first.running, GYM, &stage.kisi.api_key()).await;
    let key = stage.kisi.key_of_the_same();
    let mut second = stage.spawn(&flags).await;
    two_gyms::in_sync(&mut second.running, OTHER, &key).await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2 * EACH);
    let db = sea_orm::Database::connect(stage.database_url()).await;
    let db = db.unwrap();
    let before = replicas::holders(&db).await;
    assert_eq!(before[GYM], before[OTHER]);

    stage.kisi.forget_requests().await;
    stage.kisi.set(|settings| {
        // Every request too early is refused, and so is whatever comes after it.
        settings.limiter = LimiterModel::SlidingWindowCountingRefused;
        settings.rate = RATE;
    });
    for number in 0..EACH {
        decide(&stage, GYM, number, 2, false).await;
        decide(&stage, OTHER, EACH + number, 2, false).await;
    }
    testkit::eventually("the first one is at work", SOON, async || {
        stage.kisi.group_rows(GROUP).await.len() < 2 * EACH - 3
    })
    .await;
    match is_killed {
        true => first.kill().await,
        false => first.terminate().await,
    }
    assert!(!stage.kisi.group_rows(GROUP).await.is_empty());
    testkit::eventually("the other one has ended it", AFTER_A_KILL, async || {
        stage.kisi.group_rows(GROUP).await.is_empty()
    })
    .await;
    for number in 0..EACH {
        two_gyms::answer(&stage, GYM, &member(GYM, number), 2).await;
        two_gyms::answer(&stage, OTHER, &member(OTHER, EACH + number), 2).await;
    }
    let after = replicas::holders(&db).await;
    assert_eq!(after[GYM], after[OTHER]);
    assert_ne!(after[GYM], before[GYM]);
    stage.kisi.assert_nothing_was_refused().await;
    let owners: BTreeSet<i64> = {
        let state = stage.kisi.shared().lock();
        state.log.since(0).filter_map(|it| it.user_id).collect()
    };
    assert_eq!(owners.len(), 1, "one budget: {owners:?}");
    second.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_owner_is_asked_at_her_pace_across_a_kill() {
    one_owner_is_asked_at_her_pace_across_a_takeover(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_owner_is_asked_at_her_pace_across_an_orderly_stop() {
    one_owner_is_asked_at_her_pace_across_a_takeover(false).await;
}
