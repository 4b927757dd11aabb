//! Messages that could not be handled: seen with their causes, and given to their consumers again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use event_bus::{ConsumerConfig, Delivery, Disposition};
use serde_json::{Value, json};
use testkit::eventually;
use tokio_util::sync::CancellationToken;

use crate::world::{Answer, DEADLINE, GYM, World, decision};

/// A consumer that refuses everything, until it is told better.
struct Picky {
    is_mended: Arc<AtomicBool>,
    took: Arc<AtomicUsize>,
}

impl Picky {
    fn start(world: &World) -> Self {
        let (is_mended, took) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let picky = Self {
            is_mended: Arc::clone(&is_mended),
            took: Arc::clone(&took),
        };
        let handler = move |_: Value, _: Delivery| {
            let (is_mended, took) = (Arc::clone(&is_mended), Arc::clone(&took));
            async move {
                if !is_mended.load(Ordering::SeqCst) {
                    return Disposition::reject("no such plan");
                }
                took.fetch_add(1, Ordering::SeqCst);
                Disposition::Done
            }
        };
        let config = ConsumerConfig::new("MEMBERSHIP", "picky", "membership.v1.>");
        let consumer = world.bus.consumer(config);
        tokio::spawn(consumer.run(handler, CancellationToken::new()));
        picky
    }
}

async fn listed(world: &World, token: &str, query: &str) -> Answer {
    let answer = world
        .get(token, &format!("/{GYM}/dead-letters{query}"))
        .await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer
}

fn ids(answer: &Answer) -> Vec<i64> {
    let letters = answer.body["dead_letters"].as_array().expect("a list");
    let ids = letters.iter().map(|letter| letter["id"].as_i64());
    ids.map(|id| id.expect("an id")).collect()
}

#[tokio::test]
async fn dead_letters_are_listed_by_gym_and_replayed() -> anyhow::Result<()> {
    let world = World::start().await?;
    let picky = Picky::start(&world);
    let staff = world.staff();
    for member in ["m_1", "m_2", "m_3"] {
        world.publish(&decision(member, 1, &[])).await;
    }
    let mut elsewhere = decision("m_1", 1, &[]);
    elsewhere.gym_id = "steel".to_owned();
    world.publish(&elsewhere).await;
    let service = world.tokens.service("booking");
    eventually("all were given up", DEADLINE, async || {
        let there = world.get(&service, "/steel/dead-letters").await;
        ids(&listed(&world, &staff, "").await).len() == 3 && ids(&there).len() == 1
    })
    .await;

    let first = listed(&world, &staff, "?page_size=2").await;
    let letter = &first.body["dead_letters"][0];
    assert_eq!(
        [
            &letter["stream"],
            &letter["consumer"],
            &letter["cause"],
            &letter["attempts"]
        ],
        [
            &json!("MEMBERSHIP"),
            &json!("picky"),
            &json!("no such plan"),
            &json!(1)
        ]
    );
    let token = first.body["next_page_token"].as_str().expect("more");
    let second = listed(&world, &staff, &format!("?page_size=2&page_token={token}")).await;
    assert_eq!(second.body.get("next_page_token"), None);
    let mut all = ids(&first);
    all.extend(ids(&second));
    assert_eq!(all, ids(&listed(&world, &staff, "").await));

    // Another gym's letter, or none, is nobody's to replay; then nothing is.
    picky.is_mended.store(true, Ordering::SeqCst);
    let replay = format!("/{GYM}/dead-letters/replay");
    let theirs = ids(&world.get(&service, "/steel/dead-letters").await)[0];
    for wrong in [theirs, 999, -1] {
        let body = json!({"ids": [all[0], wrong]});
        let answer = world.post(&staff, &replay, body).await;
        assert_eq!(answer.status, 400, "{wrong}");
        assert_eq!(answer.body["errors"][0]["field"], "ids[1]");
    }
    assert_eq!(ids(&listed(&world, &staff, "").await).len(), 3);

    let answer = world.post(&staff, &replay, json!({"ids": [all[1]]})).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body),
        (200, json!({"replayed": 1}))
    );
    assert_eq!(ids(&listed(&world, &staff, "").await), [all[0], all[2]]);
    let answer = world.post(&staff, &replay, json!({})).await;
    assert_eq!(answer.body, json!({"replayed": 2}));
    assert_eq!(ids(&listed(&world, &staff, "").await), [] as [i64; 0]);
    eventually("the consumer has them", DEADLINE, async || {
        picky.took.load(Ordering::SeqCst) == 3
    })
    .await;
    world.stop().await
}

#[tokio::test]
async fn who_may_not_replay_and_what_is_no_page_are_told_so() -> anyhow::Result<()> {
    let world = World::start().await?;
    let reader = world.tokens.staff(GYM, "u_1", "read");
    let replay = format!("/{GYM}/dead-letters/replay");
    let answer = world.post(&reader, &replay, json!({})).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.body["detail"], "the scope configure is missing");
    for (query, field) in [
        ("?page_size=0", "page_size"),
        ("?page_size=501", "page_size"),
        ("?page_token=next", "page_token"),
    ] {
        let path = format!("/{GYM}/dead-letters{query}");
        let answer = world.get(&reader, &path).await;
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.body["errors"][0]["field"], field);
    }
    world.stop().await
}
