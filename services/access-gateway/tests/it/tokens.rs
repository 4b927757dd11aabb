//! Who may call: every way a token can be wrong or not enough.

use reqwest::Method;
use serde_json::json;
use testkit::TokenIssuer;
use testkit::jwt::claims;

use crate::world::{GYM, World, decision};

#[tokio::test]
async fn missing_expired_and_forged_tokens_are_401_with_a_challenge() -> anyhow::Result<()> {
    let world = World::start().await?;
    let mut expired = claims("staff", "u_1", Some(GYM), Some("read"));
    expired["exp"] = json!(1_700_000_000);
    let mut other_audience = claims("staff", "u_1", Some(GYM), Some("read"));
    other_audience["aud"] = json!("another-product");
    let forger = TokenIssuer::new()?;
    let tokens = [
        ("none", None),
        ("expired", Some(world.tokens.sign(&expired))),
        ("another audience", Some(world.tokens.sign(&other_audience))),
        ("forged", Some(forger.staff(GYM, "u_1", "read"))),
        ("garbage", Some("a.b.c".to_owned())),
    ];
    for (case, token) in tokens {
        for path in ["members/m_1/access", "integration", "members/b@d/access"] {
            let path = format!("/{GYM}/{path}");
            let answer = world.call(Method::GET, token.as_deref(), &path, None).await;
            assert_eq!(answer.status, 401, "{case} {path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{case}");
        }
    }
    world.stop().await
}

#[tokio::test]
async fn members_reach_their_own_page_only() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.active_gym().await;
    world.publish(&decision("m_1", 1, &[])).await;
    world.publish(&decision("m_2", 1, &[])).await;
    world.status_becomes("m_2", "granting").await;
    let own = world.tokens.member(GYM, "m_1");
    let elsewhere = world.tokens.member("steel", "m_1");
    let page = format!("/{GYM}/members/m_1/access");
    assert_eq!(world.get(&own, &page).await.status, 200);
    for (token, path) in [
        (&own, format!("/{GYM}/members/m_2/access")),
        (&own, "/steel/members/m_1/access".to_owned()),
        (&elsewhere, page),
        (&own, format!("/{GYM}/members")),
        (&own, format!("/{GYM}/integration")),
        (&own, format!("/{GYM}/dead-letters")),
    ] {
        let answer = world.get(token, &path).await;
        assert_eq!(answer.status, 403, "{path}");
        assert_eq!(answer.body["code"], "permission_denied");
    }
    world.stop().await
}

#[tokio::test]
async fn staff_need_the_scope_and_are_told_which() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    let held = "integration/held-plans/h_1";
    for (method, path, body, scope) in [
        (get.clone(), "members/m_1/access".to_owned(), None, "read"),
        (get.clone(), "members".to_owned(), None, "read"),
        (get.clone(), "integration".to_owned(), None, "read"),
        (get, "members/m_1/timeline".to_owned(), None, "read"),
        (
            post.clone(),
            "members/m_1/unlock".to_owned(),
            Some(json!({"lock_id": 1})),
            "override",
        ),
        (
            post.clone(),
            "members/m_1/resume".to_owned(),
            None,
            "override",
        ),
        (
            post.clone(),
            "members/m_1/devices/reset".to_owned(),
            None,
            "override",
        ),
        (
            post.clone(),
            "members/m_1/sync".to_owned(),
            None,
            "configure",
        ),
        (
            post.clone(),
            "integration".to_owned(),
            Some(json!({"api_key": "k"})),
            "configure",
        ),
        (
            delete,
            "integration?access=keep".to_owned(),
            None,
            "configure",
        ),
        (
            put.clone(),
            "integration/place".to_owned(),
            Some(json!({"place_id": 1})),
            "configure",
        ),
        (
            put,
            "integration/policies".to_owned(),
            Some(json!({})),
            "configure",
        ),
        (
            post.clone(),
            "integration/sync".to_owned(),
            None,
            "configure",
        ),
        (
            post.clone(),
            format!("{held}/approve"),
            Some(json!({"digest": "d"})),
            "approve",
        ),
        (post, format!("{held}/discard"), None, "approve"),
    ] {
        let others = ["read", "override", "configure", "approve"]
            .map(|word| if word == scope { "" } else { word });
        let token = world.tokens.staff(GYM, "u_1", others.join(" ").trim());
        let path = format!("/{GYM}/{path}");
        let answer = world
            .call(method.clone(), Some(&token), &path, body.clone())
            .await;
        assert_eq!(answer.status, 403, "{method} {path}");
        assert_eq!(
            answer.body["detail"],
            format!("the scope {scope} is missing")
        );

        let elsewhere = world.tokens.staff("steel", "u_1", scope);
        let answer = world.call(method, Some(&elsewhere), &path, body).await;
        assert_eq!(answer.status, 403, "{path}");
        assert_eq!(answer.body["detail"], "this is another gym's");
    }
    world.stop().await
}

#[tokio::test]
async fn services_reach_every_gym_and_unknown_members_are_404() -> anyhow::Result<()> {
    let world = World::start().await?;
    let service = world.tokens.service("booking");
    for gym in [GYM, "steel"] {
        let answer = world
            .get(&service, &format!("/{gym}/members/m_9/access"))
            .await;
        assert_eq!(answer.status, 404);
    }
    let staff = world.staff();
    for token in [&service, &staff] {
        let answer = world.get(token, "/_/dead-letters").await;
        let wanted = if token == &service { 200 } else { 403 };
        assert_eq!(answer.status, wanted);
    }
    world.stop().await
}
