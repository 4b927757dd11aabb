//! Pages: defaults, maxima, ranges, and orders that move under the reader.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::Kisi;

#[tokio::test]
async fn each_list_has_its_own_default_and_maximum() {
    let kisi = Kisi::start().await;
    let group = kisi.group;
    for n in 0..60 {
        let user = kisi.user(&format!("u{n:03}@example.com")).await;
        kisi.grant(user).await;
    }
    let of_group = format!("/role_assignments?applies_to_type=Group&applies_to_id={group}");
    // The wrong client forgets `limit`, and takes ten rows for all of them.
    let short = kisi.get(&of_group).await;
    assert_eq!(
        (short.rows().len(), short.range.as_deref()),
        (10, Some("0-9/60"))
    );
    let whole = kisi.get(&format!("{of_group}&limit=250")).await;
    assert_eq!(
        (whole.rows().len(), whole.range.as_deref()),
        (60, Some("0-249/60"))
    );
    assert_eq!(kisi.get("/users").await.rows().len(), 50);
    assert_eq!(kisi.get("/users?limit=100").await.rows().len(), 61);

    for (path, maximum) in [
        ("/users", 100),
        ("/members", 100),
        ("/role_assignments", 250),
        ("/groups", 250),
        ("/locks", 250),
        ("/places", 250),
        ("/integrations", 250),
        ("/logins", 250),
    ] {
        let at = kisi.get(&format!("{path}?limit={maximum}")).await;
        assert_eq!(at.status, 200, "{path}");
        let over = kisi.get(&format!("{path}?limit={}", maximum + 1)).await;
        assert_eq!(over.status, 400, "{path}");
        let far = kisi.get(&format!("{path}?offset=20001")).await;
        assert_eq!(far.status, 400, "{path}");
    }
    kisi.set(json!({ "over_maximum": "clamp" })).await;
    // The wrong client asks for 1,000 and believes that it got them.
    let clamped = kisi.get("/users?limit=1000").await;
    assert_eq!(
        (clamped.status, clamped.range.as_deref()),
        (200, Some("0-99/61"))
    );
}

#[tokio::test]
async fn without_a_limit_each_list_asks_for_its_own() {
    let kisi = Kisi::start().await;
    let hook = json!({ "integration": {
        "name": "Gymflow", "type": "event_webhook", "url": "https://gymflow.example/hook",
        "enabled": true, "enabled_events": ["lock.unlock"], "signature_key": "k",
    }});
    assert_eq!(kisi.post("/integrations", hook).await.status, 200);
    let group = kisi.group;
    for (path, range) in [
        ("/role_assignments", "0-9/1"),
        ("/groups", "0-9/2"),
        ("/integrations", "0-9/1"),
        ("/logins", "0-9/1"),
        (&format!("/group_locks?group_id={group}"), "0-9/1"),
        ("/locks", "0-49/2"),
        ("/places", "0-49/1"),
        ("/users", "0-49/1"),
        ("/members", "0-49/1"),
        ("/users?limit=7&offset=0", "0-6/1"),
        ("/locks?limit=1&offset=1", "1-1/2"),
        ("/locks?favorite=true", "*/0"),
        ("/locks?unlocked=false", "0-49/2"),
        ("/group_links", "*/0"),
    ] {
        let page = kisi.get(path).await;
        assert_eq!(page.range.as_deref(), Some(range), "{path}");
    }
    for path in ["/organizations", "/roles"] {
        let all = kisi.get(path).await;
        assert!(!all.rows().is_empty() && all.range.is_none(), "{path}");
    }
}

#[tokio::test]
async fn rows_come_in_the_order_that_was_asked_for() {
    let kisi = Kisi::start().await;
    for name in ["Cleo", "Ada", "Bob"] {
        let email = format!("{name}@example.com");
        let body = json!({ "user": { "email": email, "name": name, "send_emails": false } });
        assert_eq!(kisi.post("/users", body).await.status, 200);
    }
    let names = async |path: &str| {
        let page = kisi.get(path).await;
        let names: Vec<_> = page
            .rows()
            .iter()
            .map(|row| row["name"].as_str().unwrap_or_default().to_owned())
            .collect();
        names
    };
    let query = "query=%40example.com";
    let by_id = names(&format!("/users?{query}")).await;
    assert_eq!(by_id, ["Cleo", "Ada", "Bob"]);
    let ascending = names(&format!("/users?{query}&sort=name")).await;
    assert_eq!(ascending, ["Ada", "Bob", "Cleo"]);
    let descending = names(&format!("/users?{query}&sort=-name")).await;
    assert_eq!(descending, ["Cleo", "Bob", "Ada"]);
    let by_what_kisi_has_not = kisi.get("/role_assignments?sort=id").await;
    assert_eq!(by_what_kisi_has_not.status, 400);
}

#[tokio::test]
async fn ranges_are_as_asked_and_nothing_is_star() {
    let kisi = Kisi::start().await;
    let empty = kisi
        .get("/users?email=nobody%40example.com&limit=100")
        .await;
    assert_eq!(
        (empty.rows().len(), empty.range.as_deref()),
        (0, Some("*/0"))
    );
    let past = kisi.get("/users?limit=100&offset=200").await;
    assert_eq!(
        (past.rows().len(), past.range.as_deref()),
        (0, Some("200-299/1"))
    );
    let one = kisi.user("ada@example.com").await;
    let two = kisi.user("bob@example.com").await;
    let some = kisi.get(&format!("/users?ids={one},{two}&limit=100")).await;
    assert_eq!(some.rows().len(), 2);
}

#[tokio::test]
async fn an_order_that_moves_is_seen_by_whoever_counts_distinct_ids() {
    let kisi = Kisi::with(json!({ "unstable_order": true })).await;
    for n in 0..40 {
        let body = json!({ "user": { "email": format!("u{n}@example.com"), "name": "Same Name", "send_emails": false } });
        let user = kisi.post("/users", body).await.id();
        kisi.grant(user).await;
    }
    let group = kisi.group;
    let mut moved = false;
    for _ in 0..10 {
        let mut ids = BTreeSet::new();
        let mut rows = 0;
        for offset in [0, 10, 20, 30] {
            let path = format!(
                "/role_assignments?applies_to_type=Group&applies_to_id={group}&limit=10&offset={offset}"
            );
            let page = kisi.get(&path).await;
            assert_eq!(
                page.range
                    .as_deref()
                    .and_then(|range| range.split('/').nth(1)),
                Some("40")
            );
            rows += page.rows().len();
            ids.extend(page.rows().iter().filter_map(|row| row["id"].as_i64()));
        }
        // The wrong client counts rows, finds all forty, and has missed some.
        assert_eq!(rows, 40);
        moved |= ids.len() < 40;
    }
    assert!(moved, "pages never overlapped");
}

#[tokio::test]
async fn deprecated_twins_and_filters_answer_alike() {
    let kisi = Kisi::start().await;
    let user = kisi.user("ada@example.com").await;
    let row = kisi.grant(user).await;
    let of_user = kisi
        .get(&format!("/role_assignments?user_id={user}&limit=250"))
        .await;
    assert_eq!(of_user.rows()[0]["id"], row.id());
    let member = kisi
        .get(&format!("/members?user_id={user}&limit=100"))
        .await;
    let member = &member.rows()[0];
    assert_ne!(member["id"], user, "a member has an id of its own");
    assert_eq!(member["user_id"], user);
    // The wrong client grants to the member's id.
    let wrong = kisi.grant(member["id"].as_i64().expect("an id")).await;
    assert_eq!(wrong.status, 404);
}
