//! Requests that make no sense: the field at fault is named, and nothing reaches the services
//! behind.

use reqwest::{Method, header};
use serde_json::json;

use crate::world::{GYM, World, decision};

#[tokio::test]
async fn ids_outside_the_alphabet_name_their_field() -> anyhow::Result<()> {
    let world = World::start().await?;
    let service = world.tokens.service("booking");
    let long = "x".repeat(65);
    for (path, fields) in [
        ("/b@d/members/m_1/access".to_owned(), vec!["gym_id"]),
        (format!("/{GYM}/members/m%201/access"), vec!["member_id"]),
        (format!("/{GYM}/members/{long}/access"), vec!["member_id"]),
        (
            "/a.b/members/c*/access".to_owned(),
            vec!["gym_id", "member_id"],
        ),
        (format!("/{GYM}/integration/syncs/a.b"), vec!["sync_id"]),
        (format!("/{GYM}/members?status=fine"), vec!["status"]),
        (format!("/{GYM}/members?page_size=501"), vec!["page_size"]),
        (format!("/{GYM}/members?page_size=many"), vec!["page_size"]),
        (format!("/{GYM}/members?page_token=x"), vec!["page_token"]),
        (format!("/{GYM}/members/m_1/explain?at=noon"), vec!["at"]),
    ] {
        let answer = world.get(&service, &path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.fields(), fields, "{path}");
    }
    world.stop().await
}

#[tokio::test]
async fn bodies_name_the_field_at_fault_and_never_repeat_a_value() -> anyhow::Result<()> {
    let world = World::start().await?;
    let staff = world.staff();
    for (method, path, body, field) in [
        ("PUT", "integration/place", json!({}), "place_id"),
        (
            "PUT",
            "integration/place",
            json!({"place_id": "secret"}),
            "place_id",
        ),
        (
            "PUT",
            "integration/place",
            json!({"place_id": -1}),
            "place_id",
        ),
        ("PUT", "integration/place", json!([]), "body"),
        (
            "POST",
            "integration",
            json!({"api_key": ["secret"]}),
            "api_key",
        ),
        (
            "POST",
            "integration",
            json!({"api_key": "two secret"}),
            "api_key",
        ),
        (
            "PUT",
            "integration/associations",
            json!({"associations": [{"plan_id": "gold"}]}),
            "associations[0].group_id",
        ),
        (
            "PUT",
            "integration/associations",
            json!({"associations": [{"plan_id": "secret plan", "group_id": 1}]}),
            "associations[0].plan_id",
        ),
        (
            "PUT",
            "integration/associations",
            json!({"associations": [{"plan_id": "a", "group_id": 1}, {"plan_id": "a", "group_id": 2}]}),
            "associations[1].plan_id",
        ),
        (
            "PUT",
            "integration/policies",
            json!({"member_resume": "secret"}),
            "member_resume",
        ),
        (
            "POST",
            "integration/preview",
            json!({"associations": [{"plan_id": "a", "group_id": 0}]}),
            "associations[0].group_id",
        ),
        (
            "POST",
            "integration/held-plans/h_1/approve",
            json!({"digest": ""}),
            "digest",
        ),
        (
            "POST",
            "members/m_1/unlock",
            json!({"lock_id": 1, "location": {"latitude": 91, "longitude": 0}}),
            "location.latitude",
        ),
        (
            "PUT",
            "members/m_1/permissions",
            json!({"bluetooth": "secret", "location": true}),
            "bluetooth",
        ),
    ] {
        let method: Method = method.parse()?;
        let path = format!("/{GYM}/{path}");
        let answer = world
            .call(method, Some(&staff), &path, Some(body.clone()))
            .await;
        assert_eq!(answer.status, 400, "{path} {body}");
        assert_eq!(answer.fields(), [field], "{path} {body}");
        assert!(
            !answer.body.to_string().contains("secret"),
            "{}",
            answer.body
        );
    }
    let answer = world
        .call(
            Method::DELETE,
            Some(&staff),
            &format!("/{GYM}/integration"),
            None,
        )
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.fields()),
        (400, vec!["access"])
    );
    for method in [
        "select_place",
        "enable_integration",
        "set_associations",
        "set_policies",
    ] {
        assert!(world.upstream.calls(method).is_empty(), "{method}");
    }
    world.stop().await
}

#[tokio::test]
async fn malformed_large_and_foreign_bodies_are_refused() -> anyhow::Result<()> {
    let world = World::start().await?;
    let path = format!("/api/v1/gyms/{GYM}/integration/place");
    let send = |media: &'static str, body: String| {
        let request = world.http.put(world.url(&path)).bearer_auth(world.staff());
        let request = request.header(header::CONTENT_TYPE, media).body(body);
        world.read(Method::PUT, &path, request)
    };
    let answer = send("application/json", "{\"place_id\": 1".to_owned()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.fields()),
        (400, vec!["body"])
    );
    let answer = send("application/json", "{\"place_id\": 1} {}".to_owned()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.fields()),
        (400, vec!["body"])
    );
    assert_eq!(
        send("text/plain", "{\"place_id\": 1}".to_owned())
            .await
            .status,
        415
    );
    let large = format!("{{\"place_id\": 1, \"x\": \"{}\"}}", "x".repeat(300_000));
    assert_eq!(send("application/json", large).await.status, 413);
    world.stop().await
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems_with_their_headers() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.active_gym().await;
    world.publish(&decision("m_1", 1, &[])).await;
    world.status_becomes("m_1", "granting").await;
    let staff = world.staff();
    let answer = world.get(&staff, &format!("/{GYM}/nothing")).await;
    assert_eq!(answer.status, 404);
    let path = format!("/{GYM}/members/m_1/access");
    let answer = world.post(&staff, &path, json!({})).await;
    assert_eq!(answer.status, 405);
    assert!(
        answer.header("allow").contains("GET"),
        "{:?}",
        answer.headers
    );
    world.stop().await
}

#[tokio::test]
async fn what_has_no_back_end_yet_says_so() -> anyhow::Result<()> {
    let world = World::start().await?;
    let staff = world.staff();
    let member = format!("/{GYM}/members/m_1");
    for (method, path) in [(Method::GET, format!("{member}/timeline"))] {
        let answer = world.call(method, Some(&staff), &path, None).await;
        assert_eq!(answer.status, 501, "{path}");
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        assert!(detail.ends_with("is not available yet"), "{detail}");
    }
    world.stop().await
}
