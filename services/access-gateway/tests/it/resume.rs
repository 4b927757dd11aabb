//! `POST /members/{member}/resume` by the gym's policy.

use contracts::membership::v1::WriteOutcome;
use serde_json::json;

use crate::world::{DEADLINE, GYM, World, decision, gym};

async fn paused_in_gym(policy: &str) -> anyhow::Result<World> {
    let world = World::start().await?;
    world.publish(&gym(1, "active", policy)).await;
    world
        .publish(&decision("m_1", 1, &["membership_paused"]))
        .await;
    let path = format!("/{GYM}/members/m_1/access");
    let staff = world.staff();
    testkit::eventually("gym and member are known", DEADLINE, async || {
        world.get(&staff, &path).await.alert_codes() == ["membership_paused"]
    })
    .await;
    let outcome = WriteOutcome {
        applied: true,
        ..Default::default()
    };
    world.upstream.answer("request_resume", &outcome);
    world.upstream.answer("resume_membership", &outcome);
    Ok(world)
}

#[tokio::test]
async fn request_is_kept_by_membership_events() -> anyhow::Result<()> {
    let world = paused_in_gym("request").await?;
    let member = world.tokens.member(GYM, "m_1");
    let answer = world
        .post(&member, &format!("/{GYM}/members/m_1/resume"), json!({}))
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.body),
        (200, json!({"outcome": "requested"}))
    );
    let calls = world.upstream.calls("request_resume");
    assert_eq!(calls.len(), 1);
    let wanted = json!({"gymId": GYM, "membershipId": "ms_m_1", "memberId": "m_1"});
    assert_eq!(calls[0].message, wanted);
    assert_eq!(calls[0].actor.as_deref(), Some("member:m_1"));
    assert!(world.upstream.calls("resume_membership").is_empty());
    world.stop().await
}

#[tokio::test]
async fn immediate_resumes_here_unless_a_newer_change_stands() -> anyhow::Result<()> {
    let world = paused_in_gym("immediate").await?;
    let member = world.tokens.member(GYM, "m_1");
    let path = format!("/{GYM}/members/m_1/resume");
    let body = json!({"membership_id": "ms_m_1"});
    let answer = world.post(&member, &path, body.clone()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body),
        (200, json!({"outcome": "resumed"}))
    );
    let calls = world.upstream.calls("resume_membership");
    assert_eq!(calls.len(), 1);
    // The membership's numbers are not ours to give.
    let call = &calls[0].message;
    assert_eq!(
        (&call["unnumbered"], &call["sourceVersion"]),
        (&json!(true), &json!(null))
    );
    assert!(call["at"].is_string());
    assert!(world.upstream.calls("request_resume").is_empty());

    world
        .upstream
        .answer("resume_membership", &WriteOutcome::default());
    assert_eq!(world.post(&member, &path, body).await.status, 409);
    world.stop().await
}

#[tokio::test]
async fn off_refuses_everybody() -> anyhow::Result<()> {
    let world = paused_in_gym("off").await?;
    let path = format!("/{GYM}/members/m_1/resume");
    for token in [world.tokens.member(GYM, "m_1"), world.staff()] {
        assert_eq!(world.post(&token, &path, json!({})).await.status, 403);
    }
    for method in ["request_resume", "resume_membership"] {
        assert!(world.upstream.calls(method).is_empty());
    }
    world.stop().await
}

#[tokio::test]
async fn nothing_paused_and_other_peoples_memberships_are_refused() -> anyhow::Result<()> {
    let world = paused_in_gym("request").await?;
    world.publish(&decision("m_2", 1, &[])).await;
    world.status_becomes("m_2", "granting").await;
    let staff = world.staff();
    for (member, body, status) in [
        ("m_2", json!({}), 409),
        ("m_2", json!({"membership_id": "ms_m_2"}), 409),
        ("m_2", json!({"membership_id": "ms_m_1"}), 404),
        ("m_1", json!({"membership_id": "a.b"}), 400),
        ("m_9", json!({}), 404),
    ] {
        let path = format!("/{GYM}/members/{member}/resume");
        let answer = world.post(&staff, &path, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{member} {body}");
    }
    assert!(world.upstream.calls("request_resume").is_empty());
    world.stop().await
}
