//! `GET /members/{member}/access` as the bus changes.

use contracts::membership::v1::{Member, OpenInvoice};
use serde_json::json;

use crate::world::{GROUP, GYM, World, alert_codes, decision, gym, outcome};

#[tokio::test]
async fn page_follows_a_failed_payment_and_its_recovery() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.active_gym().await;
    world.publish(&decision("m_1", 1, &[])).await;
    let page = world.status_becomes("m_1", "granting").await;
    assert_eq!(page["decision"]["allowed"], true);
    assert_eq!(page["applied"], json!({"allowed": false, "version": 0}));

    world
        .publish(&outcome("m_1", 1, 1, "granted", &[GROUP]))
        .await;
    let page = world.status_becomes("m_1", "granted").await;
    assert_eq!(page["decision"]["version"], 1);
    assert_eq!(page["applied"]["version"], 1);
    assert_eq!(
        page["doors"],
        json!([{"lock_id": 21, "name": "Front door", "online": true}])
    );
    assert_eq!(page["alerts"], json!([]));

    world
        .publish(&decision("m_1", 2, &["missed_payment"]))
        .await;
    let page = world.status_becomes("m_1", "revoking").await;
    assert_eq!(alert_codes(&page), ["missed_payment"]);

    world.publish(&outcome("m_1", 2, 2, "revoked", &[])).await;
    let page = world.status_becomes("m_1", "denied").await;
    // The scripted membership-events has no link: the alert is shown all the same.
    assert_eq!(page["alerts"][0]["action"], json!({"kind": "pay"}));

    world.publish(&decision("m_1", 3, &[])).await;
    world
        .publish(&outcome("m_1", 3, 3, "granted", &[GROUP]))
        .await;
    world.status_becomes("m_1", "granted").await;
    world.stop().await
}

#[tokio::test]
async fn held_change_is_told() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.active_gym().await;
    world
        .publish(&decision("m_1", 2, &["membership_ended"]))
        .await;
    world.publish(&outcome("m_1", 1, 2, "held", &[GROUP])).await;
    let page = world.status_becomes("m_1", "held").await;
    assert_eq!(page["decision"]["allowed"], false);
    assert_eq!(page["applied"]["allowed"], true);
    world.stop().await
}

#[tokio::test]
async fn pay_link_is_fetched_when_shown_and_never_kept() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.active_gym().await;
    world
        .publish(&decision("m_1", 1, &["missed_payment"]))
        .await;
    world.status_becomes("m_1", "denied").await;
    world.upstream.answer(
        "get_member",
        &Member {
            open_invoices: vec![OpenInvoice {
                payment_url: Some("https://pay.example/i_1".to_owned()),
                ..Default::default()
            }],
            ..Default::default()
        },
    );
    let member = world.tokens.member(GYM, "m_1");
    let path = format!("/{GYM}/members/m_1/access");
    let action = json!({"kind": "pay", "url": "https://pay.example/i_1"});
    let shown = world.get(&member, &path).await;
    assert_eq!(shown.body["alerts"][0]["action"], action);
    assert_eq!(shown.header("cache-control"), "no-store");
    let asked = world.upstream.calls("get_member");
    let last = asked.last().expect("asked");
    assert_eq!(last.actor.as_deref(), Some("member:m_1"));
    // A mask, so that no name or e-mail travels.
    assert_eq!(last.message["readMask"]["paths"], json!(["open_invoices"]));

    world
        .upstream
        .refuse("get_member", tonic::Status::unavailable("down"));
    let shown = world.get(&member, &path).await;
    assert_eq!(shown.body["alerts"][0]["action"], json!({"kind": "pay"}));
    world.stop().await
}

#[tokio::test]
async fn each_state_of_the_integration_is_told() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.publish(&decision("m_1", 1, &[])).await;
    let page = world.status_becomes("m_1", "denied").await;
    assert_eq!(alert_codes(&page), ["integration_unavailable"]);

    let mut unmapped = gym(1, "active", "request");
    unmapped.associations.clear();
    world.publish(&unmapped).await;
    let staff = world.staff();
    let path = format!("/{GYM}/members/m_1/access");
    testkit::eventually("the gym is active", crate::world::DEADLINE, async || {
        world.get(&staff, &path).await.alert_codes() == ["plan_without_access"]
    })
    .await;

    world.publish(&gym(2, "active", "request")).await;
    let page = world.status_becomes("m_1", "granting").await;
    assert_eq!(page["alerts"], json!([]));
    world.stop().await
}

#[tokio::test]
async fn erased_member_is_unknown() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.active_gym().await;
    world.publish(&decision("m_1", 1, &[])).await;
    world.status_becomes("m_1", "granting").await;
    let mut tombstone = decision("m_1", 2, &["membership_ended"]);
    tombstone.erased = true;
    world.publish(&tombstone).await;
    let staff = world.staff();
    let path = format!("/{GYM}/members/m_1/access");
    testkit::eventually(
        "the member is unknown",
        crate::world::DEADLINE,
        async || world.get(&staff, &path).await.status == 404,
    )
    .await;
    world.stop().await
}
