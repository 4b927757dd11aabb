//! Lists of members, unlocking, what phones report.

use contracts::access::v1::UnlockResponse;
use contracts::membership::v1::{ListMembersResponse, Member};
use serde_json::json;
use tonic::Status;

use crate::world::{GROUP, GYM, World, decision, outcome};

async fn with_members() -> anyhow::Result<World> {
    let world = World::start().await?;
    world.active_gym().await;
    world.publish(&decision("m_1", 1, &[])).await;
    world
        .publish(&outcome("m_1", 1, 1, "granted", &[GROUP]))
        .await;
    world
        .publish(&decision("m_2", 1, &["membership_ended"]))
        .await;
    world.publish(&decision("m_3", 1, &[])).await;
    world
        .publish(&outcome("m_3", 1, 1, "granted", &[GROUP]))
        .await;
    world.status_becomes("m_1", "granted").await;
    world.status_becomes("m_2", "denied").await;
    world.status_becomes("m_3", "granted").await;
    Ok(world)
}

#[tokio::test]
async fn list_joins_names_with_statuses() -> anyhow::Result<()> {
    let world = with_members().await?;
    let person = |member: &str, name: &str| Member {
        member_id: member.to_owned(),
        name: name.to_owned(),
        email: format!("{member}@example.com"),
        ..Default::default()
    };
    world.upstream.answer(
        "list_members",
        &ListMembersResponse {
            members: vec![
                person("m_1", "Ada"),
                person("m_2", "Bo"),
                person("m_4", "New"),
            ],
            next_page_token: String::new(),
        },
    );
    let staff = world.staff();
    let answer = world
        .get(&staff, &format!("/{GYM}/members?query=a&status=denied"))
        .await;
    assert_eq!(
        answer.body,
        json!({"members": [
            {"member_id": "m_2", "name": "Bo", "email": "m_2@example.com", "status": "denied", "reasons": ["membership_ended"]},
            // Not decided yet: no access, and shown.
            {"member_id": "m_4", "name": "New", "email": "m_4@example.com", "status": "denied", "reasons": []},
        ]})
    );
    let calls = world.upstream.calls("list_members");
    assert_eq!(calls[0].message["query"], "a");
    world.stop().await
}

#[tokio::test]
async fn page_filtered_by_status_is_filled_over_pages_and_goes_on_where_it_ended()
-> anyhow::Result<()> {
    let world = with_members().await?;
    let page = |members: &[&str], next: &str| ListMembersResponse {
        members: members
            .iter()
            .map(|member| Member {
                member_id: (*member).to_owned(),
                ..Default::default()
            })
            .collect(),
        next_page_token: next.to_owned(),
    };
    world
        .upstream
        .answer_once("list_members", &page(&["m_1", "m_2"], "t_1"));
    world
        .upstream
        .answer_once("list_members", &page(&["m_3"], "t_2"));
    let staff = world.staff();
    let path = format!("/{GYM}/members?status=granted&page_size=2");
    let first = world.get(&staff, &path).await;
    let ids = |body: &serde_json::Value| -> Vec<String> {
        let rows = body["members"].as_array().cloned().unwrap_or_default();
        rows.iter()
            .filter_map(|row| row["member_id"].as_str().map(str::to_owned))
            .collect()
    };
    assert_eq!(ids(&first.body), ["m_1", "m_3"]);
    let token = first.body["next_page_token"].as_str().expect("a next page");
    world.upstream.answer_once("list_members", &page(&[], ""));
    let last = world
        .get(&staff, &format!("{path}&page_token={token}"))
        .await;
    assert_eq!(last.body, json!({"members": []}));
    let asked: Vec<_> = world
        .upstream
        .calls("list_members")
        .into_iter()
        .map(|call| {
            (
                call.message["pageSize"].clone(),
                call.message["pageToken"].clone(),
            )
        })
        .collect();
    let none = serde_json::Value::Null;
    // The second page of theirs fills what the first left open, and not more.
    assert_eq!(
        asked,
        [
            (json!(2), none),
            (json!(1), json!("t_1")),
            (json!(2), json!("t_2"))
        ]
    );
    world.stop().await
}

#[tokio::test]
async fn list_is_answered_from_memory_while_membership_events_is_down() -> anyhow::Result<()> {
    let world = with_members().await?;
    world
        .upstream
        .refuse("list_members", Status::unavailable("down"));
    let staff = world.staff();
    let path = format!("/{GYM}/members?status=granted&page_size=1");
    let first = world.get(&staff, &path).await;
    assert_eq!(first.body["members"][0]["member_id"], "m_1");
    assert!(first.body["members"][0].get("name").is_none());
    let token = first.body["next_page_token"].as_str().expect("a next page");
    let last = world
        .get(&staff, &format!("{path}&page_token={token}"))
        .await;
    let row = json!({"member_id": "m_3", "status": "granted", "reasons": []});
    assert_eq!(last.body, json!({"members": [row]}));
    // Searching needs names.
    let answer = world.get(&staff, &format!("/{GYM}/members?query=a")).await;
    assert_eq!(answer.status, 503);
    world.stop().await
}

#[tokio::test]
async fn unlock_is_refused_on_a_fact_and_else_passed_on() -> anyhow::Result<()> {
    let world = with_members().await?;
    let open = UnlockResponse {
        unlocked: true,
        alert: None,
    };
    world.upstream.answer("unlock", &open);
    let body = json!({"lock_id": 21, "location": {"latitude": 51.5, "longitude": -0.1}, "proximity_proof": "p"});
    let member = world.tokens.member(GYM, "m_1");
    let answer = world
        .post(&member, &format!("/{GYM}/members/m_1/unlock"), body.clone())
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.body),
        (200, json!({"unlocked": true}))
    );
    let passed = world.upstream.calls("unlock");
    assert_eq!(
        passed[0].message["location"],
        json!({"latitude": 51.5, "longitude": -0.1})
    );
    assert_eq!(passed[0].message["proximityProof"], "p");

    let member = world.tokens.member(GYM, "m_2");
    let answer = world
        .post(&member, &format!("/{GYM}/members/m_2/unlock"), body)
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["unlocked"], false);
    assert_eq!(answer.body["alert"]["code"], "membership_ended");
    assert_eq!(
        world.upstream.calls("unlock").len(),
        1,
        "nothing was passed on"
    );
    world.stop().await
}

#[tokio::test]
async fn phone_report_shows_on_the_page_until_it_is_fixed() -> anyhow::Result<()> {
    let world = with_members().await?;
    let member = world.tokens.member(GYM, "m_1");
    let path = format!("/{GYM}/members/m_1/permissions");
    let page = format!("/{GYM}/members/m_1/access");
    let lacking = json!({"bluetooth": false, "location": true});
    let answer = world.put(&member, &path, lacking).await;
    assert_eq!(
        answer.body["alerts"][0]["code"],
        "missing_permission_bluetooth"
    );
    assert_eq!(
        answer.body["alerts"][0]["action"],
        json!({"kind": "fix_phone"})
    );
    let shown = world.get(&member, &page).await;
    assert_eq!(shown.alert_codes(), ["missing_permission_bluetooth"]);
    let fixed = json!({"bluetooth": true, "location": true});
    assert_eq!(
        world.put(&member, &path, fixed).await.body,
        json!({"alerts": []})
    );
    assert!(world.get(&member, &page).await.alert_codes().is_empty());
    world.stop().await
}
