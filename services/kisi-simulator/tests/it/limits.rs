//! The limiter's models, and for each a client that is wrong in it.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::harness::{KEY, Kisi};

/// Statuses of `count` requests with `gap` between their sends.
async fn sent(kisi: &Kisi, count: usize, gap: Duration) -> Vec<u16> {
    let mut ticks = tokio::time::interval(gap.max(Duration::from_micros(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut statuses = Vec::new();
    for _ in 0..count {
        ticks.tick().await;
        statuses.push(kisi.get("/user").await.status);
    }
    statuses
}

fn refused(statuses: &[u16]) -> usize {
    statuses.iter().filter(|status| **status == 429).count()
}

#[tokio::test]
async fn a_client_without_pace_is_refused_by_every_model_and_a_paced_one_by_none() {
    for model in [
        "fixed_window",
        "sliding_window",
        "sliding_window_counting_refused",
        "token_bucket",
        "token_bucket_1",
    ] {
        // Two a second, so that a busy machine's delays do not let the wrong client pass.
        let kisi = Kisi::with(json!({ "limiter": model, "rate": 2 })).await;
        let burst = sent(&kisi, 12, Duration::ZERO).await;
        assert!(refused(&burst) > 0, "{model}: {burst:?}");
        let kisi = Kisi::with(json!({ "limiter": model, "rate": 2 })).await;
        let paced = sent(&kisi, 5, Duration::from_millis(700)).await;
        assert_eq!(refused(&paced), 0, "{model}: {paced:?}");
    }
}

#[tokio::test]
async fn a_client_that_hammers_gets_in_again_only_where_refusals_do_not_count() {
    let through = async |model: &str| {
        let kisi = Kisi::with(json!({ "limiter": model, "rate": 2 })).await;
        let statuses = sent(&kisi, 30, Duration::from_millis(100)).await;
        statuses.len() - refused(&statuses)
    };
    assert_eq!(through("sliding_window_counting_refused").await, 2);
    assert!(through("sliding_window").await > 2);
}

#[tokio::test]
async fn two_keys_of_one_user_share_a_budget_and_a_members_login_has_its_own() {
    let kisi = Kisi::start().await;
    let key = kisi
        .post(
            "/logins",
            json!({ "login": { "type": "api", "name": "second" } }),
        )
        .await;
    let second = key.body["secret"].as_str().expect("a secret").to_owned();
    kisi.user("ada@example.com").await;
    let (_, member) = kisi.login("ada@example.com").await;
    kisi.set(json!({ "limiter": "token_bucket_1", "rate": 1 }))
        .await;
    let ask = |key: String| {
        let kisi = &kisi;
        async move {
            kisi.call_as(Some(&key), Method::GET, "/user", None)
                .await
                .status
        }
    };
    assert_eq!(ask(KEY.into()).await, 200);
    // The wrong client gives each key a pace of its own.
    assert_eq!(ask(second).await, 429);
    assert_eq!(ask(member).await, 200);
    assert_eq!(
        kisi.call_as(None, Method::GET, "/user", None).await.status,
        401
    );
    assert_eq!(
        kisi.call_as(None, Method::GET, "/user", None).await.status,
        429,
        "per address"
    );
}

#[tokio::test]
async fn event_sets_have_a_limit_of_their_own() {
    let kisi = Kisi::with(json!({ "limiter": "fixed_window", "rate": 1000 })).await;
    let set = json!({ "event_set": { "interval": "2026-01-01T00:00:00Z/2026-02-01T00:00:00Z" } });
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(kisi.post("/event_sets", set.clone()).await.status);
    }
    assert!(
        statuses.contains(&200) && statuses.contains(&429),
        "{statuses:?}"
    );
    // The right client waits a second, and may ask for other things meanwhile.
    kisi.set(json!({ "limiter": "sliding_window" })).await;
    for _ in 0..2 {
        assert_eq!(kisi.post("/event_sets", set.clone()).await.status, 200);
        assert_eq!(kisi.get("/user").await.status, 200);
        tokio::time::sleep(Duration::from_millis(1050)).await;
    }
}

#[tokio::test]
async fn a_refusal_comes_in_every_shape() {
    let kisi = Kisi::with(json!({ "limiter": "token_bucket_1", "rate": 1 })).await;
    for (body, after) in [
        ("error", "none"),
        ("empty", "seconds"),
        ("html", "date"),
        ("error", "seconds"),
    ] {
        kisi.set(json!({ "refusal_body": body, "retry_after": after }))
            .await;
        let mut answer = kisi.get("/user").await;
        while answer.status != 429 {
            answer = kisi.get("/user").await;
        }
        match body {
            // The wrong client reads `code` of what is not JSON.
            "empty" => assert_eq!(answer.text, ""),
            "html" => assert!(answer.text.starts_with("<html>") && answer.body.is_null()),
            _ => assert_eq!(answer.body["code"], "000429"),
        }
        match after {
            "none" => assert!(answer.retry_after.is_none()),
            "seconds" => assert_eq!(answer.retry_after.as_deref(), Some("1")),
            _ => assert!(answer.retry_after.is_some_and(|at| at.ends_with(" GMT"))),
        }
    }
}
