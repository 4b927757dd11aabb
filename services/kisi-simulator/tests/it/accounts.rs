//! Who is calling, users, logins.

use reqwest::Method;
use serde_json::json;

use crate::harness::{KEY, Kisi};

#[tokio::test]
async fn credentials_that_are_none_are_401_and_rights_that_are_missing_403() {
    let kisi = Kisi::start().await;
    for key in [None, Some("wrong"), Some("")] {
        let answer = kisi.call_as(key, Method::GET, "/user", None).await;
        assert_eq!(answer.status, 401, "{key:?}");
        assert!(answer.body["code"].is_string() && answer.body["error"].is_string());
    }
    kisi.user("ada@example.com").await;
    let (_, secret) = kisi.login("ada@example.com").await;
    let body = json!({ "user": { "email": "eve@example.com", "send_emails": false } });
    let answer = kisi
        .call_as(Some(&secret), Method::POST, "/users", Some(body))
        .await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn a_dead_key_answers_as_it_is_set() {
    let kisi = Kisi::with(json!({ "demoted_owner": 403 })).await;
    assert_eq!(kisi.get("/login").await.body["type"], "api");
    kisi.hands(json!({ "action": "demote", "user_id": kisi.owner }))
        .await;
    assert_eq!(kisi.get("/user").await.status, 403);
    kisi.set(json!({ "demoted_owner": 401 })).await;
    assert_eq!(kisi.get("/user").await.status, 401);
    kisi.hands(json!({ "action": "revoke_key", "secret": KEY }))
        .await;
    assert_eq!(kisi.get("/user").await.status, 401);
    kisi.set(json!({ "revoked_key": 403 })).await;
    assert_eq!(kisi.get("/user").await.status, 403);
}

#[tokio::test]
async fn a_member_sees_her_own_doors_and_logins() {
    let kisi = Kisi::start().await;
    let ada = kisi.user("ada@example.com").await;
    kisi.user("bob@example.com").await;
    let (id, secret) = kisi.login("ada@example.com").await;
    kisi.login("bob@example.com").await;
    let get = |path: &'static str| kisi.call_as(Some(&secret), Method::GET, path, None);
    assert!(get("/locks?limit=250").await.rows().is_empty());
    kisi.grant(ada).await;
    let doors = get("/locks?limit=250").await;
    let ids: Vec<_> = doors.rows().iter().map(|row| row["id"].as_i64()).collect();
    assert_eq!(ids, [Some(kisi.front_door)]);
    let logins = get("/logins?limit=250").await;
    let ids: Vec<_> = logins.rows().iter().map(|row| row["id"].as_i64()).collect();
    assert_eq!(ids, [Some(id)]);
}

#[tokio::test]
async fn logins_have_their_limits_and_die_of_inactivity() {
    let kisi = Kisi::start().await;
    kisi.user("ada@example.com").await;
    let (first, secret) = kisi.login("ada@example.com").await;
    for _ in 0..40 {
        kisi.login("ada@example.com").await;
    }
    // The forty-first pushed out the oldest, without a word.
    assert_eq!(
        kisi.call_as(Some(&secret), Method::GET, "/user", None)
            .await
            .status,
        401
    );
    assert_eq!(kisi.delete(&format!("/logins/{first}")).await.status, 404);

    let api = || {
        kisi.post(
            "/logins",
            json!({ "login": { "type": "api", "name": "key" } }),
        )
    };
    for _ in 0..9 {
        assert_eq!(api().await.status, 200);
    }
    assert_eq!(
        api().await.status,
        422,
        "the owner has ten with the seeded one"
    );

    let body = json!({ "login": { "type": "device", "email": "ada@example.com" } });
    let expiring = kisi.post("/logins", body).await;
    let secret = expiring.body["secret"]
        .as_str()
        .expect("a secret")
        .to_owned();
    let (_, lasting) = kisi.login("ada@example.com").await;
    kisi.advance(14 * 86_400 + 60).await;
    assert_eq!(
        kisi.call_as(Some(&secret), Method::GET, "/user", None)
            .await
            .status,
        401
    );
    assert_eq!(
        kisi.call_as(Some(&lasting), Method::GET, "/user", None)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn an_unknown_email_gets_no_login_and_promoting_makes_one_primary() {
    let kisi = Kisi::start().await;
    let body = json!({ "login": { "type": "device", "email": "nobody@example.com" } });
    assert_eq!(kisi.post("/logins", body).await.status, 404);
    kisi.user("ada@example.com").await;
    let (first, secret) = kisi.login("ada@example.com").await;
    let (second, _) = kisi.login("ada@example.com").await;
    for id in [first, second] {
        let path = format!("/logins/{id}/promote");
        assert_eq!(kisi.call(Method::POST, &path, None).await.status, 204);
    }
    let logins = kisi
        .call_as(Some(&secret), Method::GET, "/logins?limit=250", None)
        .await;
    let primary: Vec<_> = logins
        .rows()
        .iter()
        .filter(|row| row["primary"] == true)
        .map(|row| &row["id"])
        .collect();
    assert_eq!(primary, [&json!(second)]);
}

#[tokio::test]
async fn a_second_user_of_one_email_is_refused_in_any_case_as_it_is_set() {
    let kisi = Kisi::start().await;
    let id = kisi.user("ada@example.com").await;
    let again = || {
        kisi.post(
            "/users",
            json!({ "user": { "email": "ADA@example.com", "send_emails": false } }),
        )
    };
    let conflict = again().await;
    assert_eq!(
        (conflict.status, &conflict.body["code"]),
        (409, &json!("000409"))
    );
    kisi.set(json!({ "duplicate_users": "422" })).await;
    let unprocessable = again().await;
    assert_eq!(unprocessable.status, 422);
    assert!(unprocessable.body["errors"]["email"].is_array());

    // The wrong client creates without looking and takes the refusal for a failure; the right one
    // looks again, by the exact e-mail.
    let found = kisi.get("/users?email=ada@example.com&limit=100").await;
    assert_eq!(found.rows()[0]["id"], id);
    assert_eq!(kisi.delete(&format!("/users/{id}")).await.status, 204);
    let reborn = kisi.user("ada@example.com").await;
    assert!(reborn > id, "ids are never used again");
}

#[tokio::test]
async fn a_search_finds_lookalikes_and_lags_behind() {
    let kisi = Kisi::with(json!({ "query_lag_ms": 60_000 })).await;
    let lookalike = kisi.user("ada@example.com.au").await;
    let search = "/users?query=ada%40example.com&limit=100";
    assert!(kisi.get(search).await.rows().is_empty(), "not found yet");
    kisi.advance(61).await;
    // The wrong client takes the first hit, and lets a stranger in.
    let first = kisi.get(search).await.rows()[0]["id"].clone();
    assert_eq!(first, lookalike);
    assert!(
        kisi.get("/users?email=ada%40example.com&limit=100")
            .await
            .rows()
            .is_empty()
    );
}

#[tokio::test]
async fn deleting_a_user_takes_assignments_and_logins_and_mails_are_recorded() {
    let kisi = Kisi::start().await;
    let id = kisi.user("ada@example.com").await;
    let row = kisi.grant(id).await.id();
    let (_, secret) = kisi.login("ada@example.com").await;
    assert_eq!(
        kisi.control(Method::GET, "/emails", json!({})).await,
        json!([]),
        "managed: no mail"
    );
    kisi.delete(&format!("/users/{id}")).await;
    assert_eq!(
        kisi.get(&format!("/role_assignments/{row}")).await.status,
        404
    );
    assert_eq!(
        kisi.call_as(Some(&secret), Method::GET, "/user", None)
            .await
            .status,
        401
    );

    // The wrong client leaves `send_emails` and `notify` out, and Kisi writes to the member.
    let eve = kisi
        .post("/users", json!({ "user": { "email": "eve@example.com" } }))
        .await
        .id();
    let mut grant = kisi.grant_body(eve);
    grant["role_assignment"]
        .as_object_mut()
        .expect("fields")
        .remove("notify");
    kisi.post("/role_assignments", grant).await;
    let mails = kisi.control(Method::GET, "/emails", json!({})).await;
    let kinds: Vec<_> = mails
        .as_array()
        .expect("mails")
        .iter()
        .map(|mail| &mail["kind"])
        .collect();
    assert_eq!(kinds, ["invitation", "role_assignment_created"]);
}

#[tokio::test]
async fn what_goes_with_a_user_and_a_patch_and_how_an_email_is_found_are_as_set() {
    let kisi = Kisi::with(json!({ "email_by_case": true })).await;
    let id = kisi.user("Ada@example.com").await;
    let by_email = |email: &str| format!("/users?email={email}&limit=100");
    assert!(
        kisi.get(&by_email("ada@example.com"))
            .await
            .rows()
            .is_empty()
    );
    assert_eq!(
        kisi.get(&by_email("Ada@example.com")).await.rows()[0]["id"],
        id
    );
    let search = kisi.get("/users?query=ada@example.com&limit=100").await;
    assert_eq!(search.rows()[0]["id"], id);

    let path = format!("/users/{id}");
    let patched = async |metadata| {
        kisi.patch(&path, json!({ "user": { "metadata": metadata } }))
            .await;
        kisi.get(&path).await.body["metadata"].clone()
    };
    patched(json!({ "a": "1" })).await;
    assert_eq!(patched(json!({ "b": "2" })).await, json!({ "b": "2" }));
    kisi.set(json!({ "patch_metadata": "merge" })).await;
    let both = json!({ "b": "3", "c": "4" });
    assert_eq!(
        patched(json!({ "c": "4" })).await,
        json!({ "b": "2", "c": "4" })
    );
    assert_eq!(patched(both.clone()).await, both);

    let row = kisi.grant(id).await.id();
    kisi.set(json!({ "deleted_rights": "stay" })).await;
    kisi.delete(&path).await;
    let right = format!("/role_assignments/{row}");
    assert_eq!(kisi.get(&right).await.status, 200);
    assert_eq!(kisi.delete(&right).await.status, 204);
}
