//! Syncs and held plans.

use contracts::integration::v1 as wire;
use reqwest::Method;
use serde_json::json;

use crate::world::{GYM, World};

#[tokio::test]
async fn syncs_are_started_followed_and_reported() -> anyhow::Result<()> {
    let world = World::start().await?;
    let upstream = &world.upstream;
    let mut sync = wire::Sync {
        sync_id: "s_1".to_owned(),
        gym_id: GYM.to_owned(),
        state: "queued".to_owned(),
        activation: "first".to_owned(),
        ..Default::default()
    };
    upstream.answer("start_sync", &sync);
    let staff = world.staff();
    let path = |rest: &str| format!("/{GYM}/integration/{rest}");
    let answer = world
        .call(Method::POST, Some(&staff), &path("sync"), None)
        .await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.body["id"], "s_1");
    assert_eq!(answer.body["sync_id"], "s_1");
    assert_eq!(answer.body["state"], "queued");

    sync.state = "done".to_owned();
    sync.in_sync = true;
    sync.report = Some(wire::SyncReport {
        members: 2,
        granted: 2,
        unmanaged_grants: vec![wire::UnmanagedGrant {
            assignment_id: 9,
            group_id: 11,
            ..Default::default()
        }],
        ..Default::default()
    });
    upstream.answer("get_sync", &sync);
    let answer = world.get(&staff, &path("syncs/s_1")).await;
    assert_eq!(answer.body["in_sync"], true);
    assert_eq!(answer.body["report"]["granted"], 2);
    assert_eq!(answer.body["report"]["failed"], 0);
    let unmanaged = &answer.body["report"]["unmanaged_grants"];
    assert_eq!(unmanaged, &json!([{"assignment_id": 9, "group_id": 11}]));

    let outcome = wire::SyncMemberResponse {
        outcome: "queued".to_owned(),
    };
    upstream.answer("sync_member", &outcome);
    let answer = world
        .call(
            Method::POST,
            Some(&staff),
            &format!("/{GYM}/members/m_1/sync"),
            None,
        )
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.body),
        (202, json!({"outcome": "queued"}))
    );
    world.stop().await
}

#[tokio::test]
async fn held_plans_are_listed_and_decided_by_digest() -> anyhow::Result<()> {
    let world = World::start().await?;
    let plan = wire::HeldPlan {
        id: "h_1".to_owned(),
        digest: "d_1".to_owned(),
        class: "unexplained".to_owned(),
        causes: vec!["drift".to_owned()],
        revokes: 12,
        state: "held".to_owned(),
        ..Default::default()
    };
    world.upstream.answer(
        "list_held_plans",
        &wire::ListHeldPlansResponse {
            held_plans: vec![plan.clone()],
        },
    );
    world.upstream.answer("approve_plan", &plan);
    world.upstream.answer("discard_plan", &plan);
    let staff = world.staff();
    let path = format!("/{GYM}/integration/held-plans");
    let shown = json!({
        "id": "h_1", "digest": "d_1", "class": "unexplained", "causes": ["drift"],
        "revokes": 12, "grants": 0, "state": "held",
    });
    let answer = world.get(&staff, &path).await;
    assert_eq!(answer.body, json!({"held_plans": [shown]}));
    let digest = json!({"digest": "d_1"});
    let answer = world
        .post(&staff, &format!("{path}/h_1/approve"), digest)
        .await;
    assert_eq!((answer.status.as_u16(), &answer.body), (200, &shown));
    let answer = world
        .call(
            Method::POST,
            Some(&staff),
            &format!("{path}/h_1/discard"),
            None,
        )
        .await;
    assert_eq!(answer.status, 200);
    world.stop().await
}
