//! NATS away, restarted, or not there yet.

use testkit::{NatsServer, eventually};

use crate::world::{DEADLINE, GROUP, GYM, World, decision, gym, outcome};

#[tokio::test]
async fn replica_that_has_not_caught_up_says_so_rather_than_guess() -> anyhow::Result<()> {
    let mut nats = NatsServer::start().await?;
    nats.stop().await?;
    let mut world = World::start_on(nats).await?;
    let staff = world.staff();
    let page = format!("/{GYM}/members/m_1/access");
    for path in [page.clone(), format!("/{GYM}/members")] {
        let answer = world.get(&staff, &path).await;
        assert_eq!(answer.status, 503);
        assert!(!answer.header("retry-after").is_empty());
    }
    assert!(!world.is_ready().await);
    world.nats.restart().await?;
    world.ready().await;
    assert_eq!(world.get(&staff, &page).await.status, 404);
    world.stop().await
}

#[tokio::test]
async fn later_replica_knows_all_that_was_said_before() -> anyhow::Result<()> {
    let first = World::start().await?;
    first.active_gym().await;
    for index in 0..300 {
        let member = format!("m_{index}");
        first
            .publish(&decision(&member, 1, &["missed_payment"]))
            .await;
        first.publish(&decision(&member, 2, &[])).await;
        first
            .publish(&outcome(&member, 1, 2, "granted", &[GROUP]))
            .await;
    }
    let settings = first.config.nats.clone();
    // A second one, on the same server: ready means that all of it is known.
    let free = || std::net::SocketAddr::from(([127, 0, 0, 1], testkit::free_port()));
    let mut config = first.config.clone();
    (config.http_addr, config.grpc_addr, config.health_addr) = (free(), free(), free());
    assert_eq!(config.nats.nats_url, settings.nats_url);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let second = tokio::spawn(access_gateway::run(config.clone(), shutdown.clone()));
    let ready = format!("http://{}/readyz", config.health_addr);
    eventually("the second is ready", DEADLINE, async || {
        matches!(first.http.get(&ready).send().await, Ok(answer) if answer.status().is_success())
    })
    .await;
    let staff = first.staff();
    for index in [0, 150, 299] {
        let url = format!(
            "http://{}/api/v1/gyms/{GYM}/members/m_{index}/access",
            config.http_addr
        );
        let page = first.http.get(url).bearer_auth(&staff).send().await?;
        let page: serde_json::Value = page.json().await?;
        assert_eq!(page["status"], "granted", "m_{index}");
    }
    shutdown.cancel();
    second.await??;
    first.stop().await
}

#[tokio::test]
async fn projection_goes_on_after_a_restart_of_nats_and_answers_meanwhile() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    world.active_gym().await;
    world.publish(&decision("m_1", 1, &[])).await;
    world.status_becomes("m_1", "granting").await;
    world.nats.kill().await?;
    let staff = world.staff();
    let page = format!("/{GYM}/members/m_1/access");
    assert_eq!(world.get(&staff, &page).await.status, 200, "from memory");
    world.nats.restart().await?;
    world
        .publish(&outcome("m_1", 1, 1, "granted", &[GROUP]))
        .await;
    world.status_becomes("m_1", "granted").await;
    world.publish(&gym(2, "needs_attention", "request")).await;
    world
        .publish(&decision("m_1", 2, &["membership_ended"]))
        .await;
    world.status_becomes("m_1", "revoking").await;
    world.stop().await
}

#[tokio::test]
async fn services_behind_that_are_nowhere_stop_no_check_and_no_page() -> anyhow::Result<()> {
    let world = World::start_alone().await?;
    world.active_gym().await;
    world
        .publish(&decision("m_1", 1, &["missed_payment"]))
        .await;
    let page = world.status_becomes("m_1", "denied").await;
    assert_eq!(
        page["alerts"][0]["action"],
        serde_json::json!({"kind": "pay"})
    );
    let staff = world.staff();
    let list = world.get(&staff, &format!("/{GYM}/members")).await;
    assert_eq!(list.body["members"][0]["member_id"], "m_1");
    let integration = world.get(&staff, &format!("/{GYM}/integration")).await;
    assert_eq!(integration.body["state"], "active");
    let places = world
        .get(&staff, &format!("/{GYM}/integration/places"))
        .await;
    assert_eq!(places.status, 503);
    // Nothing of addresses or connections.
    assert_eq!(places.body["detail"], "kisi-sync does not answer now");
    world.stop().await
}

#[tokio::test]
async fn message_that_makes_no_sense_blinds_nobody() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.active_gym().await;
    let garbage = serde_json::json!({"version": {"not": "a number"}});
    world
        .publish_as("membership.v1.iron.m_1", "garbage", &garbage)
        .await;
    // Under another member's address: what it says of m_2 must not count.
    let stray = decision("m_2", 9, &["barred_by_staff"]);
    world
        .publish_as("membership.v1.iron.m_1", "stray", &stray)
        .await;
    world.publish(&decision("m_2", 1, &[])).await;
    let page = world.status_becomes("m_2", "granting").await;
    assert_eq!(page["decision"]["version"], 1);
    let metrics = format!("http://{}/metrics", world.config.health_addr);
    let metrics = world.http.get(metrics).send().await?.text().await?;
    assert!(
        metrics.contains("projection_unreadable_messages_total"),
        "{metrics}"
    );
    world.stop().await
}
