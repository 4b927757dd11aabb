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
