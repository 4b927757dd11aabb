//! People who are members of two gyms of one Kisi organization, each gym on a replica of its own, change
//! in both at the same moment, while one of the replicas dies and comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use kisi_sync::store::{applied_grants, audit, members};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use crate::harness::{GYM, Stage};
use crate::kisi::{GROUP, ORGANIZATION};
use crate::two_gyms_apart::{AFTER_A_KILL, Apart, FLAGS, GYMS, OTHER, decide, email, member};
use crate::{replicas, two_gyms};

const PEOPLE: usize = 30;

/// What was decided last, by gym and person: the version, and whether she is wanted.
type Decided = BTreeMap<(&'static str, usize), (i64, bool)>;

/// So many changes, each of one gym or of both at the same moment.
async fn change(stage: &Stage, dice: &mut StdRng, decided: &mut Decided, changes: usize) {
    for _ in 0..changes {
        let number = dice.random_range(0..PEOPLE);
        let mut next = |gym: &'static str| {
            let (version, wanted) = decided.entry((gym, number)).or_insert((1, true));
            *version += 1;
            *wanted = dice.random_bool(0.5);
            (*version, *wanted)
        };
        let (ours, theirs) = (next(GYM), next(OTHER));
        tokio::join!(
            decide(stage, GYM, number, ours.0, ours.1),
            decide(stage, OTHER, number, theirs.0, theirs.1)
        );
        // People do not come all at once, or each would be written once.
        let pause = dice.random_range(0..30);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// `APART_SEED` plays another one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial of a minute and three processes, by make soak"]
async fn doors_of_people_in_both_gyms_are_right_after_a_race_and_a_kill() {
    let seed = std::env::var("APART_SEED").map_or(20_261_130, |seed| seed.parse().unwrap());
    println!("APART_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let mut apart = Apart::with(PEOPLE, &FLAGS).await;
    let mut decided = Decided::new();
    let stage = &apart.stage;
    change(stage, &mut dice, &mut decided, 80).await;
    let [ours, theirs] = apart.replicas;
    ours.kill().await;
    change(stage, &mut dice, &mut decided, 60).await;
    testkit::eventually(
        "the other replica has both gyms",
        AFTER_A_KILL,
        async || {
            let holders = replicas::holders(&apart.db).await;
            holders[GYM] == holders[OTHER]
        },
    )
    .await;
    change(stage, &mut dice, &mut decided, 40).await;
    let again = stage.spawn(&FLAGS).await;
    apart.replicas = [again, theirs];
    change(&apart.stage, &mut dice, &mut decided, 60).await;
    apart.are_apart().await;
    let stage = &apart.stage;
    change(stage, &mut dice, &mut decided, 60).await;

    stage.consumed_within(AFTER_A_KILL).await;
    let mut wrong = Vec::new();
    let are_right = tokio::time::timeout(AFTER_A_KILL, async {
        loop {
            wrong = wrong_doors(stage, &decided).await;
            if wrong.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let are_right = are_right.await.is_ok();
    for (number, _) in &wrong {
        show(&apart, *number).await;
    }
    assert!(are_right, "APART_SEED={seed}: {wrong:?}");
    for (replica, gym) in apart.replicas.iter_mut().zip(GYMS) {
        two_gyms::sync(&mut replica.running, gym).await;
    }
    let wrong = wrong_doors(&apart.stage, &decided).await;
    assert!(wrong.is_empty(), "APART_SEED={seed}: {wrong:?}");
    apart.nothing_is_left_to_do().await;
    apart.end().await;
}

/// People whose door is not as either gym wants it, with how many rights they have.
async fn wrong_doors(stage: &Stage, decided: &Decided) -> Vec<(usize, usize)> {
    let rows = stage.kisi.group_rows(GROUP).await;
    let users = stage.kisi.emails_of_users();
    let wrong = (0..PEOPLE).filter_map(|number| {
        let hers = |row: &&serde_json::Value| row["assignee"]["email"] == email(number);
        let rights = rows.iter().filter(hers).count();
        let wanted = GYMS
            .iter()
            .any(|gym| decided.get(&(*gym, number)).is_none_or(|last| last.1));
        // Nobody was erased.
        let is_there = users.contains(&email(number));
        (rights != usize::from(wanted) || !is_there).then_some((number, rights))
    });
    wrong.collect()
}

/// All that is known of a person whose door is wrong.
async fn show(apart: &Apart, number: usize) {
    let db = &apart.db;
    println!("Person {number}:");
    for gym in GYMS {
        let id = member(gym, number);
        println!("{:?}", members::find(db, gym, &id).await.unwrap());
        let rows = applied_grants::Entity::find()
            .filter(applied_grants::Column::GymId.eq(gym))
            .filter(applied_grants::Column::MemberId.eq(&id));
        println!("{:?}", rows.all(db).await.unwrap());
        let log = audit::list_of_member(db, gym, &id, i64::MAX, 40).await;
        for row in log.unwrap() {
            println!("{} {} {}", row.at, row.gym_id, row.entry);
        }
    }
    let state = apart.stage.kisi.shared().lock();
    let user = state
        .world
        .user_by_email(ORGANIZATION, &email(number))
        .map(|user| user.id);
    for entry in state.log.since(0) {
        let texts = [&entry.path, &entry.query];
        let bodies = [&entry.request_body, &entry.response_body];
        let bodies = bodies.map(ToString::to_string);
        let id = user.unwrap_or_default().to_string();
        let is_hers = texts.iter().any(|text| text.contains(&id))
            || bodies.iter().any(|text| text.contains(&id));
        if is_hers {
            println!(
                "{} {:?} {} {}?{} {:?} {}",
                entry.time,
                entry.user_id,
                entry.method,
                entry.path,
                entry.query,
                entry.status,
                bodies[1].chars().take(300).collect::<String>()
            );
        }
    }
}
