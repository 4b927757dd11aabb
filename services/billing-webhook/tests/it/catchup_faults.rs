//! Catching up when something fails: the provider's API, or the replica that asks it.

use std::time::Duration;

use serde_json::json;
use testkit::{NatsServer, eventually};

use crate::catchup::{Replica, bus, day, endpoints, in_bucket, on_billing, until_run_is_done};
use crate::catchup_api::{Fault, ProviderApi};
use crate::harness::DEADLINE;
use crate::process::Process;

const CURSOR: &str = "cursor.gocardless.gym.OR1";

/// The real process, with the API at `api` and five runs a second.
async fn start_process(api: &ProviderApi, level: &str) -> (Process, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("endpoints.yaml");
    std::fs::write(&file, endpoints(true)).expect("endpoints");
    let process = Process::start(&[
        ("BILLING_ENDPOINTS_FILE", file.to_str().expect("text")),
        ("STRIPE_API_BASE", &api.url),
        ("GOCARDLESS_API_BASE", &api.url),
        ("CATCHUP_EVERY", "200ms"),
        ("CATCHUP_REQUESTS_PER_SECOND", "1000"),
        ("CATCHUP_TURN_EXPIRY", "3s"),
        ("CATCHUP_REQUEST_TIMEOUT", "60s"),
        ("RUST_LOG", level),
    ])
    .await;
    (process, folder)
}

async fn counted(process: &Process, series: &str) -> u64 {
    let metrics = process.metrics().await;
    let value = metrics.lines().find_map(|line| line.strip_prefix(series));
    value.expect(series).trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_fails_ends_the_run_is_told_and_moves_no_cursor() {
    let api = ProviderApi::start().await;
    let day = day(1_100);
    day.is_kept_by(&api);
    api.fail(0, Fault::Status(500));
    let (process, _folder) = start_process(&api, "debug").await;
    let bus = bus(&process.nats).await;
    let gone_round = json!({ "data": [{ "id": "evt_1" }], "has_more": true,
        "events": [{ "id": "EV1" }], "meta": { "cursors": { "after": "EV1" } } });
    for (fault, cause) in [
        (Fault::Status(500), "unavailable"),
        (Fault::Status(401), "unauthorized"),
        (Fault::Status(403), "unauthorized"),
        (Fault::Status(429), "rate_limited"),
        (Fault::Status(302), "refused"),
        (Fault::Body("<html>KEYCANARY".into()), "unreadable"),
        (Fault::Body(gone_round.to_string()), "unreadable"),
    ] {
        api.fail(0, fault.clone());
        for provider in ["stripe", "gocardless"] {
            let series = format!(
                "billing_webhook_catchup_failures_total{{provider=\"{provider}\",cause=\"{cause}\"}} "
            );
            let before = counted(&process, &series).await;
            eventually(cause, DEADLINE, async || {
                counted(&process, &series).await > before
            })
            .await;
        }
        assert_eq!(in_bucket(&bus, CURSOR).await, None, "{fault:?}");
    }
    let (stored, _) = on_billing(&process.nats).await;
    assert!(stored.is_empty());

    // The key is dead: the second account is not asked with it.
    api.fail(0, Fault::Status(401));
    let asked = api.asked().len();
    eventually("a few more runs", DEADLINE, async || {
        api.asked().len() >= asked + 8
    })
    .await;
    let of_accounts = api.asked()[asked + 3..]
        .iter()
        .filter(|asked| asked.account.is_some())
        .count();
    assert_eq!(of_accounts, 0);

    // Every run fails at its second page of GoCardless's: what was read is not counted as read.
    let failed =
        "billing_webhook_catchup_failures_total{provider=\"gocardless\",cause=\"unavailable\"} ";
    api.fail_pages(Fault::Status(500));
    let before = counted(&process, failed).await;
    eventually("a run fails in the middle", DEADLINE, async || {
        counted(&process, failed).await > before
    })
    .await;
    assert_eq!(in_bucket(&bus, CURSOR).await, None);

    api.heal();
    eventually("the cursor moves", DEADLINE, async || {
        in_bucket(&bus, CURSOR).await.is_some()
    })
    .await;
    // The cursor is GoCardless's; Stripe may have been asked before the heal, and is asked again.
    let expected = day.expected();
    eventually("the day is whole", DEADLINE, async || {
        on_billing(&process.nats).await.0.len() >= expected.len()
    })
    .await;
    let (stored, messages) = on_billing(&process.nats).await;
    assert_eq!(stored, expected);
    assert_eq!(messages, stored.len());

    let log = process.log();
    for words in [
        "The API key of stripe/main is refused",
        "Catching up gocardless/gym failed",
        "it answers 429",
        "events that had not been delivered",
    ] {
        assert!(log.contains(words), "{words}");
    }
    assert!(
        !log.contains("KEYCANARY"),
        "an API key, or a body, is in the log"
    );
    assert!(!process.metrics().await.contains("KEYCANARY"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_killed_in_the_middle_is_made_by_another_replica() {
    let api = ProviderApi::start().await;
    let day = day(1_100);
    day.is_kept_by(&api);
    // In the middle of GoCardless's three pages, and before Stripe's twelve.
    api.fail(2, Fault::Silence);
    let (mut process, _folder) = start_process(&api, "info").await;
    eventually("it is in the middle", DEADLINE, async || {
        api.asked().len() >= 2
    })
    .await;
    let bus = bus(&process.nats).await;
    let turn = in_bucket(&bus, "turn").await.expect("a turn");
    assert_eq!(turn["state"], "running");
    process.signal("-KILL");
    process.exit_code().await;
    assert_eq!(in_bucket(&bus, CURSOR).await, None);
    let (stored, _) = on_billing(&process.nats).await;
    assert!(stored.len() < day.expected().len());

    api.heal();
    let replica = Replica::launch(&process.nats, &api, |_| {});
    eventually("the cursor moves", DEADLINE, async || {
        in_bucket(&bus, CURSOR).await.is_some()
    })
    .await;
    until_run_is_done(&bus).await;
    let (stored, messages) = on_billing(&process.nats).await;
    assert_eq!(stored, day.expected());
    assert_eq!(messages, stored.len(), "nothing is double");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_cut_short_by_a_stop_is_given_back_and_made_at_once() {
    let api = ProviderApi::start().await;
    let nats = NatsServer::start().await.expect("nats-server");
    let day = day(40);
    day.is_kept_by(&api);
    api.fail(2, Fault::Silence);
    let long = |config: &mut billing_webhook::config::Config| {
        config.catchup.catchup_turn_expiry = Duration::from_secs(3_600);
        config.catchup.catchup_request_timeout = Duration::from_secs(3_600);
    };
    let replica = Replica::launch(&nats, &api, long);
    eventually("it is in the middle", DEADLINE, async || {
        api.asked().len() >= 2
    })
    .await;
    replica.stop().await;
    let bus = bus(&nats).await;
    let turn = in_bucket(&bus, "turn").await.expect("a turn");
    assert_eq!(turn["state"], "given_back");

    api.heal();
    let replica = Replica::launch(&nats, &api, long);
    until_run_is_done(&bus).await;
    assert_eq!(on_billing(&nats).await.0, day.expected());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_does_not_answer_holds_nothing_for_longer_than_its_time_limit() {
    let api = ProviderApi::start().await;
    let nats = NatsServer::start().await.expect("nats-server");
    api.fail(0, Fault::Silence);
    let replica = Replica::launch(&nats, &api, |config| {
        config.catchup.catchup_request_timeout = Duration::from_millis(300);
    });
    eventually("both are asked", DEADLINE, async || api.asked().len() >= 2).await;
    let bus = bus(&nats).await;
    until_run_is_done(&bus).await;
    // Stripe's second account is not asked while Stripe does not answer.
    let asked: Vec<_> = api
        .asked()
        .into_iter()
        .map(|asked| asked.provider)
        .collect();
    assert_eq!(asked, ["gocardless", "stripe"]);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_leave_no_faster_than_they_may() {
    let api = ProviderApi::start().await;
    let nats = NatsServer::start().await.expect("nats-server");
    let day = day(1_100);
    day.is_kept_by(&api);
    let began = tokio::time::Instant::now();
    let replica = Replica::launch(&nats, &api, |config| {
        config.catchup.catchup_requests_per_second = 10.0;
    });
    eventually("the first run", DEADLINE, async || api.asked().len() >= 15).await;
    // Fourteen intervals of 100 ms lie between fifteen requests.
    assert!(began.elapsed() >= Duration::from_millis(1_400));
    replica.stop().await;
}
