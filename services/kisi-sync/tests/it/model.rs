//! Random stories of one gym against the simulator, over a failing Kisi, changes by hand, and
//! replicas that are killed, stopped and frozen; on SQLite and on PostgreSQL.
//!
//! After quiet Kisi holds for each member what was decided and mapped last, no more and no less, by
//! rights of ours; what people gave by hand is untouched; every last answer on `ACCESS` says what
//! is so. And a log of every right with its times, next to the times of what was decided, shows
//! that nobody was let in for longer than is explained by a failing Kisi, a dying replica, or a
//! loss that nobody told.
//!
//! `MODEL_SEED` and `KISI_MODEL_STORIES` play other stories, and more of them; `make soak` does both.

mod judge;
mod logged;
mod mutants;
mod replicas;
mod story;
mod troubles;
mod truth;
mod watch;

use story::{Story, Weather};

use crate::harness::On;

fn number(variable: &str, otherwise: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.map_or(otherwise, |text| text.parse().expect("a number"))
}

async fn doors_follow_what_is_decided(on: On) {
    let seed = number("MODEL_SEED", 20_260_601);
    for story in 0..number("KISI_MODEL_STORIES", 2) {
        let seed = seed.wrapping_add(story);
        println!("MODEL_SEED={seed} KISI_MODEL_STORIES=1 on {on:?}");
        let mut story = Story::begin(on, seed).await;
        story.play(25, Weather::Calm).await;
        story.play(45, Weather::Storm).await;
        story.calm_down().await;
        story.play(25, Weather::Calm).await;
        if let Err(report) = story.end().await {
            panic!("MODEL_SEED={seed} KISI_MODEL_STORIES=1 on {on:?} shows:\n{report}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_follow_what_is_decided_on_sqlite() {
    doors_follow_what_is_decided(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_follow_what_is_decided_on_postgres() {
    doors_follow_what_is_decided(On::Postgres).await;
}
